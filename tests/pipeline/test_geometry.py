"""Voxels and patient coordinates: there and back again."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.geometry import Geometry

angles = st.floats(min_value=-180, max_value=180)
lengths = st.floats(min_value=0.2, max_value=8)
coordinates = st.floats(min_value=-300, max_value=300)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    rotation = Rotation.from_euler("xyz", [draw(angles) for _ in range(3)], degrees=True).as_matrix()
    if draw(st.booleans()):
        rotation[:, 2] *= -1
    affine = np.eye(4)
    affine[:3, :3] = rotation * [draw(lengths) for _ in range(3)]
    affine[:3, 3] = [draw(coordinates) for _ in range(3)]
    shape = draw(st.tuples(st.integers(1, 200), st.integers(1, 600), st.integers(1, 600)))
    return Geometry(shape, affine, "1.2.3")


@given(geometries(), st.lists(st.tuples(coordinates, coordinates, coordinates), min_size=1, max_size=5))
def test_a_point_survives_the_round_trip(geometry: Geometry, points: list[Any]) -> None:
    np.testing.assert_allclose(geometry.to_lps(geometry.to_ijk(points)), points, atol=1e-6)
    np.testing.assert_allclose(geometry.to_ijk(geometry.to_lps(points)), points, atol=1e-6)


@given(geometries())
def test_spacing_direction_and_volume_describe_the_affine(geometry: Geometry) -> None:
    np.testing.assert_allclose(geometry.direction * geometry.spacing, geometry.affine[:3, :3], atol=1e-9)
    np.testing.assert_allclose(np.abs(np.linalg.det(geometry.direction)), 1, atol=1e-9)
    np.testing.assert_allclose(geometry.voxel_volume, np.prod(geometry.spacing), rtol=1e-9)
    np.testing.assert_allclose(geometry.to_lps([0, 0, 0]), geometry.affine[:3, 3])
    step = geometry.to_lps([1, 0, 0]) - geometry.to_lps([0, 0, 0])
    np.testing.assert_allclose(np.linalg.norm(step), geometry.spacing[0], rtol=1e-6)


@given(geometries(), st.floats(min_value=-0.5, max_value=0.5))
def test_a_grid_matches_another_only_within_the_tolerance(geometry: Geometry, shift: float) -> None:
    moved = geometry.affine.copy()
    moved[1, 3] += shift
    if abs(abs(shift) - 0.1) > 1e-6:
        assert geometry.matches(Geometry(geometry.shape, moved)) == (abs(shift) < 0.1)


def test_grids_of_different_shape_never_match() -> None:
    assert not Geometry((2, 3, 4), np.eye(4)).matches(Geometry((2, 3, 5), np.eye(4)))
