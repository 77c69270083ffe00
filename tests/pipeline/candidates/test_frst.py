"""Fast radial symmetry: it answers to small dark discs, of the radii asked for, and to nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.candidates import frst
from pipeline.geometry import Acquisition
from tests.pipeline import phantom

SPACING = (0.5, 0.5, 2.0)
SHAPE = (5, 64, 64)


def _disc(row: float, column: float, radius_mm: float, value: float = 0.2) -> NDArray[np.float32]:
    """A grey field with a disc in its third slice."""
    image = np.ones(SHAPE, np.float32)
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    near = np.hypot(rows - row, columns - column) * SPACING[0]
    image[2] += (value - 1) * np.clip(radius_mm - near + 0.5, 0, 1)
    return image


def _propose(image: NDArray[np.float32], **settings: float) -> list[tuple[tuple[float, float, float], float]]:
    brain = np.ones(image.shape, bool)
    parameters = frst.Parameters(keep_percentile=0, **settings)
    found = frst.propose(Acquisition(phantom.volume(image, SPACING)), brain, parameters)
    return [(c.ijk, c.score) for c in found]


@settings(max_examples=25)
@given(
    row=st.floats(16, 47), column=st.floats(16, 47), radius=st.floats(1.0, 3.0), unit=st.sampled_from([1e-3, 1.0, 1e3])
)
def test_the_centre_of_a_dark_disc_is_found_wherever_it_is_and_in_any_unit(
    row: float, column: float, radius: float, unit: float
) -> None:
    (i, j, k), _ = _propose(_disc(row, column, radius) * np.float32(unit))[0]
    assert np.hypot(i - column, j - row) < 1.0
    assert round(k) == 2


def test_a_bright_disc_draws_no_candidate_at_its_centre() -> None:
    for (i, j, _), score in _propose(_disc(32, 32, 2.0, value=2.0)):
        assert np.hypot(i - 32, j - 32) > 2 or score < 0.1


def test_a_disc_is_preferred_to_an_edge_and_to_a_line() -> None:
    image = _disc(20, 20, 1.5)
    image[:, 40:] = 0.2
    image[2, :36, 50:52] = 0.2
    found = _propose(image)
    assert np.hypot(found[0][0][0] - 20, found[0][0][1] - 20) < 1
    assert found[0][1] > 2 * max(score for (i, j, _), score in found if np.hypot(i - 20, j - 20) > 4)


def test_weak_gradients_still_vote() -> None:
    """Gradients are not truncated to integers: a disc of one grey level in a hundred is found."""
    (i, j, _), _ = _propose(_disc(30, 34, 2.0, value=0.99))[0]
    assert np.hypot(i - 34, j - 30) < 1


def test_a_radius_of_one_voxel_uses_its_own_norm() -> None:
    image = _disc(32, 32, 1.0)
    brain = np.ones(image.shape, bool)
    one, same = (
        frst.respond(image, (1.0, 1.0, 2.0), brain, frst.Parameters(radii_mm=(1.0,), k_one=k)) for k in (9.9, 4.0)
    )
    other = frst.respond(image, (0.5, 0.5, 2.0), brain, frst.Parameters(radii_mm=(1.0,), k_one=4.0))
    again = frst.respond(image, (0.5, 0.5, 2.0), brain, frst.Parameters(radii_mm=(1.0,), k_one=9.9))
    assert same.max() > one.max()
    assert np.array_equal(other, again)


def test_the_edge_of_the_brain_is_no_candidate() -> None:
    image, brain = phantom.head(())
    found = frst.respond(image, phantom.SPACING, brain, frst.Parameters())
    with_bleeds = frst.respond(phantom.head()[0], phantom.SPACING, brain, frst.Parameters())
    assert (found[~brain] == 0).all()
    assert with_bleeds.max() > 4 * found.max()


def test_every_bleed_of_the_head_is_among_the_strongest() -> None:
    _, brain = phantom.head()
    found = frst.propose(phantom.acquisition(), brain, frst.Parameters())
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    for bleed in phantom.BLEEDS:
        nearest = min(found[:8], key=lambda c: float(np.linalg.norm(np.subtract(c.ijk, phantom.to_ijk(bleed)))))
        assert np.linalg.norm(np.subtract(nearest.ijk, phantom.to_ijk(bleed))) < 1.5


def test_the_number_of_candidates_is_bounded() -> None:
    _, brain = phantom.head()
    assert len(frst.propose(phantom.acquisition(), brain, frst.Parameters(max_candidates=3))) == 3


@pytest.mark.parametrize("brain", [np.zeros(SHAPE, bool), np.ones(SHAPE, bool)], ids=["no brain", "no structure"])
def test_where_there_is_nothing_there_are_no_candidates(brain: NDArray[np.bool_]) -> None:
    flat = Acquisition(phantom.volume(np.ones(SHAPE, np.float32), SPACING))
    assert frst.propose(flat, brain, frst.Parameters()) == []
