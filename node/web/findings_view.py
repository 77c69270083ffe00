"""What did the analysis find? The findings become plain values for the page; their wording is the pipeline's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.findings import ChangeOverTime, Findings, Lesion, PriorLesion, RejectedLesion, wording
from pipeline.findings.summary import REGIONS, SIDES, PlaceCount

from . import labels
from .volumes import VolumeGrid


@dataclass(frozen=True)
class RegionRow:
    """A row of the table by region and side: counts as text, and the locations within the region."""

    name: str
    cells: tuple[str, ...]
    total: int
    detail: str


@dataclass(frozen=True)
class LesionRow:
    """A row of the lesion table, formatted. `key` names its pictures; `then` is the microbleed of the prior study.

    `at` is its voxel in the volumes of the viewer; empty if there are none.
    """

    key: str
    number: str
    tracking_uid: str
    certainty: str
    trend: str
    then: str
    location: str
    slice: str
    diameter: str
    volume: str
    probability: str
    at: str


@dataclass(frozen=True)
class ComparisonView:
    """The change since a prior study. `line` says it in one; `assessed` is false if it says only why there is none."""

    line: str
    assessed: bool
    grade: str
    calm: bool
    flags: tuple[str, ...]


@dataclass(frozen=True)
class FindingsView:
    """The findings, and what they rest on."""

    total: int
    counts: str
    burden: str
    pattern: str
    regions: tuple[RegionRow, ...]
    sides: tuple[str, ...]
    lesions: tuple[LesionRow, ...]
    gone: tuple[LesionRow, ...]
    rejected: tuple[LesionRow, ...]
    comparison: ComparisonView | None
    verified: str
    corrections: str
    comment: str
    quality: tuple[str, ...]
    not_assessed: str
    caveats: tuple[str, ...]
    profile: str
    software: str


def findings_view(
    findings: Findings, slices: Mapping[str, int], prior: Findings | None = None, grid: VolumeGrid | None = None
) -> FindingsView:
    """Lay findings out for the page; lesions in the order of a reader who scrolls.

    Parameters
    ----------
    findings : Findings
        What is shown.
    slices : mapping of str to int
        What a PACS calls the slice of a lesion, by tracking UID.
    prior : Findings, optional
        The findings that it was compared with.
    grid : VolumeGrid, optional
        The grid of the viewer's volumes.
    """
    change, verification = findings.change, findings.verification
    before = {lesion.tracking_uid: lesion for lesion in (prior.lesions if prior else ())}
    lesions = sorted(findings.lesions, key=lambda lesion: (slices.get(lesion.tracking_uid, 0), lesion.id))
    sides, regions = _regions(findings.summary.regions)
    return FindingsView(
        total=len(lesions),
        counts=wording.counts(findings),
        burden=findings.summary.burden,
        pattern=wording.pattern_line(findings),
        regions=regions,
        sides=sides,
        lesions=tuple(
            LesionRow(
                key=str(one.id),
                number=str(one.id),
                trend=wording.trend(one, change),
                then=_then(before.get(one.prior_tracking_uid or ""), change),
                slice=str(slices.get(one.tracking_uid, labels.ABSENT)),
                volume=f"{one.volume_mm3:.1f}",
                **_described(one, grid),
            )
            for one in lesions
        ),
        gone=tuple(_others("gone", change.no_longer_seen if change else (), before, grid)),
        rejected=tuple(_others("rejected", findings.rejected, {}, grid)),
        comparison=_comparison(findings, change) if change else None,
        verified=wording.verification(findings) if verification else "",
        corrections=wording.corrections(findings),
        comment=verification.comment if verification else "",
        quality=tuple(measure.text for measure in wording.quality(findings.image_quality)),
        not_assessed=wording.not_assessed(findings),
        caveats=tuple(wording.caveats(findings)),
        profile=findings.profile,
        software=findings.software,
    )


def _regions(rows: Iterable[PlaceCount]) -> tuple[tuple[str, ...], tuple[RegionRow, ...]]:
    """The region and side table, as wide and as high as there is something to say."""
    rows = list(rows)
    sides = [side for side in (*SIDES, None) if side in SIDES[:2] or any(row.place.side == side for row in rows)]
    regions = [r for r in (*REGIONS, None) if r in REGIONS or any(row.place.region == r for row in rows)]
    made = []
    for region in regions:
        here = [row for row in rows if row.place.region == region]
        cells = tuple(_cell([row for row in here if row.place.side == side]) for side in sides)
        places: dict[str, int] = {}
        for row in here:
            if row.place.location:
                location = wording.anatomical_location(row.place.location)
                places[location] = places.get(location, 0) + row.total
        detail = ", ".join(f"{place} {count}" for place, count in places.items())
        made.append(RegionRow(region or wording.NOT_ASSESSED, cells, sum(row.total for row in here), detail))
    return tuple(side or wording.NOT_ASSESSED for side in sides), tuple(made)


def _cell(rows: Iterable[PlaceCount]) -> str:
    """``3 + 1`` is three definite and one possible, ``0 + 1`` one possible."""
    rows = list(rows)
    definite, possible = sum(row.definite for row in rows), sum(row.possible for row in rows)
    return f"{definite} + {possible}" if definite or possible else labels.ABSENT


def _described(lesion: Lesion | PriorLesion | RejectedLesion, grid: VolumeGrid | None) -> dict[str, str]:
    """What the rows of all kinds of lesions say."""
    return {
        "tracking_uid": lesion.tracking_uid,
        "certainty": lesion.certainty.value,
        "location": ", ".join(filter(None, (wording.place(lesion), wording.near_border(lesion)))),
        "diameter": f"{lesion.diameter_mm:.1f}",
        "probability": wording.probability(lesion),
        "at": grid.at(lesion.centroid_lps_mm) if grid else "",
    }


def _then(lesion: Lesion | None, change: ChangeOverTime | None) -> str:
    if lesion is None or change is None:
        return ""
    return f"{wording.name(lesion).lower()} of {wording.date(change.prior_study_date)}, {lesion.diameter_mm:.1f} mm"


def _others(
    kind: str,
    lesions: Iterable[PriorLesion | RejectedLesion],
    before: Mapping[str, Lesion],
    grid: VolumeGrid | None,
) -> Iterator[LesionRow]:
    """Microbleeds that are not counted: rejected, or no longer seen."""
    for n, lesion in enumerate(lesions, start=1):
        known = lesion if isinstance(lesion, RejectedLesion) else before.get(lesion.tracking_uid)
        yield LesionRow(
            key=f"{kind}-{n}",
            number=str(known.id) if known else "",
            trend="",
            then="",
            slice=str(grid.number_of(lesion.centroid_lps_mm)) if grid else labels.ABSENT,
            volume=labels.ABSENT,
            **_described(lesion, grid),
        )


def _comparison(findings: Findings, change: ChangeOverTime) -> ComparisonView:
    return ComparisonView(
        line=wording.changes(change),
        assessed=change.assessed,
        grade=wording.aria_h(change) if change.assessed else "",
        calm=change.aria_h in (None, "none"),
        flags=tuple(wording.flags(findings)),
    )
