"""How is each statement of a result worded? Report, capture, HL7, FHIR, page and terminal only lay these words out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from .document import Findings
from .summary import CountedPlace, PlaceCount
from .types import ChangeOverTime, ImageQuality, Lesion, LesionOrigin, PriorLesion, RejectedLesion

RESEARCH_ONLY: Final = "RESEARCH USE ONLY - not a medical device"
NOT_ASSESSED: Final = "not assessed"
UNDECIDED: Final = "undecided"
ADDED: Final = "added by the reader"
OUTSIDE_RANGE: Final = "outside the intended range"
COVER: Final = "the slices cover"
END_INSIDE: Final = "the slices end inside the brain"
OUT_OF_RANGE: Final = "is outside the range of"
NOISY: Final = "the images are noisy"
MOTION: Final = "signs of motion"
"""In warnings about the images (:mod:`pipeline.quality`); :func:`limits` knows those of stored results by them, too."""
NEAR_BORDER_MM: Final = 3.0
"""Registration to the atlas errs by 2 to 3 mm, so nearer than this the region may be the other one."""
SEQUENCE_CAVEAT: Final = "SWI shows more microbleeds than T2*-GRE; thresholds derived on T2*-GRE do not carry over"

_PATTERNS: Final = {
    "strictly deep": "strictly deep or infratentorial",
    "mixed": "mixed (lobar and deep or infratentorial)",
}
_LOCATIONS: Final = {"white matter": "deep white matter"}
_ABBREVIATIONS: Final = {"white matter": "deep WM", "left": "L", "right": "R", "midline": "mid"}

Located = Lesion | PriorLesion | RejectedLesion | CountedPlace


def person_name(name: str) -> str:
    """A DICOM person name (PS3.5 6.2.1) as people write it: ``Doe^Jane^^Dr`` becomes ``Dr Jane Doe``.

    An ideographic form follows in brackets, the family name first.
    """
    western, ideographic, *_ = [
        [" ".join(part.split()) for part in group.split("^")] for group in [*name.split("="), ""]
    ]
    family, given, middle, prefix, suffix, *rest = [*western, "", "", "", ""]
    written = [" ".join(filter(None, parts)) for parts in ((prefix, given, middle, family, suffix, *rest), ideographic)]
    first, *others = [*filter(None, written), ""]
    return f"{first} ({others[0]})" if len(others) > 1 else first


def date(stored: str) -> str:
    """A DICOM date (``20261126``, or ``2026.11.26`` of old) as ``2026-11-26``; anything else as it is."""
    text = stored.strip()
    digits = text.replace(".", "")
    if len(digits) == 8 and digits.isascii() and digits.isdigit():
        return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
    return text


def moment(at: datetime) -> str:
    """A point in time with its zone: ``2026-11-26 14:05 UTC+01:00``."""
    zone = at.isoformat()[-6:] if at.utcoffset() else ""
    return f"{at:%Y-%m-%d %H:%M} UTC{zone}"


def sentence(text: str) -> str:
    """`text` with a capital letter first and no full stop."""
    return text[:1].upper() + text[1:].rstrip(".")


def counts(findings: Findings) -> str:
    """How many, and how certain."""
    return count_line(findings.counts["definite"], findings.counts["possible"])


def count_line(definite: int, possible: int) -> str:
    """``5 cerebral microbleeds: 4 definite, 1 possible``."""
    total = definite + possible
    if not total:
        return "No cerebral microbleeds found"
    return f"{total} cerebral microbleed{'' if total == 1 else 's'}: {certainties(definite, possible)}"


def certainties(definite: int, possible: int) -> str:
    """``4 definite, 1 possible``."""
    return f"{definite} definite, {possible} possible"


def pattern(name: str | None) -> str:
    """A pattern of :class:`~pipeline.findings.summary.FindingsSummary`: what counts as deep is said."""
    return NOT_ASSESSED if name is None else _PATTERNS.get(name, name)


def pattern_line(findings: Findings) -> str:
    """The pattern of all microbleeds, and that of the definite ones alone if it differs."""
    summary = findings.summary
    line = f"Pattern: {pattern(summary.pattern)}"
    if summary.definite_pattern in (summary.pattern, None):
        return line
    return f"{line}; definite ones alone: {pattern(summary.definite_pattern)}"


def place(one: Located, *, short: bool = False) -> str:
    """Where it lies: ``left frontal (lobar)``; `short` for a narrow column: ``L frontal``."""
    side, location = one.side or "", one.location or one.region or ""
    if not location:
        return NOT_ASSESSED if short else "location not assessed"
    if short:
        return " ".join(filter(None, (_ABBREVIATIONS.get(side, side), _ABBREVIATIONS.get(location, location))))
    words = " ".join(filter(None, (side, anatomical_location(location))))
    return f"{words} ({one.region})" if one.region and one.region not in words else words


def anatomical_location(location: str) -> str:
    """The location alone: ``deep white matter``."""
    return _LOCATIONS.get(location, location)


def near_border(lesion: Lesion | PriorLesion | RejectedLesion) -> str:
    """``near the border to deep``; empty where the main region is not in doubt, or the microbleed is not of now."""
    if not isinstance(lesion, Lesion) or lesion.border_mm is None or lesion.border_mm >= NEAR_BORDER_MM:
        return ""
    return f"near the border to {lesion.beyond}"


def place_count(row: PlaceCount) -> str:
    """One row of the region and side table."""
    return f"{place(row.place)}: {certainties(row.definite, row.possible)}"


def name(lesion: Lesion | RejectedLesion) -> str:
    """What report, segmentation and page call a microbleed."""
    return f"Microbleed {lesion.id}"


def outline(lesion: Lesion | PriorLesion | RejectedLesion) -> str:
    """Place and size: ``right thalamus (deep), 2.2 mm``."""
    return f"{place(lesion)}, {lesion.diameter_mm:.1f} mm"


def stated_probability(lesion: Lesion | PriorLesion | RejectedLesion) -> float:
    """The probability as a number of a report: to three decimals, and never 1, because no detector is certain."""
    return min(round(lesion.probability, 3), 0.999)


def probability(lesion: Lesion | PriorLesion | RejectedLesion) -> str:
    """The detector's probability, or that a reader added the microbleed, which then has none."""
    if isinstance(lesion, Lesion) and lesion.origin is LesionOrigin.ADDED:
        return ADDED
    if lesion.probability >= 0.995:
        return "> 0.99"  # no detector is certain
    return "< 0.01" if lesion.probability < 0.005 else f"{lesion.probability:.2f}"


