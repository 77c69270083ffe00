"""Which mark is which bleed."""

from __future__ import annotations

from math import dist

from hypothesis import given
from hypothesis import strategies as st

from tests.training.evaluation.strategies import mark_lists, truths
from training.evaluation.cases import Mark, Thing, Truth
from training.evaluation.matching import DUPLICATE, NOTHING, WITHIN_MM, Verdict, judge

HERE, NEAR, FAR = (0.0, 0.0, 0.0), (4.0, 0.0, 0.0), (50.0, 0.0, 0.0)


def _verdicts(marks: tuple[Mark, ...], truth: Truth) -> list[str]:
    return [j.verdict.value for j in judge(marks, truth)]


def test_a_mark_within_five_millimetres_finds_the_bleed_and_one_beyond_does_not() -> None:
    truth = Truth((Thing(HERE),))
    assert _verdicts((Mark((5.0, 0.0, 0.0), 0.9),), truth) == ["hit"]
    assert _verdicts((Mark((5.01, 0.0, 0.0), 0.9),), truth) == ["false"]


def test_the_second_mark_of_a_bleed_is_a_false_one() -> None:
    first, second = judge((Mark(NEAR, 0.4), Mark(HERE, 0.3)), Truth((Thing(HERE),)))
    assert (first.verdict, first.mark.probability) == (Verdict.HIT, 0.4)
    assert (second.verdict, second.lies_on) == (Verdict.FALSE, DUPLICATE)


def test_the_more_probable_mark_chooses_first() -> None:
    truth = Truth((Thing(HERE), Thing((8.0, 0.0, 0.0))))
    marks = (Mark((0.0, 0.0, 0.0), 0.2), Mark((3.0, 0.0, 0.0), 0.9))
    assert [(j.mark.probability, j.bleed, j.lies_on) for j in judge(marks, truth)] == [
        (0.9, 0, ""),
        (0.2, None, DUPLICATE),
    ]


def test_a_bleed_that_cannot_be_seen_is_neither_found_nor_false() -> None:
    assert _verdicts((Mark(HERE, 0.9),), Truth((Thing(HERE, visible=False),))) == ["not counted"]


def test_a_visible_bleed_goes_before_a_nearer_one_that_cannot_be_seen() -> None:
    truth = Truth((Thing(HERE, visible=False), Thing(NEAR)))
    assert [j.bleed for j in judge((Mark((1.0, 0.0, 0.0), 0.9),), truth)] == [1]


def test_a_false_mark_is_told_by_what_it_lies_on() -> None:
    mimics = (Thing(HERE, "calcification"), Thing(FAR, "null"), Thing((0.0, 90.0, 0.0), "iron", visible=False))
    marks = (Mark(NEAR, 0.9), Mark(FAR, 0.8), Mark((0.0, 90.0, 0.0), 0.7))
    assert [j.lies_on for j in judge(marks, Truth((), mimics))] == ["calcification", NOTHING, NOTHING]


def test_a_vein_seen_end_on_is_told_only_when_it_is_close_and_nothing_else_is() -> None:
    veins = (Thing(HERE, "end-on vein"), Thing(FAR, "end-on vein"))
    truth = Truth((), (Thing(FAR, "iron"),), veins=veins)
    marks = (Mark((2.4, 0.0, 0.0), 0.9), Mark((2.6, 0.0, 0.0), 0.8), Mark(FAR, 0.7))
    assert [j.lies_on for j in judge(marks, truth)] == ["end-on vein", NOTHING, "iron"]


@given(mark_lists, truths)
def test_every_mark_is_judged_once_and_every_bleed_found_at_most_once(marks: tuple[Mark, ...], truth: Truth) -> None:
    judged = judge(marks, truth)
    assert sorted(j.mark.probability for j in judged) == sorted(m.probability for m in marks)
    taken = [j.bleed for j in judged if j.bleed is not None]
    assert len(taken) == len(set(taken))
    for j in judged:
        assert (j.bleed is None) == (j.verdict is Verdict.FALSE)
        assert bool(j.lies_on) == (j.verdict is Verdict.FALSE)
        if j.bleed is not None:
            assert dist(truth.bleeds[j.bleed].centre_lps_mm, j.mark.centre_lps_mm) <= WITHIN_MM
            assert truth.bleeds[j.bleed].visible == (j.verdict is Verdict.HIT)


@given(mark_lists, truths, st.floats(0, 1))
def test_a_threshold_leaves_what_is_judged_above_it_as_it_was(
    marks: tuple[Mark, ...], truth: Truth, threshold: float
) -> None:
    kept = tuple(m for m in marks if m.probability >= threshold)
    assert judge(kept, truth) == judge(marks, truth)[: len(kept)]


@given(mark_lists, truths, st.randoms(use_true_random=False))
def test_the_order_of_the_marks_does_not_matter(marks: tuple[Mark, ...], truth: Truth, random: object) -> None:
    shuffled = list(marks)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert judge(shuffled, truth) == judge(marks, truth)


@given(truths)
def test_a_mark_on_every_bleed_leaves_no_visible_one_free_unless_it_shares_its_place(truth: Truth) -> None:
    marks = tuple(Mark(bleed.centre_lps_mm, 1 - n / 10) for n, bleed in enumerate(truth.bleeds))
    assert not [j for j in judge(marks, truth) if j.verdict is Verdict.FALSE and j.lies_on != DUPLICATE]
