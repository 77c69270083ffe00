"""What does a result say, line by line, to those who read no DICOM? The same statements for HL7 and FHIR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from node.ledger.records import Json

RESEARCH_ONLY: Final = "RESEARCH USE ONLY - not a medical device"
SCHEME: Final = "99CMB"
"""Coding scheme of the node's own codes, a local one as HL7 table 0396 names it."""

_UNKNOWN: Final = "not assessed"
_PATTERNS: Final = {
    "strictly deep": "strictly deep or infratentorial",
    "mixed": "mixed (lobar and deep or infratentorial)",
}
_LOCATIONS: Final = {"white matter": "deep white matter"}
_SEQUENCE: Final = ("slice_mm", "in_plane_mm", "coverage", "snr", "motion")
_MEASURES: Final = {
    "slice_mm": ("Slice thickness", "mm"),
    "in_plane_mm": ("In-plane resolution", "mm"),
    "coverage": ("Share of the brain covered", ""),
    "snr": ("Signal to noise", ""),
    "motion": ("Motion (1: none)", ""),
}


@dataclass(frozen=True)
class Line:
    """One statement.

    Parameters
    ----------
    code, name : str
        What it is about, as a code of :data:`SCHEME` and in words.
    value : int, float or str
        A count, a measure, or text.
    unit : str
        UCUM; empty for text and pure numbers.
    part : str
        Keeps apart lines of the same code: ``lesion.3``.
    """

    code: str
    name: str
    value: int | float | str
    unit: str = ""
    part: str = ""


def lines(report: Json) -> list[Line]:
    """Every statement of a report (:mod:`node.report`), the most important first."""
    findings = report["findings"]
    return [
        Line("RESEARCH", "Intended use", RESEARCH_ONLY),
        Line("IMPRESSION", "Summary", impression(report)),
        Line("VERIFIED", "Verification", verification(findings)),
        *summary(findings),
        *change(findings),
        *_places(findings),
        *_lesions(findings),
        *_gone(findings),
        Line("NOT_ASSESSED", "Not assessed", not_assessed(findings)),
        *quality(findings),
        Line("METHOD", "Method", f"{findings.get('software', '')}, profile {findings.get('profile', '')}"),
    ]


def impression(report: Json) -> str:
    """The answer in two sentences."""
    findings = report["findings"]
    counts = findings["counts"]
    said = [f"{counted(counts['total'])}: {counts['definite']} definite, {counts['possible']} possible"]
    if not counts["total"]:
        said = ["No microbleed seen"]
    elif (told := _pattern(findings)) != _UNKNOWN:
        said.append(f"pattern {told}")
    text = "; ".join(said) + "."
    past = findings.get("change")
    if past and past["assessed"]:
        text += f" {comparison(past)}."
    return text


def comparison(past: Json) -> str:
    """The change over time in one sentence, without its full stop."""
    gone = len(past["no_longer_seen"])
    since = f"Since {date(past['prior_study_date'])}: {past['new']} new, {past['stable']} stable, {gone} no longer seen"
    if undecided := past.get("undecided"):
        since += f", {len(undecided)} undecided"
    grade = past.get("aria_h")
    return "; ".join([since, f"ARIA-H (microbleeds) {grade or _UNKNOWN}", *past.get("flags", [])])


def counted(number: int) -> str:
    """``1 microbleed``, ``5 microbleeds``."""
    return f"{number} microbleed{'' if number == 1 else 's'}"


def verification(findings: Json) -> str:
    """Whether a person stands behind it."""
    by = findings.get("verification")
    if not by:
        return "made by software; no person has verified it"
    who = ", ".join(filter(None, (reader(by), by.get("organisation"))))
    at = datetime.fromisoformat(by["at"]).isoformat(" ", "minutes")
    rejected = len(findings.get("rejected") or ())
    told = [f"verified by {who}, {at}"]
    if rejected:
        told.append(f"{rejected} mark{'' if rejected == 1 else 's'} of the software rejected")
    return "; ".join([*told, *filter(None, [by.get("comment")])])


def reader(verified: Json) -> str:
    """Name of the person who verified it, without the carets of a DICOM name."""
    return " ".join(str(verified["observer"]).replace("^", " ").split())


def summary(findings: Json) -> list[Line]:
    """Counts, burden and pattern."""
    counts, summed = findings["counts"], findings.get("summary") or {}
    return [
        Line("TOTAL", "Microbleeds", counts["total"]),
        Line("DEFINITE", "Definite microbleeds", counts["definite"]),
        Line("POSSIBLE", "Possible microbleeds", counts["possible"]),
        Line("BURDEN", "Burden of microbleeds", summed.get("burden") or _UNKNOWN),
        Line("PATTERN", "Pattern of microbleeds", _pattern(findings)),
    ]