def trend(lesion: Lesion, change: ChangeOverTime | None) -> str:
    """``new``, ``stable`` or ``undecided``; empty if nothing was compared."""
    if lesion.trend is not None:
        return lesion.trend.value
    return UNDECIDED if change is not None and change.assessed else ""


def lesion_line(lesion: Lesion | RejectedLesion, change: ChangeOverTime | None = None) -> str:
    """One microbleed in a line: ``left frontal (lobar), definite, 4.2 mm, probability 0.93, new``."""
    said = probability(lesion)
    parts = [place(lesion), near_border(lesion), lesion.certainty.value, f"{lesion.diameter_mm:.1f} mm"]
    parts.append(said if said == ADDED else f"probability {said}")
    return ", ".join(filter(None, (*parts, trend(lesion, change) if isinstance(lesion, Lesion) else "")))


def since(change: ChangeOverTime) -> str:
    """Which study the present one is compared with."""
    return f"since {date(change.prior_study_date) or 'the prior study'}"


def changes(change: ChangeOverTime | None) -> str:
    """The comparison with the prior study in one line."""
    if change is None:
        return "Change over time not assessed: no prior study"
    if not change.assessed:
        return f"Change {since(change)} not assessed" + (f": {change.why}" if change.why else "")
    numbers = [(change.new, "new"), (change.stable, "stable"), (len(change.no_longer_seen), "no longer seen")]
    numbers += [(len(change.undecided), UNDECIDED)] if change.undecided else []
    return f"Change {since(change)}: {', '.join(f'{number} {what}' for number, what in numbers)}"


def aria_h(change: ChangeOverTime) -> str:
    """The radiographic grade."""
    return f"ARIA-H by new microbleeds: {change.aria_h or NOT_ASSESSED}"


def flags(findings: Findings) -> list[str]:
    """The thresholds that were passed."""
    return [sentence(text) for text in (findings.change.flags if findings.change else ())]


def impression(findings: Findings) -> str:
    """The answer in a few sentences."""
    lines = [counts(findings)]
    if findings.lesions:
        lines.append(pattern_line(findings))
    change = findings.change
    if change is not None:
        lines.append(changes(change))
        lines += [aria_h(change)] if change.assessed else []
    return " ".join(f"{line}." for line in (*lines, *flags(findings)))


def reader(findings: Findings) -> str:
    """Name of the person who verified the result; empty if nobody did."""
    return person_name(findings.verification.observer) if findings.verification else ""


def verification(findings: Findings) -> str:
    """Whether a person stands behind the result: who, for which organisation, when."""
    verified = findings.verification
    if verified is None:
        return "Not verified by a reader"
    who = ", ".join(filter(None, (reader(findings), verified.organisation)))
    return f"Verified by {who}, {moment(verified.at)}"


