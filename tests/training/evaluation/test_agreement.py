"""Burden classes and calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from training.evaluation.bootstrap import Resamples
from training.evaluation.burden import burden, burden_class, weighted_kappa
from training.evaluation.calibration import calibration
from training.evaluation.cases import CaseTruth, ReportedMark, TruthObject
from training.evaluation.outcomes import JudgedMark, MarkOutcome

from .strategies import mark_lists, pairs, result, results, truths

Pairs = list[tuple[CaseTruth, tuple[ReportedMark, ...]]]


def test_burden_classes_are_none_one_to_four_five_to_nine_and_more() -> None:
    assert [burden_class(n) for n in (0, 1, 4, 5, 9, 10, 99)] == [0, 1, 1, 2, 2, 3, 3]


def test_kappa_is_that_of_a_worked_example() -> None:
    true, said = np.array([0, 1, 2, 3, 1, 1]), np.array([0, 1, 2, 3, 1, 2])
    # One study of six is off by one class; chance gives the mean square over all pairs of margins (Cohen 1968).
    squares = (true[:, None] - said[None, :]) ** 2
    assert weighted_kappa(true, said, np.ones(6)) == pytest.approx(1 - (1 / 6) / squares.mean())
    assert np.isnan(weighted_kappa(np.zeros(3, int), np.zeros(3, int), np.ones(3)))


@given(pairs)
def test_every_study_has_one_cell_of_the_burden_table(many: Pairs) -> None:
    judged = results(many)
    found = burden(judged, Resamples([r.case.subject for r in judged], 0))
    assert sum(map(sum, found.table)) == len(judged)
    assert found.same.value == pytest.approx(sum(found.table[n][n] for n in range(4)) / len(judged))


def test_what_is_found_exactly_is_in_full_agreement() -> None:
    rows = []
    for n, count in enumerate((0, 3, 7, 12)):
        truth = CaseTruth(tuple(TruthObject((20.0 * b, 0.0, 0.0)) for b in range(count)))
        rows.append(result(truth, tuple(ReportedMark(b.centre_lps_mm, 0.9) for b in truth.bleeds), name=str(n)))
    assert burden(rows, Resamples([r.case.subject for r in rows], 0)).kappa.value == pytest.approx(1)


def _judged(probabilities: list[float], bleeds: list[bool]) -> list[JudgedMark]:
    return [
        JudgedMark(ReportedMark((0, 0, 0), p), MarkOutcome.HIT if b else MarkOutcome.FALSE)
        for p, b in zip(probabilities, bleeds, strict=True)
    ]


def test_probabilities_that_come_true_are_calibrated() -> None:
    assert calibration(_judged([0.25] * 4 + [1.0], [True, False, False, False, True])).error == pytest.approx(0)
    wrong = calibration(_judged([0.9, 0.9], [False, False]))
    assert wrong.error == pytest.approx(0.9)
    assert wrong.brier == pytest.approx(0.81)


def test_no_mark_no_calibration() -> None:
    assert calibration([]).error is None


@given(mark_lists, truths)
def test_calibration_counts_every_mark_but_those_on_what_cannot_be_seen(
    marks: tuple[ReportedMark, ...], truth: CaseTruth
) -> None:
    judged = result(truth, marks).candidates
    found = calibration(judged)
    assert (
        found.marks == sum(j.verdict is not MarkOutcome.NOT_COUNTED for j in judged) == sum(b.count for b in found.bins)
    )
    if found.error is not None:
        assert 0 <= found.error <= 1
    for one in found.bins:
        assert 0 <= one.bleeds <= 1