def _pattern(findings: Json) -> str:
    told = (findings.get("summary") or {}).get("pattern") or _UNKNOWN
    return _PATTERNS.get(told, told)


def change(findings: Json) -> list[Line]:
    """The comparison with the earlier scan; one line says so when there is none."""
    past = findings.get("change")
    if not past:
        return [Line("CHANGE", "Change over time", "not assessed: no earlier study")]
    when = Line("PRIOR", "Compared with the study of", date(past["prior_study_date"]))
    if not past["assessed"]:
        return [when, Line("CHANGE", "Change over time", f"not assessed: {past['why']}".removesuffix(": "))]
    return [
        when,
        Line("NEW", "New microbleeds", past["new"]),
        Line("STABLE", "Stable microbleeds", past["stable"]),
        Line("GONE", "Microbleeds no longer seen", len(past["no_longer_seen"])),
        Line("ARIA_H", "ARIA-H, radiographic grade of new microbleeds", past.get("aria_h") or _UNKNOWN),
        *_open_questions(past),
        *_numbered("FLAG", "Threshold passed", past.get("flags") or ()),
        *_numbered("CAVEAT", "Caveat of the comparison", past.get("caveats") or ()),
    ]


def _open_questions(past: Json) -> Iterator[Line]:
    """What could not be told of the bleeds of either scan."""
    if undecided := past.get("undecided"):
        yield Line("UNDECIDED", "Not decided whether new", f"microbleed {', '.join(map(str, undecided))}")
    if unclear := past.get("unclear"):
        yield Line(
            "UNCLEAR", "Earlier microbleeds of which it is not decided whether they are still there", len(unclear)
        )


def _places(findings: Json) -> list[Line]:
    rows = (findings.get("summary") or {}).get("regions") or ()
    told = (f"{place(row)}: {row['definite']} definite, {row['possible']} possible" for row in rows)
    return list(_numbered("PLACE", "Microbleeds by place", told))


def _lesions(findings: Json) -> list[Line]:
    return [Line("LESION", "Microbleed", lesion(one), part=f"lesion.{one['id']}") for one in findings["lesions"]]


def _gone(findings: Json) -> Iterator[Line]:
    past = findings.get("change") or {}
    told = (f"{place(one)}, {one['diameter_mm']:.1f} mm then" for one in past.get("no_longer_seen") or ())
    return _numbered("GONE_LESION", "Microbleed no longer seen", told)


def lesion(one: Json) -> str:
    """One microbleed in a line."""
    said = [place(one), one["certainty"], f"{one['diameter_mm']:.1f} mm"]
    said.append("added by the reader" if added(one) else f"probability {one['probability']:.2f}")
    return f"{one['id']}: {', '.join([*said, *filter(None, [one.get('trend')])])}"


def added(one: Json) -> bool:
    """Whether a person added this bleed, so that its probability says nothing."""
    return one.get("origin") == "added"


def place(one: Json) -> str:
    """Where it lies: ``left frontal (lobar)``."""
    side, location = one.get("side"), one.get("location") or ""
    words = " ".join(filter(None, (side if side != "midline" else "", _LOCATIONS.get(location, location))))
    region = one.get("region")
    if not words:
        return region or "location not assessed"
    return f"{words} ({region})" if region else words


def quality(findings: Json) -> list[Line]:
    """What was measured of the images, and every warning."""
    given = findings.get("quality") or {}
    measures = given.get("measures") or {}
    told = [
        Line(f"QUALITY_{key.upper()}", _MEASURES[key][0], round(float(measures[key]), 2), _MEASURES[key][1])
        for key in _SEQUENCE
        if measures.get(key) is not None
    ]
    return [*told, *_numbered("WARNING", "Warning", given.get("warnings") or ())]


def not_assessed(findings: Json) -> str:
    """What nobody should take the result to say."""
    return ", ".join((findings.get("summary") or {}).get("not_assessed") or ("superficial siderosis", "macrobleeds"))


def _numbered(code: str, name: str, values: Any) -> Iterator[Line]:
    for number, value in enumerate(values, 1):
        yield Line(code, name, value, part=f"{code.lower()}.{number}")


def date(value: str) -> str:
    """A DICOM date (``20261121``) as ``2026-11-21``; anything else as it is, or that it is not known."""
    text = value.strip()
    if len(text) == 8 and text.isascii() and text.isdigit():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text or "unknown date"
