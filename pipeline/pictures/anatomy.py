"""How is a grid oriented in the patient? Axial, coronal and sagittal planes of any acquisition, without resampling.

The axes of the grid are permuted and flipped to the nearest anatomical axes, so that every pixel is an acquired one
(an oblique acquisition keeps its tilt, as on a PACS).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.geometry import Geometry

Values = NDArray[np.float32]


class AnatomicalPlane(StrEnum):
    """The three anatomical planes."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"


class Edges(NamedTuple):
    """Letters at the edges of a picture: the patient's right, front, head and so on."""

    left: str
    right: str
    top: str
    bottom: str


EDGES = {
    AnatomicalPlane.AXIAL: Edges("R", "L", "A", "P"),
    AnatomicalPlane.CORONAL: Edges("R", "L", "H", "F"),
    AnatomicalPlane.SAGITTAL: Edges("A", "P", "H", "F"),
}
"""Radiological convention: the patient's right on the left; in a sagittal plane, the front on the left."""


@dataclass(frozen=True)
class Section:
    """One plane of a volume: values (rows, columns), pixel size in mm along (columns, rows), and a point on it.

    `column` and `row` are those of the point that it was cut through, fractional; integers are pixel centres.
    """

    values: Values
    spacing: tuple[float, float]
    column: float
    row: float


@dataclass(frozen=True)
class AnatomicalAxes:
    """A grid seen upright: axis 0 towards the head, 1 to the back, 2 to the left.

    Parameters
    ----------
    axes : tuple of int
        Axis ``i``, ``j`` or ``k`` (0 to 2) of the grid that runs along x, y and z of the patient (LPS).
    forward : tuple of bool
        Whether it runs the same way.
    geometry : Geometry
        The grid.
    """

    axes: tuple[int, int, int]
    forward: tuple[bool, bool, bool]
    geometry: Geometry

    @classmethod
    def of(cls, geometry: Geometry) -> AnatomicalAxes:
        """Find the nearest anatomical axes."""
        direction = geometry.direction
        i, j, k = max(permutations(range(3)), key=lambda p: sum(abs(direction[a, p[a]]) for a in range(3)))
        x, y, z = (bool(direction[a, axis] > 0) for a, axis in enumerate((i, j, k)))
        return cls((i, j, k), (x, y, z), geometry)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along x, y and z, mm."""
        x, y, z = (self.geometry.spacing[axis] for axis in self.axes)
        return x, y, z

    def view(self, array: Values) -> Values:
        """The values ``[k, j, i]`` of the grid as ``[z, y, x]``: head, back and left at the high ends; no copy."""
        upright = array.transpose(*(2 - self.axes[a] for a in (2, 1, 0)))
        steps = tuple(slice(None, None, 1 if self.forward[a] else -1) for a in (2, 1, 0))
        return upright[steps]

    def place(self, ijk: ArrayLike) -> tuple[float, float, float]:
        """Indices (x, y, z) into :meth:`view` of a place ``(i, j, k)`` on the grid, fractional."""
        given = np.asarray(ijk, dtype=np.float64)
        sizes = self.geometry.shape[::-1]
        x, y, z = (
            float(given[axis]) if self.forward[a] else sizes[axis] - 1 - float(given[axis])
            for a, axis in enumerate(self.axes)
        )
        return x, y, z

    def section(self, array: Values, plane: AnatomicalPlane, ijk: ArrayLike, slab_mm: float = 0.0) -> Section:
        """Cut a plane through a place.

        Parameters
        ----------
        array : ndarray of float32, shape (slices, rows, columns)
            Values on the grid.
        plane : AnatomicalPlane
            Which of the three.
        ijk : array_like of float, shape (3,)
            The place.
        slab_mm : float
            Thickness of a minimum intensity projection; 0: the one plane nearest to the place.
        """
        at = self.place(ijk)
        a = {AnatomicalPlane.SAGITTAL: 0, AnatomicalPlane.CORONAL: 1, AnatomicalPlane.AXIAL: 2}[plane]
        upright = self.view(array)
        through, size = round(at[a]), upright.shape[2 - a]
        reach = 0 if not slab_mm else max(1, round(slab_mm / 2 / self.spacing[a]))
        low, high = max(0, min(through - reach, size - 1)), min(size, max(through + reach, 0) + 1)
        flat = np.take(upright, range(low, high), axis=2 - a).min(axis=2 - a)
        across, down = [b for b in range(3) if b != a]
        row = at[down]
        if down == 2:  # the head is at the top of the picture
            flat, row = flat[::-1], flat.shape[0] - 1 - row
        return Section(flat, (self.spacing[across], self.spacing[down]), at[across], row)
