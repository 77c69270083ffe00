"""Which mark is which bleed."""

from __future__ import annotations

from math import dist

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.cases import CaseTruth, ReportedMark, TruthObject
from training.evaluation.froc import CountedCandidates, Froc
from training.evaluation.matching import MATCH_MM
from training.evaluation.outcomes import DUPLICATE, NOTHING, MarkOutcome, judge

from .strategies import mark_lists, truths

HERE, NEAR, FAR = (0.0, 0.0, 0.0), (4.0, 0.0, 0.0), (50.0, 0.0, 0.0)


def _verdicts(marks: tuple[ReportedMark, ...], truth: CaseTruth) -> list[str]:
    return [j.verdict.value for j in judge(marks, truth)]


def test_a_mark_within_five_millimetres_finds_the_bleed_and_one_beyond_does_not() -> None:
    truth = CaseTruth((TruthObject(HERE),))
    assert _verdicts((ReportedMark((5.0, 0.0, 0.0), 0.9),), truth) == ["hit"]
    assert _verdicts((ReportedMark((5.01, 0.0, 0.0), 0.9),), truth) == ["false"]


def test_the_second_mark_of_a_bleed_is_a_false_one() -> None:
    first, second = judge((ReportedMark(NEAR, 0.4), ReportedMark(HERE, 0.3)), CaseTruth((TruthObject(HERE),)))
    assert (first.verdict, first.mark.probability) == (MarkOutcome.HIT, 0.4)
    assert (second.verdict, second.lies_on) == (MarkOutcome.FALSE, DUPLICATE)


def test_the_more_probable_mark_chooses_first() -> None:
    truth = CaseTruth((TruthObject(HERE), TruthObject((8.0, 0.0, 0.0))))
    marks = (ReportedMark((0.0, 0.0, 0.0), 0.2), ReportedMark((3.0, 0.0, 0.0), 0.9))
    assert [(j.mark.probability, j.bleed, j.lies_on) for j in judge(marks, truth)] == [
        (0.9, 0, ""),
        (0.2, None, DUPLICATE),
    ]


def test_a_bleed_that_cannot_be_seen_is_neither_found_nor_false() -> None:
    assert _verdicts((ReportedMark(HERE, 0.9),), CaseTruth((TruthObject(HERE, visible=False),))) == ["not counted"]


def test_a_visible_bleed_goes_before_a_nearer_one_that_cannot_be_seen() -> None:
    truth = CaseTruth((TruthObject(HERE, visible=False), TruthObject(NEAR)))
    assert [j.bleed for j in judge((ReportedMark((1.0, 0.0, 0.0), 0.9),), truth)] == [1]


def test_a_false_mark_is_told_by_what_it_lies_on() -> None:
    mimics = (
        TruthObject(HERE, "calcification"),
        TruthObject(FAR, "null"),
        TruthObject((0.0, 90.0, 0.0), "iron", visible=False),
    )
    marks = (ReportedMark(NEAR, 0.9), ReportedMark(FAR, 0.8), ReportedMark((0.0, 90.0, 0.0), 0.7))
    assert [j.lies_on for j in judge(marks, CaseTruth((), mimics))] == ["calcification", NOTHING, NOTHING]


def test_a_vein_seen_end_on_is_told_only_when_it_is_close_and_nothing_else_is() -> None:
    veins = (TruthObject(HERE, "end-on vein"), TruthObject(FAR, "end-on vein"))
    truth = CaseTruth((), (TruthObject(FAR, "iron"),), veins=veins)
    marks = (ReportedMark((2.4, 0.0, 0.0), 0.9), ReportedMark((2.6, 0.0, 0.0), 0.8), ReportedMark(FAR, 0.7))
    assert [j.lies_on for j in judge(marks, truth)] == ["end-on vein", NOTHING, "iron"]


@given(mark_lists, truths)
def test_every_mark_is_judged_once_and_every_bleed_found_at_most_once(
    marks: tuple[ReportedMark, ...], truth: CaseTruth
) -> None:
    judged = judge(marks, truth)
    assert sorted(j.mark.probability for j in judged) == sorted(m.probability for m in marks)
    taken = [j.bleed for j in judged if j.bleed is not None]
    assert len(taken) == len(set(taken))
    for j in judged:
        assert (j.bleed is None) == (j.verdict is MarkOutcome.FALSE)
        assert bool(j.lies_on) == (j.verdict is MarkOutcome.FALSE)
        if j.bleed is not None:
            assert dist(truth.bleeds[j.bleed].centre_lps_mm, j.mark.centre_lps_mm) <= MATCH_MM
            assert truth.bleeds[j.bleed].visible == (j.verdict is MarkOutcome.HIT)


@given(mark_lists, truths, st.floats(0, 1))
def test_a_threshold_leaves_what_is_judged_above_it_as_it_was(
    marks: tuple[ReportedMark, ...], truth: CaseTruth, threshold: float
) -> None:
    kept = tuple(m for m in marks if m.probability >= threshold)
    assert judge(kept, truth) == judge(marks, truth)[: len(kept)]


@given(mark_lists, truths, st.randoms(use_true_random=False))
def test_the_order_of_the_marks_does_not_matter(
    marks: tuple[ReportedMark, ...], truth: CaseTruth, random: object
) -> None:
    shuffled = list(marks)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert judge(shuffled, truth) == judge(marks, truth)


@given(truths)
def test_a_mark_on_every_bleed_leaves_no_visible_one_free_unless_it_shares_its_place(truth: CaseTruth) -> None:
    marks = tuple(ReportedMark(bleed.centre_lps_mm, 1 - n / 10) for n, bleed in enumerate(truth.bleeds))
    assert not [j for j in judge(marks, truth) if j.verdict is MarkOutcome.FALSE and j.lies_on != DUPLICATE]


def test_among_scored_candidates_a_second_one_at_a_microbleed_does_not_count() -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [50, 0, 0], [90, 0, 0]])
    microbleeds, visible = np.array([[0.5, 0, 0], [200, 0, 0], [91.0, 0, 0]]), np.array([True, True, False])
    scored = CountedCandidates.of(points, np.array([0.6, 0.9, 0.8, 0.7]), microbleeds, visible)
    assert (scored.scores.tolist(), scored.hit.tolist(), scored.visible) == ([0.9, 0.8], [True, False], 2)
    curve = Froc([scored])
    assert curve.sensitivity_at((0.0, 1.0)).tolist() == [0.5, 0.5]
    assert (curve.threshold_at(0), curve.threshold_at(1)) == (0.9, 0.8)
