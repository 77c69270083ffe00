"""Random truths and answers."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from training.evaluation.cases import Case, CaseFindings, CaseTruth, ReportedMark, TruthObject
from training.evaluation.metrics import StudyResult

coordinates = st.floats(-30, 30, allow_nan=False, width=32)
points = st.tuples(coordinates, coordinates, coordinates)
bleeds = st.builds(
    TruthObject,
    points,
    st.just("bleed"),
    st.booleans(),
    st.none() | st.floats(0.5, 9),
    st.sampled_from(("lobar", "deep", "infratentorial", "")),
)
mimics = st.builds(TruthObject, points, st.sampled_from(("calcification", "vein", "null")), st.booleans())
truths = st.builds(CaseTruth, st.lists(bleeds, max_size=6).map(tuple), st.lists(mimics, max_size=4).map(tuple))
marks = st.builds(ReportedMark, points, st.floats(0, 1))
mark_lists = st.lists(marks, max_size=12, unique_by=lambda mark: mark.probability).map(tuple)


def case(truth: CaseTruth, name: str = "one", subject: str = "") -> Case:
    """A study that needs no images."""
    return Case(name, subject or name, subject or name, Path(name), truth)


def result(
    truth: CaseTruth, candidates: tuple[ReportedMark, ...], threshold: float = 0.5, name: str = "one"
) -> StudyResult:
    """A judged answer that reports the candidates from a threshold on."""
    lesions = tuple(mark for mark in candidates if mark.probability >= threshold)
    return StudyResult.of(
        case(truth, name), CaseFindings(lesions, candidates, ("beware",), {"read": 1.0, "brain": 2.0})
    )


pairs = st.lists(st.tuples(truths, mark_lists), min_size=1, max_size=5)


def results(pairs: list[tuple[CaseTruth, tuple[ReportedMark, ...]]], threshold: float = 0.5) -> list[StudyResult]:
    """One result for each pair."""
    return [result(truth, found, threshold, f"study-{n}") for n, (truth, found) in enumerate(pairs)]
