"""What the lesions come to is what they are, added up."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.findings import (
    Certainty,
    ChangeOverTime,
    Findings,
    Lesion,
    Placement,
    RejectedLesion,
    SeriesUsed,
    Verification,
)
from pipeline.findings.summary import REGIONS, SIDES, FindingsSummary, burden, summarise

PLACES = [("lobar", "frontal"), ("lobar", "insula"), ("deep", "thalamus"), ("infratentorial", "cerebellum")]


def lesion(region: str | None, location: str | None = None, side: str | None = None, sure: bool = True) -> Lesion:
    certainty = Certainty.DEFINITE if sure else Certainty.POSSIBLE
    return Lesion(1, "1.2", (0, 0, 0), (0, 0, 0), "1.3", 3, 9, 0.9, certainty, region, location, side)


def summary_of(*lesions: Lesion) -> FindingsSummary:
    return summarise(lesions, None, None)


placed = st.builds(
    lambda place, side, sure: lesion(*place, side, sure), st.sampled_from(PLACES), st.sampled_from(SIDES), st.booleans()
)


@given(st.lists(placed, max_size=30))
def test_every_bleed_is_counted_once_in_each_table(lesions: list[Lesion]) -> None:
    summary = summary_of(*lesions)
    for rows in (summary.regions, summary.by_region_and_side):
        assert sum(row.definite for row in rows) == sum(x.certainty is Certainty.DEFINITE for x in lesions)
        assert sum(row.total for row in rows) == len(lesions)
        assert len({row.place for row in rows}) == len(rows)
        order = [(REGIONS.index(str(row.place.region)), SIDES.index(str(row.place.side))) for row in rows]
        assert order == sorted(order)


@pytest.mark.parametrize(
    ("regions", "pattern"),
    [
        ([], "none"),
        (["lobar", "lobar"], "strictly lobar"),
        (["deep"], "strictly deep"),
        (["infratentorial", "deep"], "strictly deep"),
        (["lobar", "infratentorial"], "mixed"),
        (["lobar", "deep"], "mixed"),
        (["lobar", None], None),
    ],
)
def test_the_pattern_follows_from_the_regions(regions: list[str | None], pattern: str | None) -> None:
    assert summary_of(*(lesion(region) for region in regions)).pattern == pattern


def test_possible_bleeds_are_told_apart_from_definite_ones() -> None:
    summary = summary_of(*[lesion("lobar", "frontal", "left")] * 4, lesion("deep", "thalamus", "right", sure=False))
    assert (summary.pattern, summary.burden) == ("mixed", "5-9")
    assert (summary.definite_pattern, summary.definite_burden) == ("strictly lobar", "1-4")


@pytest.mark.parametrize(
    ("count", "name"), [(0, "0"), (1, "1-4"), (4, "1-4"), (5, "5-9"), (9, "5-9"), (10, ">=10"), (200, ">=10")]
)
def test_the_burden_is_a_class_of_the_count(count: int, name: str) -> None:
    assert burden(count) == name


def test_what_was_not_assessed_is_named() -> None:
    change = ChangeOverTime("1.2", "20250101", None, assessed=True)
    always = ("superficial siderosis", "macrobleeds")
    assert summarise([lesion("lobar")], Placement(True), change).not_assessed == always
    unplaced = summarise([lesion(None)], Placement(False, "no fit"), replace(change, assessed=False))
    assert unplaced.not_assessed == (*always, "location of the microbleeds", "change over time")


def findings(**more: Any) -> Findings:
    return Findings("frst", {}, "1", "1.2", SeriesUsed("1.3"), (lesion("lobar", "frontal", "left"),), (), **more)


def test_the_document_holds_summary_verification_and_rejected_bleeds_as_plain_json() -> None:
    rejected = RejectedLesion(4, "1.9", (1, 2, 3), 2.5, 0.4, Certainty.POSSIBLE)
    verification = Verification("Roe^Jane", "Clinic", datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "fine")
    document = json.loads(json.dumps(findings(verification=verification, rejected=(rejected,)).to_json()))
    assert document["summary"] == {
        "pattern": "strictly lobar",
        "burden": "1-4",
        "definite_only": {"pattern": "strictly lobar", "burden": "1-4"},
        "regions": [{"region": "lobar", "location": "frontal", "side": "left", "definite": 1, "possible": 0}],
        "not_assessed": ["superficial siderosis", "macrobleeds", "change over time"],
    }
    assert document["verification"]["at"] == "2026-01-02T03:04:00+00:00"
    assert [bleed["id"] for bleed in document["rejected"]] == [4]


def test_a_verification_needs_a_name_and_a_time_zone() -> None:
    with pytest.raises(ValueError, match="observer"):
        Verification(" ", "Clinic", datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="time zone"):
        Verification("Roe", "Clinic", datetime(2026, 1, 1))
