"""Which planted bleeds were found? Findings against the truth of a simulated study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import dist
from pathlib import Path
from typing import Any

MATCH_MM = 5.0
"""A detection counts for a bleed when it lies this near its centre (VALDO challenge, Sudre 2024)."""


@dataclass(frozen=True)
class Planted:
    """A bleed that was put into the simulated study."""

    centre_lps_mm: tuple[float, float, float]
    radius_mm: float
    visible: bool


@dataclass(frozen=True)
class Match:
    """A planted bleed with the lesion that found it, if any."""

    bleed: Planted
    lesion_id: int | None
    distance_mm: float | None


@dataclass(frozen=True)
class Score:
    """Every planted bleed with its match, and the lesions that match none."""

    matches: tuple[Match, ...]
    false_ids: tuple[int, ...]

    @property
    def found(self) -> int:
        """Planted bleeds that were found."""
        return sum(match.lesion_id is not None for match in self.matches)

    @property
    def missed(self) -> int:
        """Planted bleeds that were not."""
        return len(self.matches) - self.found


def read_truth(path: Path) -> list[Planted]:
    """Read the planted bleeds of a study from its ``truth.json``."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return [
        Planted(_point(lesion["centre_lps_mm"]), float(lesion["radius_mm"]), bool(lesion["visible"]))
        for lesion in document["lesions"]
    ]


def _point(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = map(float, values)
    return x, y, z


def score(lesions: Sequence[Mapping[str, Any]], planted: Sequence[Planted]) -> Score:
    """Match greedily, the most probable lesion first; a lesion counts for the nearest free bleed within 5 mm.

    Parameters
    ----------
    lesions : sequence of mapping
        As in ``findings.json``.
    planted : sequence of Planted
        The truth, in LPS millimetres.
    """
    free = dict(enumerate(planted))
    taken: dict[int, tuple[int, float]] = {}
    false_ids = []
    for lesion in sorted(lesions, key=lambda one: -one["probability"]):
        centre = lesion["centroid_lps_mm"]
        near = min(free, key=lambda n: dist(free[n].centre_lps_mm, centre), default=None)
        if near is None or (distance := dist(free[near].centre_lps_mm, centre)) > MATCH_MM:
            false_ids.append(lesion["id"])
        else:
            taken[near] = (lesion["id"], distance)
            del free[near]
    matches = tuple(Match(bleed, *taken.get(n, (None, None))) for n, bleed in enumerate(planted))
    return Score(matches, tuple(sorted(false_ids)))
