"""Does a probability of 0.8 mean four in five? Reliability, expected calibration error and Brier score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .outcomes import JudgedMark, MarkOutcome

BINS = 10
NEAREST = 0.005
"""No score is certain, so no probability is shown as 0.00 or 1.00."""


@dataclass(frozen=True)
class Bin:
    """Marks of similar probability: how many, their mean probability, and the share that are microbleeds."""

    count: int
    probability: float
    bleeds: float


@dataclass(frozen=True)
class Calibration:
    """Reliability of some marks.

    Parameters
    ----------
    marks : int
        How many.
    error : float or None
        Expected calibration error: mean distance between probability and share of microbleeds, over ten bins of equal
        width, weighted by their marks (Guo 2017).
    brier : float or None
        Mean squared distance of the probability from 0 or 1.
    bins : tuple of Bin
        Those that are not empty.
    """

    marks: int
    error: float | None
    brier: float | None
    bins: tuple[Bin, ...]


def shown_probability(probability: float) -> str:
    """A probability in two digits; one that would be rounded to 0 or 1 is shown as a limit."""
    if probability < NEAREST:
        return "< 0.01"
    return "> 0.99" if probability >= 1 - NEAREST else f"{probability:.2f}"


def calibration(judged: Sequence[JudgedMark]) -> Calibration:
    """Measure it; marks on microbleeds that cannot be seen are left out."""
    counted = [j for j in judged if j.verdict is not MarkOutcome.NOT_COUNTED]
    probability = np.array([j.mark.probability for j in counted], dtype=float)
    bleed = np.array([j.verdict is MarkOutcome.HIT for j in counted], dtype=float)
    if not counted:
        return Calibration(0, None, None, ())
    bins = _bins(probability, bleed)
    error = sum(b.count * abs(b.probability - b.bleeds) for b in bins) / len(counted)
    return Calibration(len(counted), error, float(np.mean((probability - bleed) ** 2)), bins)


def _bins(probability: NDArray[np.float64], bleed: NDArray[np.float64]) -> tuple[Bin, ...]:
    which = np.clip((probability * BINS).astype(int), 0, BINS - 1)
    count = np.bincount(which, minlength=BINS)
    total, bleeds = np.bincount(which, probability, BINS), np.bincount(which, bleed, BINS)
    return tuple(Bin(int(count[n]), total[n] / count[n], bleeds[n] / count[n]) for n in np.flatnonzero(count))
