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
    """A bleed, or something that looks like one (`kind` says what), that was put into the simulated study."""

    centre_lps_mm: tuple[float, float, float]
    radius_mm: float
    visible: bool
    kind: str = "bleed"


@dataclass(frozen=True)
class Truth:
    """What was put into a simulated study."""

    bleeds: tuple[Planted, ...]
    mimics: tuple[Planted, ...]


@dataclass(frozen=True)
class Match:
    """A planted bleed or mimic with the lesion that marks it, if any."""

    planted: Planted
    lesion_id: int | None
    distance_mm: float | None


@dataclass(frozen=True)
class Score:
    """Every planted bleed with its match, the lesions that match none, and on which mimics those lie."""

    matches: tuple[Match, ...]
    false_ids: tuple[int, ...]
    mimics: tuple[Match, ...] = ()

    @property
    def found(self) -> int:
        """Planted bleeds that were found."""
        return sum(match.lesion_id is not None for match in self.matches)

    @property
    def missed(self) -> int:
        """Planted bleeds that were not."""
        return len(self.matches) - self.found


def read_truth(path: Path) -> Truth:
    """Read what was planted in a study from its ``truth.json``."""
    document = json.loads(path.read_text(encoding="utf-8"))
    bleeds, mimics = (tuple(map(_planted, document.get(name, []))) for name in ("lesions", "mimics"))
    return Truth(bleeds, mimics)


def _planted(entry: Mapping[str, Any]) -> Planted:
    kind = str(entry.get("kind", "bleed"))
    return Planted(_point(entry["centre_lps_mm"]), float(entry["radius_mm"]), bool(entry["visible"]), kind)


def _point(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = map(float, values)
    return x, y, z


def score(lesions: Sequence[Mapping[str, Any]], truth: Truth) -> Score:
    """Match greedily, the most probable lesion first; a lesion counts for the nearest free bleed within 5 mm.

    Parameters
    ----------
    lesions : sequence of mapping
        As in ``findings.json``.
    truth : Truth
        What was planted, in LPS millimetres.
    """
    matches, rest = _match(lesions, truth.bleeds)
    mimics, _ = _match(rest, truth.mimics)
    return Score(matches, tuple(sorted(lesion["id"] for lesion in rest)), mimics)


def _match(
    lesions: Sequence[Mapping[str, Any]], planted: Sequence[Planted]
) -> tuple[tuple[Match, ...], list[Mapping[str, Any]]]:
    """Everything planted with its lesion, and the lesions that are left."""
    free = dict(enumerate(planted))
    taken: dict[int, tuple[int, float]] = {}
    rest = []
    for lesion in sorted(lesions, key=lambda one: -one["probability"]):
        centre = lesion["centroid_lps_mm"]
        near = min(free, key=lambda n: dist(free[n].centre_lps_mm, centre), default=None)
        if near is None or (distance := dist(free[near].centre_lps_mm, centre)) > MATCH_MM:
            rest.append(lesion)
        else:
            taken[near] = (lesion["id"], distance)
            del free[near]
    return tuple(Match(one, *taken.get(n, (None, None))) for n, one in enumerate(planted)), rest
