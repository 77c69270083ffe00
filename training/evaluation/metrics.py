"""How many bleeds are found, and how many marks are false? Counts, ratios and the FROC curve.

Every figure takes a weight for each study, so that the bootstrap is a call with other weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import Weights
from training.evaluation.cases import Answer, Case, Mark, Thing
from training.evaluation.matching import Judged, Verdict, judge

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StudyResult:
    """One study, judged.

    Parameters
    ----------
    case : Case
        The study with its truth.
    lesions, candidates : tuple of Judged
        What was reported, and all that was scored, most probable first.
    answer : Answer or None
        What was answered; ``None`` when the study was refused: all of its bleeds are missed.
    refused : str
        Why it was refused.
    """

    case: Case
    lesions: tuple[Judged, ...] = ()
    candidates: tuple[Judged, ...] = ()
    answer: Answer | None = None
    refused: str = ""

    @classmethod
    def of(cls, case: Case, answer: Answer | None, refused: str = "") -> StudyResult:
        """Judge an answer."""
        if answer is None:
            return cls(case, refused=refused or "no answer")
        return cls(case, judge(answer.lesions, case.truth), judge(answer.candidates, case.truth), answer)

    @cached_property
    def found(self) -> frozenset[int]:
        """Which bleeds of the truth are reported and count."""
        return frozenset(j.bleed for j in self.lesions if j.verdict is Verdict.HIT and j.bleed is not None)

    @property
    def hits(self) -> int:
        """Visible bleeds that are reported."""
        return len(self.found)

    @property
    def false(self) -> tuple[Mark, ...]:
        """What was reported and is not a bleed."""
        return tuple(j.mark for j in self.lesions if j.verdict is Verdict.FALSE)

    @property
    def missed(self) -> tuple[Thing, ...]:
        """Visible bleeds that are not reported."""
        return tuple(b for n, b in enumerate(self.case.truth.bleeds) if b.visible and n not in self.found)


def ratio(over: Floats, under: Floats) -> Callable[[Weights], float]:
    """Make the metric: weighted sum of `over` by weighted sum of `under`, per study."""

    def metric(weights: Weights) -> float:
        below = float(weights @ under)
        return float(weights @ over) / below if below > 0 else float("nan")

    return metric


@dataclass(frozen=True)
class Counts:
    """Per study: visible bleeds, those reported, and false reports; float arrays of one length."""

    bleeds: Floats
    hits: Floats
    false: Floats

    @classmethod
    def of(cls, results: Sequence[StudyResult]) -> Counts:
        """Count."""
        return cls(
            np.array([len(r.case.truth.visible) for r in results], dtype=float),
            np.array([r.hits for r in results], dtype=float),
            np.array([len(r.false) for r in results], dtype=float),
        )

    def metrics(self) -> dict[str, Callable[[Weights], float]]:
        """Sensitivity, false positives per study, precision and F1, pooled over bleeds."""
        return {
            "sensitivity": ratio(self.hits, self.bleeds),
            "fp_per_study": ratio(self.false, np.ones_like(self.false)),
            "precision": ratio(self.hits, self.hits + self.false),
            "f1": ratio(2 * self.hits, self.bleeds + self.hits + self.false),
        }


class Froc:
    """Free-response operating characteristic: sensitivity against false positives per study, over all thresholds.

    Built from every scored candidate (Bunch 1978; Chakraborty 1989). A threshold takes all candidates of its
    probability or more, so candidates that tie enter together.
    """

    def __init__(self, results: Sequence[StudyResult]) -> None:
        rows = [
            (j.mark.probability, n, j.verdict is Verdict.HIT)
            for n, result in enumerate(results)
            for j in result.candidates
            if j.verdict is not Verdict.NOT_COUNTED
        ]
        rows.sort(key=lambda row: -row[0])
        self.bleeds = np.array([len(r.case.truth.visible) for r in results], dtype=float)
        self.probability = np.array([row[0] for row in rows], dtype=float)
        self._study = np.array([row[1] for row in rows], dtype=np.intp)
        self._hit = np.array([row[2] for row in rows], dtype=float)
        last = np.append(self.probability[1:] != self.probability[:-1], True) if rows else np.zeros(0, bool)
        self._ends = np.flatnonzero(last)

    def curve(self, weights: Weights | None = None) -> tuple[Floats, Floats, Floats]:
        """False positives per study, sensitivity and threshold, from the strictest threshold (0, 0, inf) on."""
        weights = np.ones(len(self.bleeds)) if weights is None else weights
        each = weights[self._study]
        studies, bleeds = float(weights.sum()), float(weights @ self.bleeds)
        false = np.cumsum(each * (1 - self._hit))[self._ends] / studies if studies else np.zeros(len(self._ends))
        hits = np.cumsum(each * self._hit)[self._ends]
        sensitivity = hits / bleeds if bleeds else np.full(len(self._ends), np.nan)
        start = 0.0 if bleeds else np.nan
        thresholds = np.append(np.inf, self.probability[self._ends])
        return np.append(0.0, false), np.append(start, sensitivity), thresholds

    def sensitivity_at(self, rates: Sequence[float], weights: Weights | None = None) -> Floats:
        """Highest sensitivity with no more false positives per study than each of `rates`."""
        false, sensitivity, _ = self.curve(weights)
        return sensitivity[np.searchsorted(false, np.asarray(rates) + 1e-9, side="right") - 1]

    def threshold_at(self, rate: float) -> float:
        """Lowest probability whose threshold gives no more than `rate` false positives per study."""
        false, _, thresholds = self.curve()
        return float(thresholds[int(np.searchsorted(false, rate + 1e-9, side="right")) - 1])
