"""How many microbleeds are found at how many false positives? The free-response operating characteristic.

Sensitivity against false positives per study, over all thresholds (Bunch 1978; Chakraborty 1989). It needs numpy
alone, so training chooses by it where there are no DICOM packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Weights
from .matching import FREE, MATCH_MM, Points, match

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CountedCandidates:
    """Candidates of one study that count: their scores, whether each is a hit, and how many microbleeds are visible."""

    scores: Floats
    hit: NDArray[np.bool_]
    visible: int

    @classmethod
    def of(cls, points: Points, scores: Floats, microbleeds: Points, visible: NDArray[np.bool_]) -> CountedCandidates:
        """Match candidates to microbleeds; see :func:`training.evaluation.matching.match`.

        What lies at a microbleed that cannot be seen, or at one that a stronger candidate took, does not count.
        """
        taken = match(points, scores, microbleeds, visible)
        hit = (taken != FREE) & np.append(visible, False)[taken]
        apart = np.linalg.norm(points[:, None] - microbleeds[None], axis=2)
        counts = hit | ~(apart <= MATCH_MM).any(1)
        return cls(np.asarray(scores, np.float64)[counts], hit[counts], int(visible.sum()))


class Froc:
    """The curve of some studies.

    A threshold takes all candidates of its score or more, so candidates that tie enter together.
    """

    def __init__(self, studies: Sequence[CountedCandidates]) -> None:
        scores = np.concatenate([np.empty(0), *(s.scores for s in studies)])
        order = np.argsort(-scores, kind="stable")
        self.scores = scores[order]
        self._hit = np.concatenate([np.empty(0), *(s.hit for s in studies)])[order]
        self._study = np.repeat(np.arange(len(studies)), [len(s.scores) for s in studies])[order]
        self._visible = np.array([s.visible for s in studies], dtype=float)
        last = np.append(self.scores[1:] != self.scores[:-1], True) if len(scores) else np.zeros(0, bool)
        self._ends = np.flatnonzero(last)

    def curve(self, weights: Weights | None = None) -> tuple[Floats, Floats, Floats]:
        """False positives per study, sensitivity and threshold, from the strictest threshold (0, 0, inf) on.

        Without a visible microbleed sensitivity is NaN.
        """
        weights = np.ones(len(self._visible)) if weights is None else weights
        each = weights[self._study]
        studies, visible = float(weights.sum()), float(weights @ self._visible)
        false = np.cumsum(each * (1 - self._hit))[self._ends] / studies if studies else np.zeros(len(self._ends))
        hits = np.cumsum(each * self._hit)[self._ends]
        sensitivity = hits / visible if visible else np.full(len(self._ends), np.nan)
        start = 0.0 if visible else np.nan
        thresholds = np.append(np.inf, self.scores[self._ends])
        return np.append(0.0, false), np.append(start, sensitivity), thresholds

    def sensitivity_at(self, rates: Sequence[float], weights: Weights | None = None) -> Floats:
        """Highest sensitivity with no more false positives per study than each of `rates`."""
        false, sensitivity, _ = self.curve(weights)
        return np.asarray(sensitivity[np.searchsorted(false, np.asarray(rates) + 1e-9, side="right") - 1])

    def threshold_at(self, rate: float) -> float:
        """Lowest score whose threshold gives no more than `rate` false positives per study; inf if there is none."""
        false, _, thresholds = self.curve()
        return float(thresholds[int(np.searchsorted(false, rate + 1e-9, side="right")) - 1])
