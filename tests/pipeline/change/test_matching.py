"""Bleeds are paired one to one, the nearest together, and never farther apart than the limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.change.aria_h import aria_h, flags
from pipeline.change.matching import match, near
from pipeline.parameters import ChangeParameters

coordinates = st.floats(-80, 80)
places = st.lists(st.tuples(coordinates, coordinates, coordinates), max_size=9).map(
    lambda points: np.array(points, float).reshape(-1, 3)
)


@given(places, places, st.floats(0.5, 40))
def test_pairs_are_one_to_one_and_near(present: np.ndarray, prior: np.ndarray, limit_mm: float) -> None:
    pairs = match(present, prior, limit_mm)
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    assert all(np.linalg.norm(present[a] - prior[b]) < limit_mm for a, b in pairs)
    # Nothing that lies within the limit of a bleed is left over on both sides.
    alone = [n for n in range(len(present)) if n not in {a for a, _ in pairs}]
    lost = [n for n in range(len(prior)) if n not in {b for _, b in pairs}]
    assert not near(present[alone], prior[lost], limit_mm * 0.999).any()


@given(places, st.floats(0, 0.4), st.integers(0, 2**32 - 1))
def test_bleeds_that_moved_less_than_they_lie_apart_keep_their_partners(
    prior: np.ndarray, share: float, seed: int
) -> None:
    apart = min((np.linalg.norm(a - b) for n, a in enumerate(prior) for b in prior[:n]), default=10.0)
    rng = np.random.default_rng(seed)
    step = rng.normal(size=prior.shape)
    step *= share * min(apart, 10.0) / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9)
    order = rng.permutation(len(prior))
    pairs = match((prior + step)[order], prior, 5.0)
    if apart > 0.1:
        assert sorted((int(order[a]), b) for a, b in pairs) == [(n, n) for n in range(len(prior))]


def test_a_near_pair_is_not_broken_up_to_give_a_third_a_partner() -> None:
    prior, present = np.array([[0.0, 0, 0], [6, 0, 0]]), np.array([[4.0, 0, 0], [11, 0, 0]])
    assert match(present, prior, 5.0) == [(0, 1)]


@pytest.mark.parametrize(
    ("new", "grade"), [(0, "none"), (1, "mild"), (4, "mild"), (5, "moderate"), (9, "moderate"), (10, "severe")]
)
def test_aria_h_has_the_usual_grades(new: int, grade: str) -> None:
    assert aria_h(new, ChangeParameters()) == grade


def test_grades_and_flags_follow_the_settings() -> None:
    parameters = ChangeParameters(mild=2, moderate=3, severe=4, more_than=(9, 4, 4))
    assert [aria_h(n, parameters) for n in range(1, 5)] == ["none", "mild", "moderate", "severe"]
    assert flags(4, parameters) == ()
    assert flags(5, parameters) == ("more than 4 microbleeds",)
    assert flags(10, parameters) == ("more than 4 microbleeds", "more than 9 microbleeds")


@pytest.mark.parametrize("wrong", [{"mild": 5}, {"severe": 5}, {"more_than": (-1,)}, {"match_mm": 0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must rise|0 or more|greater than 0"):
        ChangeParameters(**wrong)
