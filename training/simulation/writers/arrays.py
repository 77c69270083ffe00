"""How can training read a study fast? One uncompressed ``.npz`` of 16-bit arrays and the grid.

DICOM stays the reference; this is for loops that read each study many times.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.simulation.study import SimulatedStudy

from .scaling import WHITE_LEVEL, intensity

PHASE_UNIT = np.pi / 32767
"""Radians of one step of the stored phase."""


def write_arrays(study: SimulatedStudy, path: Path) -> Path:
    """Write ``swi``, ``magnitude`` (uint16), ``phase`` (int16, steps of π/32767), ``labels`` and ``affine`` (LPS)."""
    images = study.images
    np.savez(
        path,
        swi=intensity(images.swi, WHITE_LEVEL),
        magnitude=intensity(images.magnitude, WHITE_LEVEL),
        phase=np.round(images.phase / PHASE_UNIT).astype(np.int16),
        labels=study.truth.labels,
        affine=images.geometry.affine,
    )
    return path