def corrections(findings: Findings) -> str:
    """How many findings the reader rejected and added; empty if none."""
    added = sum(lesion.origin is LesionOrigin.ADDED for lesion in findings.lesions)
    numbers = ((len(findings.rejected), "rejected by the reader"), (added, ADDED))
    return ", ".join(f"{number} {what}" for number, what in numbers if number)


def not_assessed(findings: Findings) -> str:
    """What the result says nothing about."""
    return f"Not assessed: {', '.join(findings.summary.not_assessed)}"


def limits(said: Iterable[str], *, coverage: float | None, phase: bool, located: bool) -> list[str]:
    """What limits a result, in a few words for a list: ``39 % of the brain``, ``no phase``.

    Parameters
    ----------
    said : iterable of str
        The warnings of the result.
    coverage : float or None
        Share of the brain inside the slices.
    phase, located : bool
        Whether there is a phase, and whether locations were assessed.
    """
    text = "\n".join(said)
    part = "part of the brain" if coverage is None else f"{100 * coverage:.0f} % of the brain"
    rows = (
        (part, COVER in text or END_INSIDE in text),
        ("no phase", not phase),
        (OUTSIDE_RANGE, OUT_OF_RANGE in text),
        ("location not assessed", not located),
        ("noisy", NOISY in text),
        ("motion", MOTION in text),
    )
    return [words for words, holds in rows if holds]


def warnings(findings: Findings) -> list[str]:
    """What bears on how far to trust this result."""
    return [sentence(text) for text in findings.warnings]


def caveats(findings: Findings) -> list[str]:
    """What is always to be kept in mind, and what limits the comparison."""
    limits = map(sentence, findings.change.caveats if findings.change else ())
    return list(dict.fromkeys((SEQUENCE_CAVEAT, *limits)))


def remarks(findings: Findings) -> Iterable[str]:
    """What a report says beyond its summary and its measurements."""
    verified = findings.verification
    yield RESEARCH_ONLY
    yield verification(findings)
    if verified is not None and verified.comment:
        yield f"Reader's comment: {verified.comment}"
    yield from warnings(findings)
    for rejected in findings.rejected:
        yield f"Rejected by the reader, not counted: {name(rejected).lower()}, {outline(rejected)}"
    added = [str(lesion.id) for lesion in findings.lesions if lesion.origin is LesionOrigin.ADDED]
    if added:
        yield f"Added by the reader: microbleed {', '.join(added)}"
    yield from borders(findings)
    if findings.change is not None and findings.change.assessed:
        yield from open_questions(findings.change)
    yield not_assessed(findings)
    yield from caveats(findings)
    if findings.phase is not None:
        yield str(findings.phase)


def borders(findings: Findings) -> Iterable[str]:
    """The microbleeds whose main region may be the neighbouring one."""
    said = [(lesion, near_border(lesion)) for lesion in findings.lesions]
    if near := [f"{lesion.id} ({lesion.region}, {border})" for lesion, border in said if border]:
        yield f"Main region uncertain within {NEAR_BORDER_MM:.0f} mm of its border: microbleed {', '.join(near)}"


def open_questions(change: ChangeOverTime) -> Iterable[str]:
    """What was seen before and is not now, and what the comparison leaves undecided."""
    for lesion in change.no_longer_seen:
        yield f"No longer seen: {outline(lesion)}"
    for lesion in change.unclear:
        yield f"Undecided whether still present: {outline(lesion)}"
    if change.undecided:
        yield f"Undecided whether new: microbleed {', '.join(map(str, change.undecided))}"


@dataclass(frozen=True)
class QualityMeasure:
    """One measure of the images. `key` is its name in ``findings.json``; `unit` is UCUM, empty for a pure number."""

    key: str
    name: str
    value: float
    unit: str
    text: str


def quality(images: ImageQuality | None) -> list[QualityMeasure]:
    """What was measured of the images, the resolution first."""
    if images is None:
        return []
    share = images.coverage
    rows = (
        ("slice_mm", "Spacing between slices", images.slice_mm, "mm", f"{images.slice_mm or 0:.2g} mm"),
        ("in_plane_mm", "In-plane voxel size", images.in_plane_mm, "mm", f"{images.in_plane_mm or 0:.2g} mm"),
        ("coverage", "Share of the brain inside the slices", share, "", f"{100 * (share or 0):.0f} %"),
        ("snr", "Signal-to-noise ratio", images.snr, "", f"{images.snr or 0:.0f}"),
        ("motion", "Energy of ghosts over background", images.motion, "", f"{images.motion or 0:.1f}"),
    )
    return [
        QualityMeasure(key, title, round(value, 2), unit, f"{title} {text}")
        for key, title, value, unit, text in rows
        if value is not None
    ]
