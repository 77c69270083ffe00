"""A cohort of small heads made of ellipsoids, as DICOM with truth files: what ``cmbtrain simulate`` leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.dicom_factory import Patient, affine, classic, write
from tests.pipeline import phantom

SPACING = (1.6, 1.6, 3.0)
SHAPE = (46, 125, 105)
"""Coarser than the phantom's own, to be quick; its bleeds are larger instead."""
BLEEDS: tuple[phantom.Bleed, ...] = tuple((x, y, z, 1.25 * radius) for x, y, z, radius in phantom.BLEEDS)


def write_head(folder: Path, *, anatomy: str, seed: int, bleeds: tuple[phantom.Bleed, ...] = BLEEDS) -> None:
    """One study: the SWI below ``dicom``, the truth beside it."""
    image, _ = phantom.head(bleeds, seed=seed, shape=SHAPE, spacing=SPACING)
    matrix = affine(SPACING, (0.0, 0.0, 0.0))
    write(classic(image.astype(np.uint16), patient=Patient(seed=folder.name), matrix=matrix), folder / "dicom")
    lesions = [_bleed(bleed) for bleed in bleeds]
    document = {
        "schema": "cmb-simulated-truth/1",
        "note": "SIMULATED IMAGE - no patient. Research use only.",
        "study": folder.name,
        "anatomy": anatomy,
        "lesions": lesions,
        "mimics": [],
        "visible_means": {"contrast": 0.25, "cnr": 4.0, "conspicuity": 1.5},
        "seeds": {"head": seed},
    }
    (folder / "truth.json").write_text(json.dumps(document))


def _bleed(bleed: phantom.Bleed) -> dict[str, Any]:
    return {
        "kind": "bleed",
        "centre_lps_mm": [c + m for c, m in zip(bleed[:3], phantom.MIDDLE, strict=True)],
        "apparent_diameter_mm": 2 * bleed[3],
        "region": "lobar" if bleed[0] > 0 else "deep",
        "visible": True,
    }


def write_cohort(folder: Path, heads: int = 2, *, last_free: bool = True) -> Path:
    """Some heads of different anatomies and bleeds, the last without any if `last_free`."""
    for n in range(heads):
        bleeds = () if last_free and n == heads - 1 else BLEEDS[n % 2 :]
        write_head(folder / f"head-{n}", anatomy=f"anatomy-{n}", seed=n + 1, bleeds=bleeds)
    return folder
