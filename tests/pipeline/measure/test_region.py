"""Lesion measurement: sizes are those of the object, and regions stay where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.candidates import Candidate
from pipeline.measure.region import MeasureParameters, Region, grow
from tests.pipeline import phantom

SHAPE = (15, 80, 80)
SPACING = (0.5, 0.5, 1.0)


def _sphere(x: float, y: float, z: float, radius: float, noise: float = 0.0) -> NDArray[np.float32]:
    """A blurred dark sphere in an even field; mm from the first voxel."""
    k, j, i = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    near = np.sqrt((i * SPACING[0] - x) ** 2 + (j * SPACING[1] - y) ** 2 + (k * SPACING[2] - z) ** 2)
    dark = 1 - 0.9 / (1 + np.exp((near - radius) / 0.15))
    return (300 * (dark + np.random.default_rng(5).normal(0, noise, SHAPE))).astype(np.float32)


def _grow(image: NDArray[np.float32], x: float, y: float, z: float, brain: NDArray[np.bool_] | None = None) -> Region:
    at = Candidate((x / SPACING[0], y / SPACING[1], z / SPACING[2]), 1.0)
    inside = np.ones(image.shape, bool) if brain is None else brain
    region = grow(at, phantom.volume(image, SPACING), inside, MeasureParameters())
    assert region is not None
    return region


@settings(max_examples=25)
@given(
    x=st.floats(10, 30),
    y=st.floats(10, 30),
    z=st.floats(6, 8),
    radius=st.floats(1.2, 3.5),
    noise=st.sampled_from([0, 0.05]),
)
def test_a_sphere_has_its_diameter_volume_and_centre(x: float, y: float, z: float, radius: float, noise: float) -> None:
    region = _grow(_sphere(x, y, z, radius, noise), x, y, z)
    assert region.diameter_mm == pytest.approx(2 * radius, abs=0.5)
    assert region.volume_mm3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.35)
    assert np.multiply(region.centroid_ijk, SPACING) == pytest.approx((x, y, z), abs=0.3)
    assert region.bounded


def test_the_voxels_are_those_of_the_volume() -> None:
    image = _sphere(20, 15, 7, 2.0)
    region = _grow(image, 20, 15, 7)
    assert (image[region.voxels] < 200).all()
    assert image[region.voxels].size == region.mask.sum() == (image < 300 * 0.55).sum()


def test_a_candidate_beside_the_darkest_voxel_still_finds_it() -> None:
    region = _grow(_sphere(20, 20, 7, 1.5), 20.9, 20, 7)
    assert np.multiply(region.centroid_ijk, SPACING) == pytest.approx((20, 20, 7), abs=0.3)


def test_a_vessel_is_cut_at_the_largest_size_and_marked() -> None:
    image = _sphere(20, 20, 7, 0.1)
    image[7, 38:42, :] = 30
    region = _grow(image, 20, 20, 7)
    assert not region.bounded
    assert np.ptp(region.voxels[2]) * SPACING[0] <= 10


def test_a_lesion_at_the_corner_of_the_volume_is_measured() -> None:
    region = _grow(_sphere(0, 0, 0, 3.0), 0, 0, 0)
    assert region.offset == (0, 0, 0)
    assert region.volume_mm3 == pytest.approx(4 / 3 * np.pi * 27 / 8, rel=0.5)


def test_nothing_grows_out_of_the_brain() -> None:
    brain = np.ones(SHAPE, bool)
    brain[:, :, 40:] = False
    region = _grow(_sphere(19.5, 20, 7, 2.0), 19, 20, 7, brain)
    assert brain[region.voxels].all()


def test_a_bleed_outside_the_brain_mask_is_measured_within_the_margin() -> None:
    image = _sphere(20, 20, 7, 2.0)
    brain = np.ones(SHAPE, bool)
    brain[:, :, 38:] = False  # at 19 mm
    at = Candidate((40, 40, 7), 1.0)
    strict = grow(at, phantom.volume(image, SPACING), brain, MeasureParameters())
    assert strict is None or strict.voxels[2].max() < 38
    region = grow(at, phantom.volume(image, SPACING), brain, MeasureParameters(margin_mm=3.0))
    assert region is not None
    assert region.diameter_mm == pytest.approx(4, abs=0.5)


def test_where_nothing_is_dark_or_outside_the_brain_there_is_no_region() -> None:
    flat = phantom.volume(np.full(SHAPE, 300, np.float32), SPACING)
    at = Candidate((40, 40, 7), 1.0)
    assert grow(at, flat, np.ones(SHAPE, bool), MeasureParameters()) is None
    assert grow(at, flat, np.zeros(SHAPE, bool), MeasureParameters()) is None
    empty = phantom.volume(np.zeros(SHAPE, np.float32), SPACING)
    assert grow(at, empty, np.ones(SHAPE, bool), MeasureParameters()) is None
