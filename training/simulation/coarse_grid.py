"""What is there at a place of a head? Read off a grid of about a millimetre: such questions need no finer one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from training.simulation.anatomy.tissue_maps import Anatomy

Float32 = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SampledGrid:
    """A quantity on a grid in MNI space.

    Parameters
    ----------
    array : ndarray of float32, shape (k, j, i)
        Its values.
    origin_mm : ndarray, shape (3,)
        LPS-oriented MNI coordinates of voxel (0, 0, 0).
    step_mm : float
        Edge of the voxels.
    """

    array: Float32
    origin_mm: Floats
    step_mm: float

    def __call__(self, mni: ArrayLike) -> Floats:
        """Its value at points ``(n, 3)``, linearly interpolated; beyond the grid, as at its edge."""
        at = ((np.asarray(mni) - self.origin_mm) / self.step_mm)[:, ::-1].T
        return np.asarray(ndimage.map_coordinates(self.array, at, order=1, mode="nearest"), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class CoarseAnatomy:
    """Tissue fractions (0–1) of an anatomy in voxels of about 1 mm; `origin_mm` and `step_mm` as in `SampledGrid`."""

    csf: Float32
    grey: Float32
    white: Float32
    origin_mm: Floats
    step_mm: float

    def sampled(self, array: Float32) -> SampledGrid:
        """An array of the same shape as a quantity with places."""
        return SampledGrid(array, self.origin_mm, self.step_mm)


def coarse(anatomy: Anatomy) -> CoarseAnatomy:
    """An anatomy, averaged over blocks of about 1 mm."""
    stride = max(1, round(1 / anatomy.spacing_mm))
    origin = np.array(anatomy.origin_mm) + (stride - 1) / 2 * anatomy.spacing_mm
    csf, grey, white = (shrink(a, stride) for a in (anatomy.csf, anatomy.grey, anatomy.white))
    return CoarseAnatomy(csf, grey, white, origin, stride * anatomy.spacing_mm)


def shrink(array: NDArray[np.uint8], stride: int) -> Float32:
    """Fractions 0–1 of fractions 0–255, averaged over blocks of `stride` voxels along each axis."""
    k, j, i = (n // stride for n in array.shape)
    total = np.zeros((k, j, i), dtype=np.float32)
    for c, b, a in np.ndindex(stride, stride, stride):
        total += array[c : k * stride : stride, b : j * stride : stride, a : i * stride : stride]
    return np.asarray(total / np.float32(stride**3) / np.float32(255), dtype=np.float32)
