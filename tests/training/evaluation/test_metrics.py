"""Sensitivity, false positives, the FROC curve and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evaluation.bootstrap import Resamples
from training.evaluation.cases import CaseTruth, ReportedMark, TruthObject
from training.evaluation.groups import false_kinds, sensitivity_by, size_class, size_classes
from training.evaluation.metrics import DetectionCounts, StudyResult, froc_of
from training.evaluation.rules import by_rule

from .strategies import case, pairs, result, results

pytestmark = pytest.mark.slow

Pairs = list[tuple[CaseTruth, tuple[ReportedMark, ...]]]


def _at(x: float) -> tuple[float, float, float]:
    return (x, 0.0, 0.0)


def _line(bleeds: int, marks: list[tuple[float, float]], name: str = "one") -> StudyResult:
    """Bleeds at 0, 100, 200, … mm; marks as (place, probability)."""
    truth = CaseTruth(tuple(TruthObject(_at(100.0 * n)) for n in range(bleeds)))
    return result(truth, tuple(ReportedMark(_at(x), p) for x, p in marks), name=name)


def test_the_figures_of_a_counted_example() -> None:
    two = [_line(3, [(0, 0.9), (100, 0.6), (50, 0.7), (200, 0.4)], "a"), _line(1, [(50, 0.8)], "b")]
    figures = {name: metric(np.ones(2)) for name, metric in DetectionCounts.of(two).metrics().items()}
    assert figures == pytest.approx({"sensitivity": 2 / 4, "fp_per_study": 1.0, "precision": 0.5, "f1": 0.5})
    froc = froc_of(two)
    false, sensitivity, thresholds = froc.curve()
    assert false.tolist() == [0, 0, 0.5, 1, 1, 1]
    assert sensitivity.tolist() == [0, 0.25, 0.25, 0.25, 0.5, 0.75]
    assert thresholds.tolist() == [np.inf, 0.9, 0.8, 0.7, 0.6, 0.4]
    assert froc.sensitivity_at((0, 0.5, 0.99, 1, 8)).tolist() == [0.25, 0.25, 0.25, 0.75, 0.75]
    assert froc.threshold_at(1) == 0.4
    assert froc.threshold_at(0.6) == 0.8


def test_candidates_that_tie_come_in_together() -> None:
    false, sensitivity, _ = froc_of([_line(1, [(0, 0.5), (50, 0.5)])]).curve()
    assert list(zip(false, sensitivity, strict=True)) == [(0, 0), (1, 1)]


def test_a_refused_study_misses_its_bleeds_and_counts_as_a_study() -> None:
    both = [
        _line(1, [(0, 0.9), (50, 0.9)], "a"),
        StudyResult.of(case(CaseTruth((TruthObject(_at(0)),)), "b"), None, "no SWI"),
    ]
    metrics = DetectionCounts.of(both).metrics()
    assert metrics["sensitivity"](np.ones(2)) == 0.5
    assert metrics["fp_per_study"](np.ones(2)) == 0.5
    assert both[1].refused == "no SWI"


def test_without_bleeds_sensitivity_is_not_defined_and_false_positives_are() -> None:
    none = [_line(0, [(50, 0.9)])]
    assert np.isnan(DetectionCounts.of(none).metrics()["sensitivity"](np.ones(1)))
    assert np.isnan(froc_of(none).sensitivity_at((1,))).all()
    assert DetectionCounts.of(none).metrics()["fp_per_study"](np.ones(1)) == 1
    assert Resamples(["a"]).estimate(DetectionCounts.of(none).metrics()["sensitivity"]).value is None


def test_an_answer_without_a_candidate_has_a_curve_that_stays_at_the_start() -> None:
    false, sensitivity, thresholds = froc_of([_line(2, [])]).curve()
    assert (false.tolist(), sensitivity.tolist(), thresholds.tolist()) == ([0], [0], [np.inf])


@given(pairs)
def test_the_curve_rises_and_stays_within_its_limits(many: Pairs) -> None:
    judged = results(many)
    false, sensitivity, thresholds = froc_of(judged).curve()
    assert (np.diff(false) >= 0).all()
    assert (np.diff(thresholds) < 0).all()
    if any(r.case.truth.visible for r in judged):
        assert (np.diff(sensitivity) >= 0).all()
        assert 0 <= sensitivity[-1] <= 1


@given(pairs, st.floats(0, 1))
def test_a_point_of_the_curve_is_what_its_threshold_reports(many: Pairs, threshold: float) -> None:
    judged = results(many, threshold)
    metrics = DetectionCounts.of(judged).metrics()
    weights = np.ones(len(judged))
    false, sensitivity, thresholds = froc_of(judged).curve()
    at = int(np.sum(thresholds >= threshold)) - 1
    assert false[at] == pytest.approx(metrics["fp_per_study"](weights))
    assert sensitivity[at] == pytest.approx(metrics["sensitivity"](weights), nan_ok=True)


@given(pairs, st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_a_weight_is_the_same_as_having_the_study_that_often(many: Pairs, times: list[int]) -> None:
    judged = results(many)
    repeated = [r for r, n in zip(judged, times, strict=False) for _ in range(n)]
    if not repeated:
        return
    weights = np.array(times[: len(judged)], dtype=float)
    for name, metric in DetectionCounts.of(judged).metrics().items():
        again = DetectionCounts.of(repeated).metrics()[name](np.ones(len(repeated)))
        assert metric(weights) == pytest.approx(again, nan_ok=True)
    rates = (0.5, 1, 2, 8)
    expected = froc_of(repeated).sensitivity_at(rates)
    assert froc_of(judged).sensitivity_at(rates, weights) == pytest.approx(expected, nan_ok=True)


@settings(max_examples=20)
@given(pairs)
def test_an_interval_holds_its_figure_within_what_studies_allow(many: Pairs) -> None:
    judged = results(many)
    resamples = Resamples([r.case.subject for r in judged], 200)
    estimate = resamples.estimate(DetectionCounts.of(judged).metrics()["fp_per_study"])
    most = max(len(r.false) for r in judged)
    if len(judged) == 1:
        assert estimate.low is None
    else:
        assert estimate.low is not None
        assert estimate.high is not None
        assert 0 <= estimate.low <= estimate.high <= most


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(5, 2, 400)
    estimate = Resamples([str(n) for n in range(400)], 2000).estimate(lambda w: float(w @ values / w.sum()))
    half = 1.96 * values.std() / 20
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.04)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.04)


def test_all_studies_of_a_subject_are_drawn_together() -> None:
    weights = Resamples(["a", "b", "a", "c"], 50).weights
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert (Resamples(["a", "b", "a", "c"], 50).weights == weights).all()


def test_sizes_are_classed_by_apparent_diameter() -> None:
    assert [size_class(TruthObject(_at(0), diameter_mm=d)) for d in (1.99, 2.0, 4.9, 5.0)] == [
        "< 2 mm", "2–3 mm", "3–5 mm", "≥ 5 mm",
    ]  # fmt: skip
    assert size_classes() == ["< 2 mm", "2–3 mm", "3–5 mm", "≥ 5 mm"]
    assert size_class(TruthObject(_at(0))) == ""


@given(pairs)
def test_the_groups_of_bleeds_add_up_to_all_of_them(many: Pairs) -> None:
    judged = results(many)
    resamples = Resamples([r.case.subject for r in judged], 0)
    groups = sensitivity_by(judged, lambda bleed: bleed.region or "unknown", resamples)
    assert sum(g.bleeds for g in groups) == sum(len(r.case.truth.visible) for r in judged)
    assert sum(g.found for g in groups) == sum(r.hits for r in judged)
    kinds = false_kinds(judged, resamples)
    assert sum(k.count for k in kinds) == sum(len(r.false) for r in judged)


def test_stricter_rules_count_nearer_marks_and_larger_microbleeds() -> None:
    sizes = (1.0, 2.0, 4.0, None)
    truth = CaseTruth(tuple(TruthObject(_at(100.0 * n), diameter_mm=d) for n, d in enumerate(sizes)))
    marks = [(0.0, 0.9), (104.0, 0.8), (200.0, 0.7), (300.0, 0.6)]
    both = [result(truth, tuple(ReportedMark(_at(x), p) for x, p in marks), name=name) for name in ("a", "b")]
    rules = {rule.name: rule for rule in by_rule(both, Resamples(["a", "b"], 10))}
    figures = {name: (rule.bleeds, rule.sensitivity.value) for name, rule in rules.items()}
    assert figures == {
        "all visible, within 5 mm": (8, 1.0),
        "all visible, within 3 mm": (8, 0.25),  # the mark 4 mm off is false, in both studies
        "≥ 2 mm, within 5 mm": (4, 1.0),
        "≥ 2 mm, within 3 mm": (4, 0.0),
    }
    assert rules["all visible, within 5 mm"].sensitivity.low == 1.0, "the bootstrap is blind where all are found"
    assert rules["all visible, within 5 mm"].wilson == pytest.approx((0.676, 1.0), abs=0.001)


def test_without_a_microbleed_no_rule_has_a_figure() -> None:
    assert {(r.bleeds, r.sensitivity.value, r.wilson) for r in by_rule([_line(0, [(5, 0.9)])], Resamples(["a"]))} == {
        (0, None, None)
    }
