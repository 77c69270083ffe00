"""The shape and size filter: a ball passes, a vessel along or across the slices does not."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.candidates import Candidate
from pipeline.measure.region import MeasureParameters, grow
from pipeline.measure.shape import (
    PHASE_LIMIT,
    RatingParameters,
    Shape,
    ShapeParameters,
    circularity,
    describe,
    passes,
    rate,
)
from tests.pipeline import phantom

SHAPE = (15, 64, 64)
SPACING = (0.5, 0.5, 1.0)
CENTRE = (16.0, 16.0, 7.0)
BLEED = Shape(0.8, 3.0, 4.0, 0.9, 8.0, 1.0, 0.1, 0.8, 0.5, 1.0, 0.3)


def _distance(way: tuple[float, float, float] | None = None, half_length: float = 0.0) -> NDArray[np.float64]:
    """Distance (mm) of every voxel from the centre, or from a line through it, as ``[slice, row, column]``."""
    k, j, i = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    point = np.stack([i * SPACING[0], j * SPACING[1], k * SPACING[2]], -1) - CENTRE
    if way is None:
        return np.asarray(np.linalg.norm(point, axis=-1))
    unit = np.array(way) / np.linalg.norm(way)
    along = np.clip(point @ unit, -half_length, half_length)
    return np.asarray(np.linalg.norm(point - along[..., None] * unit, axis=-1))


def _shape(distance: NDArray[np.float64], radius: float, phase: float | None = None) -> Shape:
    image = 300 * (1 - 0.9 / (1 + np.exp((distance - radius) / 0.15)))
    image = (image + np.random.default_rng(2).normal(0, 6, SHAPE)).astype(np.float32)
    at = Candidate((CENTRE[0] / SPACING[0], CENTRE[1] / SPACING[1], CENTRE[2] / SPACING[2]), 3.0)
    region = grow(at, phantom.volume(image, SPACING), np.ones(SHAPE, bool), MeasureParameters())
    assert region is not None
    angle = None if phase is None else phantom.volume(np.full(SHAPE, phase, np.float32), SPACING)
    return describe(region, 1.5, angle)


@settings(max_examples=15)
@given(radius=st.floats(1.0, 3.0))
def test_a_ball_passes(radius: float) -> None:
    shape = _shape(_distance(), radius)
    assert passes(shape, ShapeParameters())
    assert shape.response == pytest.approx(0.75)
    assert shape.circularity > 0.95
    assert shape.isolation > 0.75
    assert shape.compactness > 0.3


@pytest.mark.parametrize("way", [(1, 0, 0), (1, 1, 0), (0.3, 1, 0.1)])
def test_a_vessel_that_lies_in_the_slice_is_not_round(way: tuple[float, float, float]) -> None:
    shape = _shape(_distance(way, 20), 0.8)
    assert not passes(shape, ShapeParameters())
    assert shape.circularity < 0.73


def test_a_vessel_that_slants_through_the_slices_moves_from_slice_to_slice() -> None:
    shape = _shape(_distance((1.2, 0, 1), 20), 0.8)
    assert shape.shift > 0.5
    assert not passes(shape, ShapeParameters())


def test_a_vessel_that_crosses_the_slices_runs_through_too_many() -> None:
    shape = _shape(_distance((0, 0, 1), 20), 1.0)
    assert shape.extent_mm > 8
    assert shape.bounded == 0
    assert not passes(shape, ShapeParameters(extent_mm=8.0))
    assert passes(_shape(_distance(), 1.0), ShapeParameters(extent_mm=8.0))


def test_what_hangs_on_a_fainter_vessel_is_less_isolated_and_less_compact() -> None:
    alone = _shape(_distance(), 1.5)
    bead = _shape(np.minimum(_distance(), _distance((1, 0, 0), 20) + 1.6), 1.5)
    assert bead.isolation < alone.isolation
    assert bead.compactness < alone.compactness


def test_paramagnetic_and_diamagnetic_regions_differ_in_phase_only() -> None:
    blood, calcium, unknown = (_shape(_distance(), 1.5, phase) for phase in (1.0, -1.0, None))
    assert (blood.phase, calcium.phase) == pytest.approx((PHASE_LIMIT, -PHASE_LIMIT))
    assert replace(blood, phase=None) == replace(calcium, phase=None) == unknown


@pytest.mark.parametrize(
    "worse",
    [
        {"diameter_mm": 0.5},
        {"diameter_mm": 11.0},
        {"extent_mm": 20.0},
        {"contrast": 0.1},
        {"contrast_to_noise": 1.0},
        {"circularity": 0.5},
        {"shift": 0.9},
        {"isolation": 0.2},
        {"compactness": 0.01},
    ],
    ids=lambda worse: "-".join(worse),
)
def test_each_test_can_fail_on_its_own(worse: dict[str, float]) -> None:
    assert passes(BLEED, ShapeParameters())
    assert not passes(replace(BLEED, **worse), ShapeParameters())


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_square_is_round_enough_and_a_row_is_not(size: int) -> None:
    square, row = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    square[4 : 4 + size, 4 : 4 + size] = True
    row[4, 4 : 4 + 3 * size] = True
    assert circularity(square, (1.0, 1.0)) >= 0.8
    assert size == 1 or circularity(row, (1.0, 1.0)) < 0.73


@settings(max_examples=40)
@given(
    name=st.sampled_from([f.name for f in fields(Shape)]),
    weight=st.floats(0.1, 10),
    low=st.floats(0, 1),
    step=st.floats(0.01, 1),
)
def test_a_rating_is_between_0_and_1_and_rises_with_its_measure(
    name: str, weight: float, low: float, step: float
) -> None:
    parameters = RatingParameters(offset=-2.0, weights={name: weight})
    below, above = (rate(replace(BLEED, **{name: value}), parameters) for value in (low, low + step))
    assert 0 < below < above < 1


def test_a_study_without_phase_is_rated_between_blood_and_calcium() -> None:
    parameters = RatingParameters(offset=0.0, weights={"phase": 5.0}, phase_unknown=0.1)
    calcium, unknown, blood = (rate(replace(BLEED, phase=phase), parameters) for phase in (-0.3, None, 0.3))
    assert calcium < unknown < blood


def test_a_rating_by_an_unknown_measure_is_refused() -> None:
    with pytest.raises(ValidationError, match="unknown measure roundness"):
        RatingParameters(offset=0.0, weights={"roundness": 1.0})
