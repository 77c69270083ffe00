"""Does a probability of 0.8 mean four in five? Reliability, expected calibration error and Brier score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.matching import Judged, Verdict

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Marks of similar probability: how many, their mean probability, and the share that are bleeds."""

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
        Expected calibration error: mean distance between probability and share of bleeds, over ten bins of equal
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


def calibration(judged: Sequence[Judged]) -> Calibration:
    """Measure it; marks on bleeds that cannot be seen are left out."""
    counted = [j for j in judged if j.verdict is not Verdict.NOT_COUNTED]
    probability = np.array([j.mark.probability for j in counted], dtype=float)
    bleed = np.array([j.verdict is Verdict.HIT for j in counted], dtype=float)
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
