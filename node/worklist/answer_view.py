"""What did the analysis find, in a reader's words? The findings document becomes plain values for the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from node.worklist import words
from pipeline.summary import NEVER_ASSESSED, REGIONS, SIDES

Json = Mapping[str, Any]


@dataclass(frozen=True)
class RegionRow:
    """A row of the region and side table: counts as text, and the locations within the region."""

    name: str
    cells: tuple[str, ...]
    total: int
    detail: str


@dataclass(frozen=True)
class LesionRow:
    """A row of the lesion table, formatted. `key` names its pictures; `then` is the bleed of the earlier scan."""

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
    position: str


@dataclass(frozen=True)
class Comparison:
    """The change since an earlier scan, in words. `line` says it in one; without it `why` says why there is none."""

    line: str
    prior_uid: str
    prior_date: str
    aria_h: str
    flags: tuple[str, ...]
    caveats: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Answer:
    """What the analysis found, and what it rests on."""

    total: int
    definite: int
    possible: int
    burden: str
    pattern: str
    regions: tuple[RegionRow, ...]
    sides: tuple[str, ...]
    lesions: tuple[LesionRow, ...]
    gone: tuple[LesionRow, ...]
    rejected: tuple[LesionRow, ...]
    comparison: Comparison | None
    verified: str
    comment: str
    quality: tuple[str, ...]
    not_assessed: str
    profile: str
    software: str


def answer_of(findings: Json, slices: Mapping[str, int], prior: Json | None = None) -> Answer:
    """Format a findings document (schema cmb-findings/1); lesions in the order of a reader who scrolls.

    Parameters
    ----------
    findings : dict
        The document.
    slices : mapping of str to int
        What a PACS calls the slice of a lesion, by tracking UID.
    prior : dict, optional
        The findings that it was compared with.
    """
    counts, summary, change = findings["counts"], findings.get("summary") or {}, findings.get("change")
    before = {lesion["tracking_uid"]: lesion for lesion in (prior or {}).get("lesions", ())}
    date = words.dicom_date(change["prior_study_date"]) if change else ""
    lesions = sorted(findings["lesions"], key=lambda lesion: (slices.get(lesion["tracking_uid"], 0), lesion["id"]))
    undecided = "undecided" if change and change["assessed"] else ""
    sides, regions = _regions(summary.get("regions", ()))
    return Answer(
        total=counts["total"],
        definite=counts["definite"],
        possible=counts["possible"],
        burden=words.burden_words(summary.get("burden", "")),
        pattern=words.pattern_words(summary.get("pattern")),
        regions=regions,
        sides=sides,
        lesions=tuple(
            _lesion_row(str(one["id"]), one, slices, _then(before.get(one.get("prior_tracking_uid")), date), undecided)
            for one in lesions
        ),
        gone=tuple(_others("gone", (change or {}).get("no_longer_seen", ()), before)),
        rejected=tuple(_others("rejected", findings.get("rejected", ()), {})),
        comparison=_comparison(change, date, counts["total"]) if change else None,
        **_verification(findings.get("verification")),
        quality=tuple(_quality((findings.get("quality") or {}).get("measures") or {})),
        not_assessed=", ".join(summary.get("not_assessed", NEVER_ASSESSED)),
        profile=findings["profile"],
        software=findings["software"],
    )


def _regions(rows: Iterable[Json]) -> tuple[tuple[str, ...], tuple[RegionRow, ...]]:
    """The region and side table, as wide and as high as there is something to say."""
    rows = list(rows)
    sides = tuple(side for side in (*SIDES, None) if side in SIDES[:2] or any(row["side"] == side for row in rows))
    regions = [r for r in (*REGIONS, None) if r in REGIONS or any(row["region"] == r for row in rows)]
    made = []
    for region in regions:
        here = [row for row in rows if row["region"] == region]
        cells = tuple(_cell([row for row in here if row["side"] == side]) for side in sides)
        places: dict[str, int] = {}
        for row in here:
            if row["location"]:
                places[row["location"]] = places.get(row["location"], 0) + row["definite"] + row["possible"]
        detail = ", ".join(f"{place} {count}" for place, count in places.items())
        total = sum(row["definite"] + row["possible"] for row in here)
        made.append(RegionRow(region or "not located", cells, total, detail))
    return tuple(side or "not known" for side in sides), tuple(made)


def _cell(rows: Iterable[Json]) -> str:
    """``3 + 1`` is three definite and one possible."""
    rows = list(rows)
    definite, possible = sum(row["definite"] for row in rows), sum(row["possible"] for row in rows)
    return (f"{definite} + {possible}" if possible else str(definite)) if definite or possible else words.ABSENT


def _lesion_row(key: str, lesion: Json, slices: Mapping[str, int], then: str = "", undecided: str = "") -> LesionRow:
    added = lesion.get("origin") == "added"
    volume = lesion.get("volume_mm3")
    return LesionRow(
        key=key,
        number=str(lesion["id"]) if "id" in lesion else "",
        tracking_uid=lesion["tracking_uid"],
        certainty=lesion["certainty"],
        trend=lesion.get("trend") or undecided,
        then=then,
        location=words.place_words(lesion),
        slice=str(slices.get(lesion["tracking_uid"], words.ABSENT)),
        diameter=f"{lesion['diameter_mm']:.1f}",
        volume=words.ABSENT if volume is None else f"{volume:.1f}",
        probability="added by reader" if added else f"{lesion['probability']:.2f}",
        position=" ".join(f"{value:.0f}" for value in lesion["centroid_lps_mm"]),
    )


def _then(lesion: Json | None, date: str) -> str:
    return f"no. {lesion['id']} of {date}, {lesion['diameter_mm']:.1f} mm then" if lesion else ""


def _others(name: str, lesions: Iterable[Json], before: Mapping[str, Json]) -> Iterator[LesionRow]:
    """Bleeds that are not counted: rejected, or no longer seen."""
    for n, lesion in enumerate(lesions, start=1):
        known = before.get(lesion["tracking_uid"])
        yield _lesion_row(f"{name}-{n}", {**({"id": known["id"]} if known else {}), **lesion}, {})


def _comparison(change: Json, date: str, total: int) -> Comparison:
    new, stable, gone = change["new"], change["stable"], len(change["no_longer_seen"])
    rest = total - new - stable  # a candidate of the earlier scan, below its threshold, lies there
    line = f"{new} new, {stable} stable, {gone} no longer seen{f', {rest} undecided' if rest else ''} since {date}"
    return Comparison(
        line=line if change["assessed"] else "",
        prior_uid=change["prior_study_instance_uid"],
        prior_date=date,
        aria_h=change["aria_h"] or "",
        flags=tuple(change["flags"]),
        caveats=tuple(words.sentence(caveat) for caveat in change["caveats"]),
        why=change["why"],
    )


def _verification(verification: Json | None) -> dict[str, str]:
    if not verification:
        return {"verified": "", "comment": ""}
    who = f"{words.person_name(verification['observer'])}, {verification['organisation']}"
    return {"verified": f"{who}, {words.iso_clock(verification['at'])}", "comment": verification.get("comment", "")}


def _quality(measures: Json) -> Iterator[str]:
    """What was measured of the images, each in a few words."""
    in_plane, across = measures.get("in_plane_mm"), measures.get("slice_mm")
    if in_plane is not None and across is not None:
        yield f"{in_plane:.2g} mm in plane, {across:.2g} mm slices"
    if (coverage := measures.get("coverage")) is not None:
        yield f"{100 * coverage:.0f} % of the brain covered"
    if (snr := measures.get("snr")) is not None:
        yield f"SNR {snr:.0f}"
    if (motion := measures.get("motion")) is not None:
        yield f"motion {motion:.1f}"
