"""What of a source lies in each voxel of a head? Plane by plane, so that each place is looked up once for all sources.

Values are those of SimpleITK's resampling through a displacement field: trilinear interpolation truncated to whole
numbers, or the nearest voxel; zero outside the source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from pipeline.geometry import Geometry

UInt8 = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Source:
    """An array to be resampled.

    Parameters
    ----------
    array : ndarray of uint8, shape (k, j, i)
        Its values, on cubic voxels along LPS.
    spacing_mm : float
        Edge of a voxel.
    origin_mm : tuple of float
        LPS coordinates of voxel (0, 0, 0).
    nearest : bool
        Whether the values are labels, which are not interpolated.
    """

    array: UInt8
    spacing_mm: float
    origin_mm: tuple[float, float, float]
    nearest: bool = False


@dataclass(frozen=True, eq=False)
class Displacement:
    """How far each point of the patient moves, mm: `array` (k, j, i, 3) on a grid of `step_mm` from `origin_mm`.

    Points outside the grid do not move.
    """

    array: Floats
    step_mm: float
    origin_mm: Floats


@njit(parallel=True, cache=True)
def _places(places, k, matrix, origin, field, field_origin, step):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Where the voxels (j, i) of plane k lie in the sources."""
    nj, ni = places.shape[:2]
    fk, fj, fi = field.shape[:3]
    scale = 1.0 / step
    for j in prange(nj):
        for i in range(ni):
            x = matrix[0, 0] * i + matrix[0, 1] * j + matrix[0, 2] * k + origin[0]
            y = matrix[1, 0] * i + matrix[1, 1] * j + matrix[1, 2] * k + origin[1]
            z = matrix[2, 0] * i + matrix[2, 1] * j + matrix[2, 2] * k + origin[2]
            u, v, w = (x - field_origin[0]) * scale, (y - field_origin[1]) * scale, (z - field_origin[2]) * scale
            sx = sy = sz = 0.0
            if u >= -0.5 and v >= -0.5 and w >= -0.5 and u < fi - 0.5 and v < fj - 0.5 and w < fk - 0.5:
                a, b, c = math.floor(u), math.floor(v), math.floor(w)
                du, dv, dw = u - a, v - b, w - c
                for n in range(8):
                    p, q, r = n & 1, (n >> 1) & 1, n >> 2
                    weight = (du if p else 1.0 - du) * (dv if q else 1.0 - dv) * (dw if r else 1.0 - dw)
                    at = field[min(max(c + r, 0), fk - 1), min(max(b + q, 0), fj - 1), min(max(a + p, 0), fi - 1)]
                    sx += weight * at[0]
                    sy += weight * at[1]
                    sz += weight * at[2]
            places[j, i, 0], places[j, i, 1], places[j, i, 2] = x + sx, y + sy, z + sz


@njit(parallel=True, cache=True)
def _read(out, places, array, origin, spacing, nearest):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill plane `out` with the values of `array` at `places`."""
    nj, ni = out.shape
    mk, mj, mi = array.shape
    scale = 1.0 / spacing
    for j in prange(nj):
        for i in range(ni):
            x = (places[j, i, 0] - origin[0]) * scale
            y = (places[j, i, 1] - origin[1]) * scale
            z = (places[j, i, 2] - origin[2]) * scale
            if not (x >= -0.5 and y >= -0.5 and z >= -0.5 and x < mi - 0.5 and y < mj - 0.5 and z < mk - 0.5):
                out[j, i] = 0
            elif nearest:
                out[j, i] = array[math.floor(z + 0.5), math.floor(y + 0.5), math.floor(x + 0.5)]
            else:
                x, y, z = max(x, 0.0), max(y, 0.0), max(z, 0.0)
                a, b, c = int(x), int(y), int(z)
                dx, dy, dz = x - a, y - b, z - c
                p, q, r = min(a + 1, mi - 1), min(b + 1, mj - 1), min(c + 1, mk - 1)
                v00 = array[c, b, a] + (float(array[c, b, p]) - array[c, b, a]) * dx
                v01 = array[c, q, a] + (float(array[c, q, p]) - array[c, q, a]) * dx
                v10 = array[r, b, a] + (float(array[r, b, p]) - array[r, b, a]) * dx
                v11 = array[r, q, a] + (float(array[r, q, p]) - array[r, q, a]) * dx
                v0, v1 = v00 + (v01 - v00) * dy, v10 + (v11 - v10) * dy
                out[j, i] = np.uint8(v0 + (v1 - v0) * dz)


def resample(sources: Sequence[Source], grid: Geometry, displacement: Displacement) -> list[UInt8]:
    """Each source on `grid`, shape (k, j, i), looked up where `displacement` moves the voxels to."""
    out = [np.empty(grid.shape, dtype=np.uint8) for _ in sources]
    places = np.empty((*grid.shape[1:], 3))
    matrix, origin = grid.direction * np.array(grid.spacing), np.ascontiguousarray(grid.affine[:3, 3])
    for k in range(grid.shape[0]):
        _places(places, k, matrix, origin, displacement.array, displacement.origin_mm, displacement.step_mm)
        for source, made in zip(sources, out, strict=True):
            _read(made[k], places, source.array, np.array(source.origin_mm), source.spacing_mm, source.nearest)
    return out
