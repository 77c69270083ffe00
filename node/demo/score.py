"""Which planted microbleeds were found? Findings against the truth of a simulated study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import dist
from pathlib import Path
from typing import Any

MATCH_MM = 5.0
"""A finding counts for a microbleed when it lies this near its centre (VALDO challenge, Sudre 2024)."""


@dataclass(frozen=True)
class PlantedObject:
    """A microbleed, or something that looks like one (`kind` says what), that was put into the simulated study.

    `region` is lobar, deep or infratentorial.
    """

    centre_lps_mm: tuple[float, float, float]
    radius_mm: float
    visible: bool
    kind: str = "bleed"
    region: str = ""


@dataclass(frozen=True)
class PlantedTruth:
    """What was put into a simulated study."""

    bleeds: tuple[PlantedObject, ...]
    mimics: tuple[PlantedObject, ...]


@dataclass(frozen=True)
class Match:
    """A planted microbleed or mimic with the lesion that marks it, if any; `region` is the one the lesion was given."""

    planted: PlantedObject
    lesion_id: int | None
    distance_mm: float | None
    region: str | None = None

    @property
    def right_region(self) -> bool:
        """Whether the lesion was given the main region that the microbleed was planted in."""
        return self.region is not None and self.region == self.planted.region


@dataclass(frozen=True)
class Score:
    """Every planted microbleed with its match, the lesions that match none, and on which mimics those lie."""

    matches: tuple[Match, ...]
    false_ids: tuple[int, ...]
    mimics: tuple[Match, ...] = ()

    @property
    def found(self) -> int:
        """Planted microbleeds that were found."""
        return sum(match.lesion_id is not None for match in self.matches)

    @property
    def missed(self) -> int:
        """Planted microbleeds that were not."""
        return len(self.matches) - self.found

    @property
    def right_regions(self) -> int:
        """Found microbleeds with the right main region."""
        return sum(match.right_region for match in self.matches)


def read_truth(path: Path) -> PlantedTruth:
    """Read what was planted in a study from its ``truth.json``."""
    document = json.loads(path.read_text(encoding="utf-8"))
    bleeds, mimics = (tuple(map(_planted, document.get(name, []))) for name in ("lesions", "mimics"))
    return PlantedTruth(bleeds, mimics)


def _planted(entry: Mapping[str, Any]) -> PlantedObject:
    kind = str(entry.get("kind", "bleed"))
    where, region = _point(entry["centre_lps_mm"]), str(entry.get("region") or "")
    return PlantedObject(where, float(entry["radius_mm"]), bool(entry["visible"]), kind, region)


def _point(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = map(float, values)
    return x, y, z


def score(lesions: Sequence[Mapping[str, Any]], truth: PlantedTruth) -> Score:
    """Match greedily, the most probable lesion first; a lesion counts for the nearest free microbleed within 5 mm.

    Parameters
    ----------
    lesions : sequence of mapping
        As in ``findings.json``.
    truth : PlantedTruth
        What was planted, in LPS millimetres.
    """
    matches, rest = _match(lesions, truth.bleeds)
    mimics, _ = _match(rest, truth.mimics)
    return Score(matches, tuple(sorted(lesion["id"] for lesion in rest)), mimics)


def _match(
    lesions: Sequence[Mapping[str, Any]], planted: Sequence[PlantedObject]
) -> tuple[tuple[Match, ...], list[Mapping[str, Any]]]:
    """Everything planted with its lesion, and the lesions that are left."""
    free = dict(enumerate(planted))
    taken: dict[int, tuple[int, float, str | None]] = {}
    rest = []
    for lesion in sorted(lesions, key=lambda one: -one["probability"]):
        centre = lesion["centroid_lps_mm"]
        near = min(free, key=lambda n: dist(free[n].centre_lps_mm, centre), default=None)
        if near is None or (distance := dist(free[near].centre_lps_mm, centre)) > MATCH_MM:
            rest.append(lesion)
        else:
            taken[near] = (lesion["id"], distance, lesion.get("region"))
            del free[near]
    return tuple(Match(one, *taken.get(n, (None, None, None))) for n, one in enumerate(planted)), rest
