"""What is the brain laid on? The ICBM152 template at 2 mm with the regions of MARS; ``NOTICE.md`` says whose it is."""

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
"""A point so near to the midsagittal plane has no side."""
_AROUND_MM: Final = 1.5
"""Width of the Gaussian in which a place is judged: a registration errs by two or three millimetres."""
_NEIGHBOURS: Final = np.stack(np.meshgrid(*3 * [np.arange(-2, 3)], indexing="ij"), axis=-1).reshape(-1, 3)


@dataclass(frozen=True)
class Place:
    """Where a point lies, in the words of MARS (Gregoire 2009).

    Parameters
    ----------
    region : str
        ``lobar``, ``deep`` or ``infratentorial``.
    location : str
        The lobe or structure.
    side : str
        ``left``, ``right`` or ``midline``.
    """

    region: str
    location: str
    side: str


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
        The brain in outline: sulci and ventricles included.
    parcel : ndarray of uint8, shape (k, j, i)
        Index into `names`, everywhere, also beyond the brain.
    names : tuple of (str, str)
        Region and location of each parcel.
    """

    geometry: Geometry
    t1: NDArray[np.uint8]
    brain: NDArray[np.bool_]
    parcel: NDArray[np.uint8]
    names: tuple[tuple[str, str], ...]

    def place(self, mni: ArrayLike) -> Place:
        """Where a point ``(x, y, z)`` in LPS-oriented MNI millimetres lies; beyond the atlas, as at its edge.

        It is the region that weighs most around the point, and in it the location that does.
        """
        centre = self.geometry.to_ijk(mni)[::-1]
        voxels = np.round(centre).astype(int) + _NEIGHBOURS
        steps = (voxels - centre) * self.geometry.spacing[::-1]
        weight = np.exp(-(steps**2).sum(axis=1) / (2 * _AROUND_MM**2))
        inside = np.clip(voxels, 0, np.array(self.parcel.shape) - 1)
        share = np.bincount(self.parcel[tuple(inside.T)], weight, len(self.names))
        regions = [region for region, _ in self.names]
        of_region = {name: sum(s for s, r in zip(share, regions, strict=True) if r == name) for name in regions}
        region = max(of_region, key=lambda name: of_region[name])
        location = self.names[int(np.argmax(share * [r == region for r in regions]))][1]
        x = float(np.asarray(mni)[0])
        return Place(region, location, "midline" if abs(x) < MIDLINE_MM else "left" if x > 0 else "right")


@cache
def load_atlas() -> Atlas:
    """Read the atlas that comes with the pipeline; once in a process."""
    with np.load(ATLAS, allow_pickle=False) as stored:
        affine = np.diag([*[float(stored["spacing_mm"])] * 3, 1.0])
        affine[:3, 3] = stored["origin_mm"]
        parcel = stored["parcel"]
        regions, locations = stored["regions"].tolist(), stored["locations"].tolist()
        names = tuple(zip(regions, locations, strict=True))
        shape = (parcel.shape[0], parcel.shape[1], parcel.shape[2])
        return Atlas(Geometry(shape, affine), stored["t1"], stored["brain"], parcel, names)
