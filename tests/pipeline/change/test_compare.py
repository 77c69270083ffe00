"""A difference counts where both scans could have shown it; everything else is said and not counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.change import ChangeParameters, Pose, Prior, ReferenceImage, ScanParameters, compare
from pipeline.change.compare import GONE, THRESHOLDS, UNGRADED, judge
from pipeline.detect import Detection
from pipeline.findings import (
    Certainty,
    ChangeOverTime,
    Findings,
    Lesion,
    RejectedLesion,
    ScoredCandidate,
    SeriesUsed,
    Trend,
    Verification,
    read_findings,
)
from pipeline.geometry import Acquisition, Volume

from .heads import SWI, box, demo_reference, rigid

pytestmark = pytest.mark.slow

DEFAULT = ChangeParameters()
HERE = Pose(np.eye(4), 0.95, 0.1, 1.0)
Place = tuple[float, float, float]


def lesion(number: int, at: Place, probability: float = 0.9) -> Lesion:
    certainty = Certainty.DEFINITE if probability >= 0.6 else Certainty.POSSIBLE
    return Lesion(number, f"2.25.{number}", at, (0, 0, 0), "1", 4.0, 30.0, probability, certainty)


def found(*places: Place, probability: float = 0.9, first: int = 1, **more: Any) -> Findings:
    lesions = tuple(lesion(number, at, probability) for number, at in enumerate(places, start=first))
    given: dict[str, Any] = {
        "profile": "frst", "weights": {}, "software": "1", "study_instance_uid": "1.2", "series": SeriesUsed("1.3"),
        "candidates": tuple(ScoredCandidate(one.centroid_lps_mm, one.probability) for one in lesions),
    }  # fmt: skip
    return Findings(**{**given, "lesions": lesions, **more})


def compared(
    now: Findings, then: Findings, *, here: ReferenceImage | None = None, there: ReferenceImage | None = None,
    pose: Pose = HERE,
    parameters: ChangeParameters = DEFAULT,
) -> tuple[Findings, ChangeOverTime]:  # fmt: skip
    here, there = here or box(), there or box()
    empty = Volume(np.zeros((1, 1, 1), np.float32), here.geometry, ())
    prior = Prior(then, there, "1.2.3", "20240101", "1.2.3.4", "1.2.3.5")
    made = judge(Detection(now, np.zeros((1, 1, 1), np.uint16), Acquisition(empty)), prior, here, pose, parameters)
    assert made.findings.change is not None
    return made.findings, made.findings.change


A, B, C, D = (0.0, 0.0, 0.0), (20.0, 0.0, 0.0), (0.0, 25.0, 10.0), (-20.0, -10.0, 20.0)


def test_new_stable_and_no_longer_seen_bleeds_are_told_apart() -> None:
    now, change = compared(found(A, B, C), found((1.0, 1, 0), D, first=7))
    assert [one.trend for one in now.lesions] == [Trend.STABLE, Trend.NEW, Trend.NEW]
    assert [one.prior_tracking_uid for one in now.lesions] == ["2.25.7", None, None]
    assert (change.assessed, change.new, change.stable, change.aria_h) == (True, 2, 1, "mild")
    assert [(one.tracking_uid, one.centroid_lps_mm) for one in change.no_longer_seen] == [("2.25.8", D)]
    assert (change.prior_study_instance_uid, change.prior_sr_sop_instance_uid) == ("1.2.3", "1.2.3.4")
    assert change.prior_sr_series_instance_uid == "1.2.3.5"
    assert change.undecided == change.flags == ()
    assert set(change.caveats) == {THRESHOLDS, GONE}


def test_bleeds_are_matched_after_the_earlier_scan_was_laid_on_the_present_one() -> None:
    pose = Pose(rigid((10, 0, 0), (0, 5, -5)), 0.9, 0.2, 1.0)
    then = found(B, D)
    now, change = compared(found(*map(tuple, pose.to_present(np.array([D, B])).tolist())), then, pose=pose)
    assert (change.new, change.stable, change.no_longer_seen) == (0, 2, ())
    assert [one.prior_tracking_uid for one in now.lesions] == ["2.25.2", "2.25.1"]
    _, gone = compared(found(), then, pose=pose)
    at = np.array([one.centroid_lps_mm for one in gone.no_longer_seen])
    assert at == pytest.approx(pose.to_present(np.array([B, D])), abs=0.01)


def test_a_bleed_that_the_earlier_scan_does_not_show_is_not_counted_as_new() -> None:
    now, change = compared(found(A, (0.0, 0.0, -25.0)), found(), there=box(below_mm=-10))
    assert [one.trend for one in now.lesions] == [Trend.NEW, None]
    assert (change.new, change.undecided) == (1, (2,))
    said = "microbleed 2 is not counted as new: the images of the prior study do not show this location"
    assert said in change.caveats


def test_a_bleed_that_the_earlier_reading_had_below_its_threshold_is_not_counted_as_new() -> None:
    faint = ScoredCandidate((1.0, 0.0, 0.0), 0.15)
    then = found(candidates=(faint, ScoredCandidate(B, 0.01)))
    now, change = compared(found(A, B), then)
    assert [one.trend for one in now.lesions] == [None, Trend.NEW]  # 0.01 is nothing
    assert "microbleed 1 is not counted as new: the prior study has a candidate below the threshold there" in (
        change.caveats
    )


def test_what_a_reader_rejected_then_is_neither_an_earlier_bleed_nor_new_now() -> None:
    rejected = RejectedLesion(1, "2.25.99", A, 4.0, 0.9, Certainty.DEFINITE)
    now, change = compared(found(A), found(rejected=(rejected,)))
    assert now.lesions[0].trend is None
    assert (change.new, change.stable, change.undecided, change.aria_h) == (0, 0, (1,), "none")
    assert any("a reader rejected" in caveat for caveat in change.caveats)
    _, none = compared(found(), found(rejected=(rejected,)))
    assert none.no_longer_seen == ()


def test_an_earlier_bleed_that_cannot_be_judged_now_is_not_called_gone() -> None:
    rejected = RejectedLesion(3, "2.25.99", C, 4.0, 0.9, Certainty.DEFINITE)
    now = found(candidates=(ScoredCandidate((0.0, 1.0, 0.0), 0.12),), rejected=(rejected,))
    _, change = compared(now, found(A, (0.0, 0.0, -25.0), C, D), here=box(below_mm=-10))
    assert [one.tracking_uid for one in change.no_longer_seen] == ["2.25.4"]
    assert [one.tracking_uid for one in change.unclear] == ["2.25.1", "2.25.2", "2.25.3"]
    said = [caveat for caveat in change.caveats if "not counted as no longer seen" in caveat]
    assert len(said) == 3
    assert all(caveat.startswith("1 microbleed of the prior study is") for caveat in said)


def test_the_grade_says_what_it_rests_on() -> None:
    places = [(float(x), 0.0, float(z)) for x in (-30, -15, 0, 15, 30) for z in (0, 20)]
    some = found(*places[:4])
    faint = found(*places[4:6], probability=0.3, first=5)
    now = replace(some, lesions=(*some.lesions, *faint.lesions))
    _, change = compared(now, found())
    assert (change.aria_h, change.flags) == ("moderate", ("more than 4 microbleeds",))
    assert "ARIA-H would be mild by the definite microbleeds alone (4 new)" in change.caveats
    unseen = replace(some, lesions=(*some.lesions, lesion(5, (0.0, 0.0, -30.0))))
    _, change = compared(unseen, found(), there=box(below_mm=-10))
    assert change.aria_h == "mild"
    assert "ARIA-H would be moderate if the 1 undecided were new" in change.caveats


def test_swi_against_t2star_is_compared_with_a_caveat_and_not_graded() -> None:
    _, change = compared(found(A, B), found(B), there=box(scan=replace(SWI, sequence="t2star")))
    assert (change.new, change.stable, change.aria_h) == (1, 1, None)
    assert change.caveats[0] == UNGRADED
    assert change.caveats[1].startswith("SWI now, T2*-GRE then: SWI shows more microbleeds")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (ScanParameters("swi", (0.5, 0.5, 2.0), 40.0, 1.5, phase=True), "field strength 3 T now, 1.5 T then"),
        (ScanParameters("swi", (0.5, 0.5, 2.0), 30.0, 3.0, phase=True), "echo time 20 ms now, 30 ms then"),
        (ScanParameters("swi", (0.5, 0.5, 4.0), 20.0, 3.0, phase=True), "slices of 2.0 mm now, 4.0 mm then"),
        (ScanParameters("swi", (0.9, 0.9, 2.0), 20.0, 3.0, phase=True), "pixels of 0.50 mm now, 0.90 mm then"),
        (ScanParameters("swi", (0.5, 0.5, 2.0), 20.0, 3.0, phase=False), "phase images only in the present study"),
    ],
)
def test_scans_made_differently_are_compared_with_a_caveat(other: ScanParameters, said: str) -> None:
    _, change = compared(found(A), found(A), there=box(scan=other))
    assert [caveat for caveat in change.caveats if caveat.startswith(said)]
    _, alike = compared(found(A), found(A), there=box(scan=replace(SWI, echo_time_ms=None, field_strength_t=None)))
    assert alike.caveats == (THRESHOLDS,)


def test_results_read_differently_are_compared_with_a_caveat() -> None:
    from datetime import UTC, datetime

    verified = Verification("Reader", "Hospital", datetime(2026, 1, 1, tzinfo=UTC))
    for then, said in (
        (found(A, profile="heatmap"), "detected with profile frst now, heatmap then"),
        (found(A, weights={"w": "0" * 64}), "with profile frst, but with weights other than those of the prior"),
        (found(A, software="0"), "detected with software 1 now, 0 then"),
        (found(A, verification=verified), "only the prior result was verified by a reader"),
    ):
        _, change = compared(found(A), then)
        assert [caveat for caveat in change.caveats if said in caveat], said


def test_the_document_of_a_comparison_reads_back_as_it_was() -> None:
    now, _ = compared(found(A, B, (0.0, 0.0, -25.0)), found(A, D), there=box(below_mm=-10))
    assert read_findings(now.to_json()) == now


def test_without_a_reference_or_with_another_head_nothing_is_compared_and_the_reason_is_given() -> None:
    here = demo_reference()
    other = replace(here, image=here.image[::-1, ::-1].copy(), brain=here.brain[::-1, ::-1].copy())
    swi = Volume(np.zeros((1, 1, 1), np.float32), here.geometry, ())
    detection = Detection(found(A), np.zeros((1, 1, 1), np.uint16), Acquisition(swi))
    for reference in (None, other):
        change = compare(detection, Prior(found(B), reference, "1.2", "20240101"), DEFAULT, here).findings.change
        assert change is not None
        assert not change.assessed
        assert change.why
        assert (change.new, change.aria_h, change.no_longer_seen) == (0, None, ())
