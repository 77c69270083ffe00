"""A head's own midline is where its two halves mirror each other, however it bends."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from training.simulation.coarse_grid import SampledGrid
from training.simulation.midline import OwnMidline

SHAPE = (60, 60, 81)
ORIGIN = np.array([-40.0, -30.0, -30.0])


def mirrored(shift_mm: float, slope: float = 0.0) -> OwnMidline:
    """Blobs and their mirror images about ``x = shift_mm + slope * y``, voxels of 1 mm."""
    rng = np.random.default_rng(5)
    half = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.5)
    z, y, x = np.indices(SHAPE).astype(float)
    from_midline = np.abs(x + ORIGIN[0] - shift_mm - slope * (y + ORIGIN[1]))
    array = ndimage.map_coordinates(half, [z, y, from_midline], order=1).astype(np.float32)
    return OwnMidline(SampledGrid(array, ORIGIN, 1.0))


@settings(max_examples=25)
@given(shift=st.floats(-3, 3), y=st.floats(-8, 8), z=st.floats(-8, 8))
def test_a_shifted_midline_is_found(shift: float, y: float, z: float) -> None:
    (found,) = mirrored(shift)([(0.0, y, z)])
    assert abs(found - shift) < 0.25


def test_a_bent_midline_is_found_where_one_asks() -> None:
    front, back = mirrored(0.0, slope=0.1)([(5.0, -12.0, 0.0), (-5.0, 12.0, 0.0)])
    assert abs(front + 1.2) < 0.4
    assert abs(back - 1.2) < 0.4


def test_where_there_is_nothing_it_is_the_plane() -> None:
    assert OwnMidline(SampledGrid(np.zeros(SHAPE, np.float32), ORIGIN, 1.0))([(3.0, 0.0, 0.0)]) == 0
