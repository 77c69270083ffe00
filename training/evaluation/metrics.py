"""How many microbleeds are found, and how many marks are false? Counts, ratios and the FROC curve.

Every figure takes a weight for each study, so that the bootstrap is a call with other weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .bootstrap import Weights
from .cases import Case, CaseFindings, ReportedMark, TruthObject
from .froc import CountedCandidates, Floats, Froc
from .outcomes import JudgedMark, MarkOutcome, judge


@dataclass(frozen=True)
class StudyResult:
    """One study, judged.

    Parameters
    ----------
    case : Case
        The study with its truth.
    lesions, candidates : tuple of JudgedMark
        What was reported, and all that was scored, most probable first.
    answer : CaseFindings or None
        What was answered; ``None`` when the study was refused: all of its microbleeds are missed.
    refused : str
        Why it was refused.
    """

    case: Case
    lesions: tuple[JudgedMark, ...] = ()
    candidates: tuple[JudgedMark, ...] = ()
    answer: CaseFindings | None = None
    refused: str = ""

    @classmethod
    def of(cls, case: Case, answer: CaseFindings | None, refused: str = "") -> StudyResult:
        """Judge an answer."""
        if answer is None:
            return cls(case, refused=refused or "no answer")
        return cls(case, judge(answer.lesions, case.truth), judge(answer.candidates, case.truth), answer)

    @cached_property
    def found(self) -> frozenset[int]:
        """Which microbleeds of the truth are reported and count."""
        return frozenset(j.bleed for j in self.lesions if j.verdict is MarkOutcome.HIT and j.bleed is not None)

    @property
    def hits(self) -> int:
        """Visible microbleeds that are reported."""
        return len(self.found)

    @property
    def false(self) -> tuple[ReportedMark, ...]:
        """What was reported and is not a microbleed."""
        return tuple(j.mark for j in self.lesions if j.verdict is MarkOutcome.FALSE)

    @property
    def missed(self) -> tuple[TruthObject, ...]:
        """Visible microbleeds that are not reported."""
        return tuple(b for n, b in enumerate(self.case.truth.bleeds) if b.visible and n not in self.found)


def ratio(over: Floats, under: Floats) -> Callable[[Weights], float]:
    """Make the metric: weighted sum of `over` by weighted sum of `under`, per study."""

    def metric(weights: Weights) -> float:
        below = float(weights @ under)
        return float(weights @ over) / below if below > 0 else float("nan")

    return metric


@dataclass(frozen=True)
class DetectionCounts:
    """Per study: visible microbleeds, those reported, and false reports; float arrays of one length."""

    bleeds: Floats
    hits: Floats
    false: Floats

    @classmethod
    def of(cls, results: Sequence[StudyResult]) -> DetectionCounts:
        """Count."""
        return cls(
            np.array([len(r.case.truth.visible) for r in results], dtype=float),
            np.array([r.hits for r in results], dtype=float),
            np.array([len(r.false) for r in results], dtype=float),
        )

    def metrics(self) -> dict[str, Callable[[Weights], float]]:
        """Sensitivity, false positives per study, precision and F1, pooled over microbleeds."""
        return {
            "sensitivity": ratio(self.hits, self.bleeds),
            "fp_per_study": ratio(self.false, np.ones_like(self.false)),
            "precision": ratio(self.hits, self.hits + self.false),
            "f1": ratio(2 * self.hits, self.bleeds + self.hits + self.false),
        }


def froc_of(results: Sequence[StudyResult]) -> Froc:
    """The curve of every scored candidate; a second mark on the same microbleed is a false positive."""
    return Froc([_scored(result) for result in results])


def _scored(result: StudyResult) -> CountedCandidates:
    counted = [j for j in result.candidates if j.verdict is not MarkOutcome.NOT_COUNTED]
    return CountedCandidates(
        np.array([j.mark.probability for j in counted], float),
        np.array([j.verdict is MarkOutcome.HIT for j in counted], bool),
        len(result.case.truth.visible),
    )
