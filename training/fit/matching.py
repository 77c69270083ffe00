"""How good are candidates? Matched greedily to the marks within 5 mm, as in VALDO 2021 (Sudre et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
MATCH_MM = 5.0
RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""False positives a study at which sensitivity is averaged."""


@dataclass(frozen=True, eq=False)
class Matched:
    """Candidates of one study: their scores, which are hits, which count; and the total of visible bleeds.

    A candidate that lies at a bleed already taken, or at a hidden one, does not count.
    """

    scores: NDArray[np.float64]
    hit: NDArray[np.bool_]
    counts: NDArray[np.bool_]
    total: int


def match(points: Points, scores: NDArray[np.float64], visible: Points, hidden: Points) -> Matched:
    """Match candidates to bleeds, the highest score first; all coordinates in mm, shape ``(n, 3)``."""
    hit, counts = np.zeros(len(points), bool), np.ones(len(points), bool)
    free = np.ones(len(visible), bool)
    for n in np.argsort(-scores, kind="stable"):
        distance = np.linalg.norm(visible - points[n], axis=1)
        if len(visible) and (distance <= MATCH_MM).any():
            near = np.where(free, distance, np.inf)
            if near.min() <= MATCH_MM:
                free[near.argmin()], hit[n] = False, True
            else:
                counts[n] = False
        elif len(hidden) and np.linalg.norm(hidden - points[n], axis=1).min() <= MATCH_MM:
            counts[n] = False
    return Matched(np.asarray(scores, np.float64), hit, counts, len(visible))


def froc(studies: Sequence[Matched], rates: Sequence[float] = RATES) -> list[float]:
    """Sensitivity at the highest threshold-free operating point within each rate of false positives a study."""
    total = sum(s.total for s in studies)
    if not total:
        return [0.0 for _ in rates]
    scores = np.concatenate([s.scores[s.counts] for s in studies])
    hits = np.concatenate([s.hit[s.counts] for s in studies])
    order = np.argsort(-scores, kind="stable")
    found, wrong = np.cumsum(hits[order]), np.cumsum(~hits[order])
    return [float(found[wrong <= rate * len(studies)].max(initial=0)) / total for rate in rates]


def threshold_for(studies: Sequence[Matched], rate: float) -> float:
    """Lowest score at which there are at most `rate` false positives a study."""
    scores = np.concatenate([s.scores[s.counts] for s in studies]) if studies else np.empty(0)
    hits = np.concatenate([s.hit[s.counts] for s in studies]) if studies else np.empty(0, bool)
    wrong = np.sort(scores[~hits])[::-1]
    allowed = int(rate * len(studies))
    if len(wrong) <= allowed:
        return float(scores.min(initial=1.0))
    above = scores[scores > wrong[allowed]]
    return float(above.min()) if above.size else float(np.nextafter(wrong[allowed], np.inf))
