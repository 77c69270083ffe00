"""What does the simulator need to know of a head, whatever file it came from?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Tissue maps of one head on one grid in MNI space.

    Parameters
    ----------
    name : str
        Unique within a cohort; splits are made by it.
    csf, grey, white : ndarray of uint8, shape (k, j, i)
        Fraction of the voxel, 0–255.
    other : ndarray of uint8, shape (k, j, i)
        :class:`~training.simulation.tissue.Tissue` value of whatever fills the rest of the voxel.
    vessels : ndarray of uint8 or None, shape (k, j, i)
        Fraction of large vessels (arteries and sinuses) where the source knows them.
    spacing_mm : float
        Edge of the cubic voxels.
    origin_mm : tuple of float
        LPS-oriented MNI coordinates of voxel (0, 0, 0); the axes are parallel to LPS.
    inlays : bool
        Whether nuclei are to be drawn in (the source does not tell them from grey matter).
    """

    name: str
    csf: UInt8
    grey: UInt8
    white: UInt8
    other: UInt8
    vessels: UInt8 | None
    spacing_mm: float
    origin_mm: tuple[float, float, float]

    def centres(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """LPS coordinates of the voxel centres along each axis as open grids broadcasting to (k, j, i): x, y, z."""
        k, j, i = self.csf.shape
        z = self.origin_mm[2] + self.spacing_mm * np.arange(k, dtype=np.float32)[:, None, None]
        y = self.origin_mm[1] + self.spacing_mm * np.arange(j, dtype=np.float32)[None, :, None]
        x = self.origin_mm[0] + self.spacing_mm * np.arange(i, dtype=np.float32)[None, None, :]
        return x, y, z


@dataclass(frozen=True)
class AnatomyRef:
    """Which head, without its voxels: cheap to pass to another process.

    `folder` is ``None`` for the bundled ICBM152 template.
    """

    name: str
    folder: Path | None = None
    scheme: str | None = None
