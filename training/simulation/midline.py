"""Where is the midline of a head of its own? The plane x = 0 of MNI space is that of an average head; a falx bends.

It is where the tissue to the left and to the right mirror each other best, near the point that is asked about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from training.simulation.anatomy.tissue_maps import Anatomy

from .coarse_grid import SampledGrid, coarse

Floats = NDArray[np.float64]

_STEP_MM: Final = 0.5
_AWAY: Final = np.arange(0.0, 15.0, _STEP_MM)
"""Distances from a midline at which left is compared with right."""
_SHIFTS: Final = np.arange(-4.0, 4.0 + _STEP_MM / 2, _STEP_MM)
"""Midlines that are tried, mm beside x = 0."""
_NEAR: Final = np.stack(np.meshgrid(*2 * [np.arange(-8.0, 9.0, 2.0)], indexing="ij"), axis=-1).reshape(-1, 2)
"""Offsets in y and z that are compared together."""
_SMOOTH_MM: Final = 1.0


@dataclass(frozen=True, eq=False)
class OwnMidline:
    """The midline of one head, from its tissue on a grid of about 1 mm in MNI space.

    Parameters
    ----------
    tissue : SampledGrid
        White matter, and half of the grey, as fractions.
    """

    tissue: SampledGrid

    def __call__(self, mni: ArrayLike) -> Floats:
        """Coordinate x (mm) of the midline at the y and z of points ``(n, 3)``; 0 where there is no tissue."""
        return np.array([self._at(y, z) for _, y, z in np.asarray(mni, dtype=np.float64).reshape(-1, 3)])

    def _at(self, y: float, z: float) -> float:
        reach = len(_AWAY) + len(_SHIFTS) // 2
        x = _STEP_MM * np.arange(-reach, reach + 1)
        points = np.empty((len(x), len(_NEAR), 3))
        points[..., 0] = x[:, None]
        points[..., 1:] = _NEAR + np.array([y, z])
        profile = self.tissue(points.reshape(-1, 3)).reshape(len(x), -1)
        away = np.arange(len(_AWAY))
        middles = reach + np.arange(len(_SHIFTS)) - len(_SHIFTS) // 2
        alike = np.array([_correlation(profile[m + away], profile[m - away]) for m in middles])
        best = int(alike.argmax())
        return float(_SHIFTS[best] + _STEP_MM * _peak(alike, best)) if alike[best] > 0 else 0.0


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 1e-6 else 0.0


def _peak(values: Floats, best: int) -> float:
    """How many samples beside the largest of `values` the parabola through it and its neighbours has its top."""
    if not 0 < best < len(values) - 1:
        return 0.0
    before, at, after = values[best - 1 : best + 2]
    bend = before - 2 * at + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0


def anatomy_midline(anatomy: Anatomy) -> OwnMidline:
    """Where the two halves of an anatomy mirror each other."""
    head = coarse(anatomy)
    tissue = ndimage.gaussian_filter(head.white + head.grey / 2, _SMOOTH_MM / head.step_mm)
    return OwnMidline(head.sampled(np.asarray(tissue, dtype=np.float32)))
