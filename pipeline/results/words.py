"""What must every reader of a result be told, in words? The sentences that report and capture share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pipeline.findings import ChangeOverTime, Findings, Lesion, Origin, PriorLesion, RejectedLesion

from .common import RESEARCH_ONLY

SEQUENCE_CAVEAT: Final = "SWI shows more microbleeds than T2*-GRE; thresholds made on T2*-GRE do not carry over"
PATTERN_WORDS: Final = {
    "strictly lobar": "strictly lobar",
    "strictly deep": "strictly deep or infratentorial",
    "mixed": "mixed (lobar and deep or infratentorial)",
}
_LOCATIONS: Final = {"white matter": "deep white matter"}
_SHORT: Final = {"white matter": "deep WM"}  # the column of the capture has no room for more


Placed = Lesion | PriorLesion | RejectedLesion


def place(bleed: Placed, *, short: bool = False) -> str:
    """Side and location of `bleed`: ``left frontal``, in short ``L frontal``; empty when they were not assessed."""
    location = bleed.location or bleed.region or ""
    side = bleed.side if bleed.side in ("left", "right") else ""
    side = side[:1].upper() if short else side
    return f"{side} {(_SHORT if short else _LOCATIONS).get(location, location)}".strip()


def date(stored: str) -> str:
    """A DICOM date (DA) as ISO 8601 writes it; anything else as it is."""
    return f"{stored[:4]}-{stored[4:6]}-{stored[6:]}" if len(stored) == 8 and stored.isdigit() else stored


def counted(findings: Findings) -> str:
    """How many, and how sure."""
    counts = findings.counts
    noun = "microbleed" if counts["total"] == 1 else "microbleeds"
    return f"{counts['total']} cerebral {noun}: {counts['definite']} definite, {counts['possible']} possible"


def patterned(findings: Findings) -> str | None:
    """The pattern, and that of the definite bleeds alone where it is another."""
    summary = findings.summary
    words = PATTERN_WORDS.get(summary.pattern or "")
    if words is None:
        return None
    definite = summary.definite_pattern
    if definite in (summary.pattern, None):
        return f"Pattern: {words}"
    return f"Pattern: {words}; definite ones alone: {PATTERN_WORDS.get(definite, definite)}"


def changed(change: ChangeOverTime) -> str:
    """The comparison in one line."""
    since = f"since {date(change.prior_study_date)}" if change.prior_study_date else "since the earlier study"
    if not change.assessed:
        return f"Change {since} not assessed" + (f": {change.why}" if change.why else "")
    counts = [(change.new, "new"), (change.stable, "stable"), (len(change.no_longer_seen), "no longer seen")]
    counts += [(len(change.undecided), "undecided")] if change.undecided else []
    text = f"Change {since}: {', '.join(f'{n} {what}' for n, what in counts)}"
    return f"{text}. ARIA-H by new microbleeds: {change.aria_h}" if change.aria_h else text


def verified(findings: Findings) -> str | None:
    """Who stands behind the result, if anybody does."""
    verification = findings.verification
    if verification is None:
        return None
    for_whom = f", {verification.organisation}" if verification.organisation else ""
    family, _, given = verification.observer.partition("^")
    name = " ".join(f"{given.replace('^', ' ')} {family}".split())
    zone = "UTC" if not verification.at.utcoffset() else f"{verification.at:%z}"
    return f"Verified by {name}{for_whom}, {verification.at:%Y-%m-%d %H:%M} {zone}"


def not_assessed(findings: Findings) -> str:
    """What nobody looked for, or could be told."""
    return f"Not assessed: {', '.join(findings.summary.not_assessed)}"


def cautions(findings: Findings) -> list[str]:
    """What bears on how far to trust the result: flags first, then warnings."""
    change = findings.change
    return [*_sentences(change.flags if change else ()), *_sentences(findings.warnings)]


def caveats(findings: Findings) -> list[str]:
    """What is always to be kept in mind."""
    change = findings.change
    lines = [not_assessed(findings), SEQUENCE_CAVEAT]
    return [*lines, *(line for line in _sentences(change.caveats if change else ()) if line not in lines)]


def comments(findings: Findings) -> Iterator[str]:
    """All sentences of the report beyond its summary."""
    yield RESEARCH_ONLY
    yield verified(findings) or "Not verified by a person"
    if findings.verification is not None and findings.verification.comment:
        yield f"Comment of the verifying observer: {findings.verification.comment}"
    yield from cautions(findings)
    yield from _amended(findings)
    if findings.change is not None and findings.change.assessed:
        yield from _compared(findings.change)
    yield from caveats(findings)
    if findings.phase is not None:
        yield str(findings.phase)


def _amended(findings: Findings) -> Iterator[str]:
    for bleed in findings.rejected:
        yield f"Rejected by the verifying observer, not counted: microbleed {bleed.id} ({_described(bleed)})"
    added = [str(lesion.id) for lesion in findings.lesions if lesion.origin is Origin.ADDED]
    if added:
        yield f"Added by the verifying observer: microbleed {', '.join(added)}"


def _compared(change: ChangeOverTime) -> Iterator[str]:
    for bleed in change.no_longer_seen:
        yield f"No longer seen: {_described(bleed)}"
    for bleed in change.unclear:
        yield f"Not decided whether still there: {_described(bleed)}"
    if change.undecided:
        yield f"Not decided whether new: microbleed {', '.join(map(str, change.undecided))}"


def _described(bleed: Placed) -> str:
    return ", ".join(filter(None, (place(bleed), f"{bleed.diameter_mm:.1f} mm")))


def _sentences(texts: Sequence[str]) -> list[str]:
    return [text[:1].upper() + text[1:].rstrip(".") for text in texts]
