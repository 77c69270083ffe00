"""What is the brain registered to? The ICBM152 template at 2 mm with the regions of MARS (see ``NOTICE.md``)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.geometry import Geometry

ATLAS: Final = Path(__file__).with_name("icbm152.npz")
MIDLINE_MM: Final = 2.5
"""A point this near to the midsagittal plane is in the midline."""
_AROUND_MM: Final = 1.5
"""Width of the Gaussian that weighs the parcels around a point: registration errs by 2 to 3 mm."""
BORDER_REACH_MM: Final = 10.0
"""How far from a point another main region is looked for."""
_NEIGHBOURS: Final = np.stack(np.meshgrid(*3 * [np.arange(-2, 3)], indexing="ij"), axis=-1).reshape(-1, 3)


@dataclass(frozen=True)
class AtlasRegion:
    """Where a point lies, in the terms of MARS (Gregoire 2009).

    Parameters
    ----------
    region : str
        ``lobar``, ``deep`` or ``infratentorial``.
    location : str
        The lobe or structure.
    side : str
        ``left``, ``right`` or ``midline``.
    border_mm : float
        Distance to the nearest place of another main region; infinite if none lies within :data:`BORDER_REACH_MM`.
    beyond : str
        That region, or an empty string.
    """

    region: str
    location: str
    side: str
    border_mm: float = np.inf
    beyond: str = ""


@dataclass(frozen=True, eq=False)
class Atlas:
    """The template and its regions, on one grid in LPS-oriented MNI coordinates.

    Parameters
    ----------
    geometry : Geometry
        The grid.
    t1 : ndarray of uint8, shape (k, j, i)
        T1-weighted brain without its skull.
    brain : ndarray of bool, shape (k, j, i)
        The outline of the brain, sulci and ventricles included.
    parcel : ndarray of uint8, shape (k, j, i)
        Index into `names`, defined everywhere, also outside the brain.
    names : tuple of (str, str)
        Region and location of each parcel.
    """

    geometry: Geometry
    t1: NDArray[np.uint8]
    brain: NDArray[np.bool_]
    parcel: NDArray[np.uint8]
    names: tuple[tuple[str, str], ...]

    def place(self, mni: ArrayLike) -> AtlasRegion:
        """Name a point ``(x, y, z)`` in LPS-oriented MNI millimetres; outside the atlas, as at its edge.

        The region with the largest weight around the point, and within it the location with the largest weight.
        """
        centre = self.geometry.to_ijk(mni)[::-1]
        voxels = np.round(centre).astype(int) + _NEIGHBOURS
        steps = (voxels - centre) * self.geometry.spacing[::-1]
        weight = np.exp(-(steps**2).sum(axis=1) / (2 * _AROUND_MM**2))
        inside = np.clip(voxels, 0, np.array(self.parcel.shape) - 1)
        share = np.bincount(self.parcel[tuple(inside.T)], weight, len(self.names))
        regions = [region for region, _ in self.names]
        of_region = {
            name: sum(s for s, r in zip(share, regions, strict=True) if r == name) for name in dict.fromkeys(regions)
        }
        region = max(of_region, key=lambda name: of_region[name])
        location = self.names[int(np.argmax(share * [r == region for r in regions]))][1]
        x = float(np.asarray(mni)[0])
        side = "midline" if abs(x) < MIDLINE_MM else "left" if x > 0 else "right"
        return AtlasRegion(region, location, side, *self._border(centre, region))

    def _border(self, centre: NDArray[np.float64], region: str) -> tuple[float, str]:
        """Distance from a point ``(k, j, i)`` to the nearest voxel's edge of another region, and that region."""
        step = np.array(self.geometry.spacing[::-1])
        reach = [np.arange(-n, n + 1) for n in np.ceil(BORDER_REACH_MM / step).astype(int)]
        voxels = np.round(centre).astype(int) + np.stack(np.meshgrid(*reach, indexing="ij"), axis=-1).reshape(-1, 3)
        gap = np.maximum(np.abs(voxels - centre) - 0.5, 0) * step  # to the edge of each voxel, not to its centre
        distance = np.sqrt((gap**2).sum(axis=1))
        within = (distance <= BORDER_REACH_MM) & ((voxels >= 0) & (voxels < self.parcel.shape)).all(axis=1)
        parcels = self.parcel[tuple(voxels[within].T)]
        other = np.array([name != region for name, _ in self.names])[parcels]
        if not other.any():
            return np.inf, ""
        nearest = int(np.argmin(np.where(other, distance[within], np.inf)))
        return float(distance[within][nearest]), self.names[parcels[nearest]][0]


@cache
def load_atlas() -> Atlas:
    """Read the atlas of the pipeline, once per process."""
    with np.load(ATLAS, allow_pickle=False) as stored:
        affine = np.diag([*[float(stored["spacing_mm"])] * 3, 1.0])
        affine[:3, 3] = stored["origin_mm"]
        parcel = stored["parcel"]
        regions, locations = stored["regions"].tolist(), stored["locations"].tolist()
        names = tuple(zip(regions, locations, strict=True))
        shape = (parcel.shape[0], parcel.shape[1], parcel.shape[2])
        return Atlas(Geometry(shape, affine), stored["t1"], stored["brain"], parcel, names)
