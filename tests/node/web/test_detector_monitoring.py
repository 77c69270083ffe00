"""A month that differs from those before is marked as a shift; chance alone is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from node.ledger import MonitoredStudy
from node.web.detector_monitoring import detector_months, shifted_scanners

JANUARY = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def study(day: float, total: int, scanner: str = "Siemens MR1", **values: Any) -> MonitoredStudy:
    given = {"snr": 20.0, "motion": 1.0, "outside_training": False, "verified": False, **values}
    return MonitoredStudy(JANUARY + timedelta(days=day), scanner, "default", total, total // 2, **given)


def months(counts: list[list[int]], **values: list[Any]) -> list[MonitoredStudy]:
    """Studies of consecutive months; `values` are given per month."""
    return [
        study(30.5 * n + 0.2 * k, total, **{name: given[n] for name, given in values.items()})
        for n, month in enumerate(counts)
        for k, total in enumerate(month)
    ]


def test_a_month_is_summarised_by_scanner_and_profile() -> None:
    read = {"verified": True, "rejected": 1, "added": 2}
    rows = detector_months([study(0, 0), study(1, 4, **read), study(2, 8, snr=None), study(3, 3, "GE MR2")], UTC)
    by_scanner = {row.scanner: row for row in rows}
    assert by_scanner.keys() == {"GE MR2", "Siemens MR1"}
    row = by_scanner["Siemens MR1"]
    assert (row.month, row.studies, row.findings, row.definite, row.per_study) == ("2026-01", 3, 12, 6, (2, 4, 6))
    assert (row.no_finding, row.snr, row.verified, row.accepted, row.rejected, row.added) == (1, 20.0, 1, 3, 1, 2)


def test_a_study_belongs_to_the_month_of_the_nodes_own_clock() -> None:

    late = MonitoredStudy(
        datetime(2026, 1, 31, 23, 30, tzinfo=UTC),
        "",
        "default",
        0,
        0,
        None,
        None,
        outside_training=False,
        verified=False,
    )
    assert [row.month for row in detector_months([late], ZoneInfo("Europe/Berlin"))] == ["2026-02"]


def test_twice_the_findings_are_a_shift_of_that_month_only() -> None:
    counts = [[0, 1, 2, 3, 1] * 8] * 3 + [[2, 4, 6, 5, 3] * 8] + [[0, 1, 2, 3, 1] * 8]
    newest_first = detector_months(months(counts), UTC)
    assert [row.month for row in newest_first] == ["2026-05", "2026-04", "2026-03", "2026-02", "2026-01"]
    assert [row.shifts for row in newest_first if row.month != "2026-04"] == [()] * 4
    assert tuple(map(str, newest_first[1].shifts)) == ("findings per study: 4.0 on average, 1.4 before",)


def test_worse_images_and_readers_who_reject_more_are_shifts() -> None:
    rows = detector_months(
        months(
            [[4] * 20, [4] * 20],
            snr=[20.0, 12.0], outside_training=[False, True], verified=[True, True], rejected=[0, 2],
        ), UTC,
    )  # fmt: skip
    assert tuple(map(str, rows[0].shifts)) == (
        "signal-to-noise ratio: 12.0 on average, 20.0 before",
        "studies outside the intended range: 100 %, 0 % before",
        "findings rejected by readers: 50 %, 0 % before",
    )


def test_each_scanner_counts_once_by_its_newest_month_with_enough_studies() -> None:
    usual, twice = [0, 1, 2, 3, 1] * 8, [2, 4, 6, 5, 3] * 8
    still, over = months([usual, usual, twice, [9, 9]]), months([usual, usual, twice, usual])
    studies = [*still, *(replace(one, scanner="GE MR2") for one in over)]
    shifted = shifted_scanners(row for row in detector_months(studies, UTC) if row.month >= "2026-03")
    assert {measure for (_, measure), number in shifted.items() if number} == {"findings per study"}
    assert shifted["default", "findings per study"] == 1
    assert shifted["default", "motion"] == 0


def test_few_studies_and_other_scanners_are_not_compared() -> None:
    before = months([[0] * 40])
    few = [study(40, 9) for _ in range(9)]
    elsewhere = [study(40, 9, "GE MR2") for _ in range(40)]
    assert all(row.shifts == () for row in detector_months([*before, *few, *elsewhere], UTC))


@given(seed=st.integers(0, 2**32 - 1))
def test_chance_is_no_shift(seed: int) -> None:
    """Thirty months of one scanner that does not change: a false alarm is rarer than one month in a hundred."""
    rng = np.random.default_rng(seed)
    counts = [rng.poisson(1.5, 30).tolist() for _ in range(30)]
    shifted = [row for row in detector_months(months(counts), UTC) if row.shifts]
    assert len(shifted) <= 3
