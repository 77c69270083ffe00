"""The pictures that an analysis leaves in the outbox of its job, small and quick to make."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.findings import Findings
from pipeline.geometry import Geometry
from pipeline.pictures import CROPS, SLICES, VOLUMES, write_picture_archive
from pipeline.pictures.nifti import to_nifti

SHAPE = (40, 64, 80)
SPACING = (2.0, 2.0, 2.0)
ORIGIN = (-80.0, -64.0, 0.0)
NUMBERS = tuple(range(101, 101 + SHAPE[0]))
"""What a PACS calls the slices."""


def jpeg(value: int, size: tuple[int, int] = (60, 20)) -> bytes:
    """One shade of grey."""
    file = BytesIO()
    Image.new("L", size, value).save(file, format="JPEG")
    return file.getvalue()


def write_pictures(folder: Path, findings: Findings) -> None:
    """Crops and slices as :mod:`pipeline.pictures` names them; a slice is as bright as its index."""
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = ORIGIN
    names: list[str] = [str(lesion.id) for lesion in findings.lesions]
    names += [f"rejected-{n}" for n in range(1, len(findings.rejected) + 1)]
    names += [f"gone-{n}" for n in range(1, len(findings.change.no_longer_seen if findings.change else ()) + 1)]
    crops: dict[str, Any] = {
        "schema": "cmb-crops/1",
        "size": [60, 20],
        "field_mm": 26.0,
        "views": ["swi", "phase", "mip"],
        "slices": {
            lesion.tracking_uid: NUMBERS[min(round(lesion.centroid_lps_mm[2] / 2), SHAPE[0] - 1)]
            for lesion in findings.lesions
        },
    }
    slices: dict[str, Any] = {
        "schema": "cmb-slices/1",
        "shape": list(SHAPE),
        "affine": affine.tolist(),
        "numbers": list(NUMBERS),
        "views": ["swi", "phase"],
        "edges": ["R", "L", "A", "P"],
    }
    strips = {f"{name}-{view}.jpg": jpeg(90) for name in names for view in crops["views"]}
    size = SHAPE[2], SHAPE[1]
    stack = {f"{view}-{k}.jpg": jpeg(k * 5, size) for view in slices["views"] for k in range(SHAPE[0])}
    (folder / CROPS).write_bytes(write_picture_archive(crops, strips))
    (folder / SLICES).write_bytes(write_picture_archive(slices, stack))
    (folder / VOLUMES).write_bytes(volumes(findings))


def volumes(findings: Findings) -> bytes:
    """The same grid turned upright: x to the right, y to the front. Microbleeds are dark, the rest has its own grey."""
    k, j, i = SHAPE
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = np.array(ORIGIN) + np.array([SPACING[0] * (i - 1), SPACING[1] * (j - 1), 0])
    grid = Geometry(SHAPE, affine)
    z, y, x = np.indices(SHAPE)
    inside = ((x - i / 2) / (i / 2)) ** 2 + ((y - j / 2) / (j / 2)) ** 2 + ((z - k / 2) / (k / 2)) ** 2 < 0.9
    swi = np.where(inside, 150 + (x + y + z) % 3, 4).astype(np.uint8)
    phase = np.full(SHAPE, 128, np.uint8)
    for lesion in findings.lesions:
        offset = grid.to_ijk(lesion.centroid_lps_mm)
        distance = sum((a - b) ** 2 * s**2 for a, b, s in zip((x, y, z), offset, SPACING, strict=True))
        swi[distance < (lesion.diameter_mm / 2) ** 2 + 1] = 20
        phase[distance < (lesion.diameter_mm / 2) ** 2 + 1] = 200
    index: dict[str, Any] = {
        "schema": "cmb-volumes/1",
        "shape": list(SHAPE),
        "affine": affine.tolist(),
        "across": 2,
        "numbers": list(NUMBERS),
        "volumes": ["swi", "phase", "mip"],
    }
    content = {"swi": swi, "phase": phase, "mip": swi, "brain": inside.astype(np.uint8)}
    return write_picture_archive(
        index, {f"{name}.nii.gz": to_nifti(values, grid, (0, 204)) for name, values in content.items()}
    )
