"""A picture shows the patient's right on the left and the head at the top, whichever way the images were acquired."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.geometry import Geometry
from pipeline.pictures.anatomy import AnatomicalAxes, AnatomicalPlane
from pipeline.pictures.crops import FIELD_MM, TILE, enlarge

UPRIGHT = [
    np.eye(3)[:, list(order)] * np.array(signs)
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
"""Every way in which the axes of a grid can lie along those of the patient."""
SEEN = {AnatomicalPlane.AXIAL: (0, 1, 1), AnatomicalPlane.CORONAL: (0, 2, -1), AnatomicalPlane.SAGITTAL: (1, 2, -1)}
"""Which of x, y, z (LPS) goes to the right and down, and whether down is the way it grows."""


def grid(direction: NDArray[np.float64], spacing: tuple[float, float, float], mm: float = 26.0) -> Geometry:
    """A cube of `mm` about the origin of the patient's coordinates."""
    counts = [2 * math.ceil(mm / 2 / s) + 1 for s in spacing]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(counts) - 1) / 2)
    return Geometry((counts[2], counts[1], counts[0]), affine)


def blob(geometry: Geometry, centre: NDArray[np.float64], sigma_mm: float = 1.5) -> NDArray[np.float32]:
    """A bright spot at a place in patient coordinates."""
    k, j, i = np.indices(geometry.shape)
    away = geometry.to_lps(np.stack([i, j, k], axis=-1)) - centre
    return np.exp(-(away**2).sum(axis=-1) / (2 * sigma_mm**2)).astype(np.float32)


def peak(tile: NDArray[np.float32]) -> tuple[float, float]:
    """Centre of mass of the spot, pixels from the middle: to the right, down."""
    weights = np.where(np.nan_to_num(tile) > 0.3 * np.nanmax(tile), tile, 0.0)
    rows, columns = np.indices(tile.shape)
    return (
        float((weights * columns).sum() / weights.sum() + 0.5 - TILE / 2),
        float((weights * rows).sum() / weights.sum() + 0.5 - TILE / 2),
    )


offsets = st.tuples(*[st.floats(-7, 7)] * 3)
spacings = st.tuples(st.floats(0.6, 1.1), st.floats(0.6, 1.1), st.floats(0.8, 2.5))


@settings(max_examples=30)
@example(number=0, spacing=(0.5, 0.5, 2.0), offset=(5.0, 0.0, 0.0))
@given(number=st.integers(0, len(UPRIGHT) - 1), spacing=spacings, offset=offsets)
def test_a_spot_is_seen_where_it_is_in_all_three_planes(
    number: int, spacing: tuple[float, float, float], offset: tuple[float, float, float]
) -> None:
    geometry = grid(UPRIGHT[number], spacing)
    standing, scale = AnatomicalAxes.of(geometry), TILE / FIELD_MM
    for plane, (across, down, sign) in SEEN.items():
        within = np.array([mm if axis in (across, down) else 0.0 for axis, mm in enumerate(offset)])
        section = standing.section(blob(geometry, within), plane, geometry.to_ijk([0.0, 0.0, 0.0]))
        x, y = peak(enlarge(section, TILE, FIELD_MM))
        assert x == pytest.approx(within[across] * scale, abs=0.25 * scale)
        assert y == pytest.approx(sign * within[down] * scale, abs=0.25 * scale)


@settings(max_examples=30)
@given(
    number=st.integers(0, len(UPRIGHT) - 1),
    tilt=st.tuples(*[st.floats(-25, 25)] * 3),
    place=st.tuples(*[st.floats(-6, 6)] * 3),
)
def test_a_tilted_acquisition_keeps_the_bleed_in_the_middle_and_right_is_right(
    number: int, tilt: tuple[float, float, float], place: tuple[float, float, float]
) -> None:
    turned = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix() @ UPRIGHT[number]
    geometry = grid(turned, (0.9, 0.9, 1.2), 36.0)
    standing = AnatomicalAxes.of(geometry)
    clear = abs(geometry.direction[[0, 1, 2], list(standing.axes)]).min() > math.cos(math.radians(44))
    bleed = blob(geometry, np.array(place))
    for plane, (across, _, _) in SEEN.items():
        centre = geometry.to_ijk(place)
        x, y = peak(enlarge(standing.section(bleed, plane, centre), TILE, FIELD_MM))
        assert abs(x) < 1.5
        assert abs(y) < 1.5
        beside = np.array(place)
        beside[across] += 5.0
        x, _ = peak(enlarge(standing.section(blob(geometry, beside, 3.0), plane, centre), TILE, FIELD_MM))
        assert x > 8 or not clear  # beyond 45° either name is as good


def test_a_projection_shows_the_darkest_of_the_slab_and_nothing_beyond_it() -> None:
    geometry = grid(np.eye(3), (1.0, 1.0, 2.0))
    standing, values = AnatomicalAxes.of(geometry), np.full(geometry.shape, 100, np.float32)
    i, j, k = (n // 2 for n in geometry.shape[::-1])
    values[k + 2, j, i + 3] = 1  # 4 mm above
    values[k - 3, j, i - 3] = 1  # 6 mm below
    flat = standing.section(values, AnatomicalPlane.AXIAL, (i, j, k), slab_mm=10.0).values
    assert flat[j, i + 3] == 1
    assert flat[j, i - 3] == 100


def test_beyond_the_image_there_is_nothing() -> None:
    geometry = grid(np.eye(3), (1.0, 1.0, 1.0), 10.0)
    section = AnatomicalAxes.of(geometry).section(
        np.ones(geometry.shape, np.float32), AnatomicalPlane.CORONAL, (0, 0, 0)
    )
    tile = enlarge(section, TILE, FIELD_MM)
    assert np.isnan(tile[TILE - 5, 5])
    assert tile[TILE // 2 - 5, TILE // 2 + 5] == 1
