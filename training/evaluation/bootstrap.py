"""How sure is a figure? 95 % intervals by drawing the subjects again (percentile bootstrap, Efron 1979)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]
LEVEL = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; ``None`` where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> list[float | None]:
        """``[value, low, high]``."""
        return [None if v is None else round(v, 5) for v in (self.value, self.low, self.high)]


class Resamples:
    """How often each study counts in each resample.

    Subjects are drawn with replacement, and with each all of its studies: scans of one head are not independent.

    Parameters
    ----------
    subjects : sequence of str
        The subject of every study; at least one.
    draws : int
        How many resamples; 0 gives no intervals, nor does a single subject.
    seed : int
        The same seed draws the same subjects, whatever profile is measured.
    """

    def __init__(self, subjects: Sequence[str], draws: int = 1000, seed: int = 0) -> None:
        names, member = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
        drawable = draws if len(names) > 1 else 0
        counts = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), size=drawable)
        self.subjects = len(names)
        self.studies = len(member)
        self.weights: Weights = counts[:, member].astype(np.float64)

    def estimates(self, metric: Callable[[Weights], NDArray[np.float64]]) -> list[Estimate]:
        """Estimate several figures at once: `metric` maps the studies' weights to them, NaN where undefined."""
        values = np.atleast_1d(metric(np.ones(self.studies)))
        if not len(self.weights):
            return [Estimate(_or_none(v)) for v in values]
        drawn = np.stack([np.atleast_1d(metric(row)) for row in self.weights])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a figure that no resample defines stays NaN
            low, high = np.nanpercentile(drawn, LEVEL, axis=0)
        return [Estimate(*map(_or_none, three)) for three in zip(values, low, high, strict=True)]

    def estimate(self, metric: Callable[[Weights], float]) -> Estimate:
        """Estimate one figure."""
        return self.estimates(lambda weights: np.array([metric(weights)]))[0]


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
