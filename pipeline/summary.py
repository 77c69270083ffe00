"""What do the lesions come to? Counts by region and side, the pattern, the burden, and what was not assessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from pipeline.findings import ChangeOverTime, Lesion, Placement

REGIONS: Final = ("lobar", "deep", "infratentorial")
SIDES: Final = ("left", "right", "midline")
NEVER_ASSESSED: Final = ("superficial siderosis", "macrobleeds")

_BURDENS: Final = ((10, ">=10"), (5, "5-9"), (1, "1-4"), (0, "0"))


class Place(NamedTuple):
    """Where bleeds are counted together; ``None`` is what was not assessed."""

    region: str | None
    location: str | None
    side: str | None


@dataclass(frozen=True)
class PlaceCount:
    """One row of the region and side table."""

    place: Place
    definite: int
    possible: int

    @property
    def total(self) -> int:
        """Both certainties."""
        return self.definite + self.possible


@dataclass(frozen=True)
class Summary:
    """The lesions of one study in a few words.

    `pattern` and `burden` count definite and possible bleeds alike; `definite_pattern` and `definite_burden` the
    definite ones alone. A pattern is ``None`` when a bleed that it counts has no location.
    """

    pattern: str | None
    burden: str
    definite_pattern: str | None
    definite_burden: str
    regions: tuple[PlaceCount, ...]
    not_assessed: tuple[str, ...]

    @property
    def by_region_and_side(self) -> tuple[PlaceCount, ...]:
        """The table without locations: one row for each region and side that holds a bleed."""
        counts: dict[Place, tuple[int, int]] = {}
        for row in self.regions:
            place = Place(row.place.region, None, row.place.side)
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


def summarise(lesions: Sequence[Lesion], placement: Placement | None, change: ChangeOverTime | None) -> Summary:
    """Sum `lesions` up."""
    definite = [lesion for lesion in lesions if lesion.certainty == "definite"]
    return Summary(
        pattern=pattern(lesions),
        burden=burden(len(lesions)),
        definite_pattern=pattern(definite),
        definite_burden=burden(len(definite)),
        regions=count_places(lesions),
        not_assessed=_not_assessed(lesions, placement, change),
    )


def pattern(lesions: Iterable[Lesion]) -> str | None:
    """``none``, ``strictly lobar``, ``strictly deep`` or ``mixed``; ``None`` if a region is not known.

    Infratentorial bleeds count as deep ("deep or infratentorial"), as in the Rotterdam Scan Study (Vernooij et al.
    2008, Neurology 70:1208). A pattern, not a diagnosis.
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
    return next(name for least, name in _BURDENS if count >= least)


def count_places(lesions: Iterable[Lesion]) -> tuple[PlaceCount, ...]:
    """Count by region, location and side; lobar first, left before right, what is not known last."""
    counts = Counter((Place(x.region, x.location, x.side), str(x.certainty)) for x in lesions)
    places = sorted({place for place, _ in counts}, key=_order)
    return tuple(PlaceCount(p, counts[p, "definite"], counts[p, "possible"]) for p in places)


def _order(place: Place) -> tuple[int, int, str]:
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
