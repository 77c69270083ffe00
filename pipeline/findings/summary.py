"""What do the lesions add up to? Counts by region and side, pattern, burden, and what was not assessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .types import ChangeOverTime, Lesion, Placement

REGIONS: Final = ("lobar", "deep", "infratentorial")
SIDES: Final = ("left", "right", "midline")
NEVER_ASSESSED: Final = ("superficial siderosis", "macrobleeds")

BURDENS: Final = ((10, ">=10"), (5, "5-9"), (1, "1-4"), (0, "0"))
"""Classes of the number of microbleeds, with the least of each."""


class CountedPlace(NamedTuple):
    """A place whose microbleeds are counted together; ``None`` is what was not assessed."""

    region: str | None
    location: str | None
    side: str | None


@dataclass(frozen=True)
class PlaceCount:
    """One row of the region and side table."""

    place: CountedPlace
    definite: int
    possible: int

    @property
    def total(self) -> int:
        """Definite and possible together."""
        return self.definite + self.possible


@dataclass(frozen=True)
class FindingsSummary:
    """The lesions of one study, summarised.

    `pattern` and `burden` count definite and possible microbleeds alike, `definite_pattern` and `definite_burden` only
    the definite ones. A pattern is ``None`` if a microbleed that it counts has no location.
    """

    pattern: str | None
    burden: str
    definite_pattern: str | None
    definite_burden: str
    regions: tuple[PlaceCount, ...]
    not_assessed: tuple[str, ...]

    @property
    def by_region_and_side(self) -> tuple[PlaceCount, ...]:
        """The table without locations: one row for each region and side with a microbleed."""
        counts: dict[CountedPlace, tuple[int, int]] = {}
        for row in self.regions:
            place = CountedPlace(row.place.region, None, row.place.side)
            definite, possible = counts.get(place, (0, 0))
            counts[place] = definite + row.definite, possible + row.possible
        return tuple(PlaceCount(place, *counts[place]) for place in sorted(counts, key=_order))

    def to_json(self) -> dict[str, Any]:
        """The ``summary`` of ``findings.json``."""
        rows = [{**row.place._asdict(), "definite": row.definite, "possible": row.possible} for row in self.regions]
        return {
            "pattern": self.pattern,
            "burden": self.burden,
            "definite_only": {"pattern": self.definite_pattern, "burden": self.definite_burden},
            "regions": rows,
            "not_assessed": list(self.not_assessed),
        }


def summarise(lesions: Sequence[Lesion], placement: Placement | None, change: ChangeOverTime | None) -> FindingsSummary:
    """Summarise `lesions`."""
    definite = [lesion for lesion in lesions if lesion.certainty == "definite"]
    return FindingsSummary(
        pattern=pattern(lesions),
        burden=burden(len(lesions)),
        definite_pattern=pattern(definite),
        definite_burden=burden(len(definite)),
        regions=count_places(lesions),
        not_assessed=_not_assessed(lesions, placement, change),
    )


def pattern(lesions: Iterable[Lesion]) -> str | None:
    """``none``, ``strictly lobar``, ``strictly deep`` or ``mixed``; ``None`` if a region is not known.

    Infratentorial microbleeds count as deep ("deep or infratentorial"), as in the Rotterdam Scan Study (Vernooij et
    al. 2008, Neurology 70:1208). A pattern, not a diagnosis.
    """
    regions = {lesion.region for lesion in lesions}
    if not regions:
        return "none"
    if not regions <= set(REGIONS):
        return None
    if regions == {"lobar"}:
        return "strictly lobar"
    return "mixed" if "lobar" in regions else "strictly deep"


def burden(count: int) -> str:
    """The usual class of a count: 0, 1-4, 5-9 or >=10."""
    return next(name for least, name in BURDENS if count >= least)


def count_places(lesions: Iterable[Lesion]) -> tuple[PlaceCount, ...]:
    """Count by region, location and side; lobar first, left before right, unknown last."""
    counts = Counter((CountedPlace(x.region, x.location, x.side), str(x.certainty)) for x in lesions)
    places = sorted({place for place, _ in counts}, key=_order)
    return tuple(PlaceCount(p, counts[p, "definite"], counts[p, "possible"]) for p in places)


def _order(place: CountedPlace) -> tuple[int, int, str]:
    def rank(names: tuple[str, ...], name: str | None) -> int:
        return names.index(name) if name in names else len(names)

    return rank(REGIONS, place.region), rank(SIDES, place.side), place.location or ""


def _not_assessed(
    lesions: Sequence[Lesion], placement: Placement | None, change: ChangeOverTime | None
) -> tuple[str, ...]:
    missing = list(NEVER_ASSESSED)
    unplaced = placement is not None and not placement.assessed
    if unplaced or any(lesion.region is None for lesion in lesions):
        missing.append("location of the microbleeds")
    if change is None or not change.assessed:
        missing.append("change over time")
    return tuple(missing)
