"""A cohort of small heads made of ellipsoids, as DICOM with truth files: what ``cmbtrain simulate`` leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.dicom_factory import Patient, affine, classic, write
from tests.pipeline import phantom


def write_head(folder: Path, *, anatomy: str, seed: int, bleeds: tuple[phantom.Bleed, ...] = phantom.BLEEDS) -> None:
    """One study: the SWI below ``dicom``, the truth beside it."""
    image, _ = phantom.head(bleeds, seed=seed)
    matrix = affine(phantom.SPACING, (0.0, 0.0, 0.0))
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


def write_cohort(folder: Path, heads: int = 2) -> Path:
    """Some heads of different anatomies and bleeds, the last without any."""
    for n in range(heads):
        bleeds = () if n == heads - 1 else phantom.BLEEDS[n:]
        write_head(folder / f"head-{n}", anatomy=f"anatomy-{n}", seed=n + 1, bleeds=bleeds)
    return folder
