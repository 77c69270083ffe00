"""The pictures of an evaluation show what was found, missed and false, each kind where it belongs."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.cases import Case, CaseFindings, CaseTruth, ReportedMark, TruthObject
from training.evaluation.gallery import COLUMNS, choose
from training.evaluation.metrics import StudyResult


def _result(found: int, missed: int, false: int) -> StudyResult:
    """A study with so many of each; everything 30 mm apart, sizes rising."""
    bleeds = tuple(TruthObject((30.0 * n, 0.0, 0.0), diameter_mm=1.0 + n) for n in range(found + missed))
    marks = [ReportedMark(bleed.centre_lps_mm, 0.9) for bleed in bleeds[:found]]
    marks += [ReportedMark((30.0 * n, 300.0, 0.0), 0.5 + n / 1000) for n in range(false)]
    case = Case("study", "subject", "anatomy", Path(), CaseTruth(bleeds))
    return StudyResult.of(case, CaseFindings(tuple(marks), tuple(marks)))


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_each_kind_is_shown_as_far_as_there_is_room(found: int, missed: int, false: int) -> None:
    result = _result(found, missed, false)
    rows = choose([result])
    assert [len(rows[kind]) for kind in ("found", "missed", "false")] == [
        min(n, COLUMNS) for n in (found, missed, false)
    ]
    assert all(shown.at[1] == (300.0 if kind == "false" else 0.0) for kind, row in rows.items() for shown in row)
    for kind, of_kind in (("found", result.case.truth.bleeds[:found]), ("missed", result.missed)):
        if of_kind:  # from the smallest to the largest
            assert [rows[kind][0].at, rows[kind][-1].at] == [of_kind[0].centre_lps_mm, of_kind[-1].centre_lps_mm]
    if false:
        assert rows["false"][0].words == f"nothing marked, p {0.5 + (false - 1) / 1000:.2f}", "the surest first"
