"""Radial symmetry in three dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.candidates.frst3d import Parameters, propose, respond
from pipeline.geometry import Acquisition
from tests.pipeline import phantom

PARAMETERS = Parameters()


def _ball(spacing: tuple[float, float, float], centre_mm: tuple[float, float, float], radius: float) -> np.ndarray:
    shape = tuple(round(30 / step) for step in spacing[::-1])
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing[::-1], strict=True)), indexing="ij")
    far = np.sqrt((x - centre_mm[0]) ** 2 + (y - centre_mm[1]) ** 2 + (z - centre_mm[2]) ** 2)
    return (1 - 0.8 * np.clip(radius - far + 0.5, 0, 1)).astype(np.float32)


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 1.0), (0.8, 0.8, 2.0), (1.0, 1.0, 3.0)])
@pytest.mark.parametrize("radius", [1.5, 2.5])
def test_the_middle_of_a_ball_responds_most_whatever_the_voxel(
    spacing: tuple[float, float, float], radius: float
) -> None:
    centre = (15.0, 14.0, 15.0)
    image = _ball(spacing, centre, radius)
    response = respond(image, spacing, np.ones(image.shape, bool), PARAMETERS)
    k, j, i = np.unravel_index(int(response.argmax()), response.shape)
    assert np.abs(np.array([i, j, k]) * spacing - centre).max() <= max(1.0, spacing[2] / 2 + 0.01)


def test_a_ball_responds_more_than_a_tube_of_its_width() -> None:
    spacing = (0.5, 0.5, 1.0)
    ball = _ball(spacing, (15.0, 15.0, 15.0), 1.5)
    tube = np.broadcast_to(ball.min(axis=0), ball.shape).astype(np.float32)
    everywhere = np.ones(ball.shape, bool)
    inner = np.s_[10:20]
    assert (
        respond(ball, spacing, everywhere, PARAMETERS)[inner].max()
        > 1.3 * respond(tube, spacing, everywhere, PARAMETERS)[inner].max()
    )


def test_what_is_bright_does_not_respond() -> None:
    spacing = (0.8, 0.8, 2.0)
    bright = 2 - _ball(spacing, (15.0, 15.0, 15.0), 2.0)
    dark = _ball(spacing, (15.0, 15.0, 15.0), 2.0)
    everywhere = np.ones(bright.shape, bool)
    middle = tuple(n // 2 for n in bright.shape)
    assert (
        respond(bright, spacing, everywhere, PARAMETERS)[middle]
        < 0.1 * respond(dark, spacing, everywhere, PARAMETERS)[middle]
    )


def test_the_bleeds_of_a_head_are_among_the_strongest() -> None:
    _, brain = phantom.head()
    candidates = propose(phantom.acquisition(), brain, PARAMETERS)
    assert [c.score for c in candidates] == sorted((c.score for c in candidates), reverse=True)
    first = np.array([c.ijk for c in candidates[:10]])
    for bleed in phantom.BLEEDS:
        assert np.linalg.norm((first - phantom.to_ijk(bleed)) * phantom.SPACING, axis=1).min() < 2


def test_grey_values_in_another_unit_give_the_same_candidates() -> None:
    image, brain = phantom.head()
    one = propose(Acquisition(phantom.volume(image)), brain, PARAMETERS)
    other = propose(Acquisition(phantom.volume(np.asarray(image * 4, np.float32))), brain, PARAMETERS)
    assert [c.ijk for c in one[:50]] == [c.ijk for c in other[:50]]


def test_no_brain_no_candidate() -> None:
    assert propose(phantom.acquisition(), np.zeros(phantom.SHAPE, bool), PARAMETERS) == []


def test_no_more_candidates_than_asked_for_and_all_in_the_brain() -> None:
    _, brain = phantom.head()
    candidates = propose(phantom.acquisition(), brain, Parameters(max_candidates=25))
    assert len(candidates) == 25
    for i, j, k in (c.ijk for c in candidates):
        assert brain[round(k), round(j), round(i)]
