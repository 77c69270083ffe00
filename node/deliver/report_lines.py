"""What does a result say, line by line, to those who read no DICOM? The same coded lines for HL7 and FHIR."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pipeline.findings import ChangeOverTime, Findings, Lesion, wording

SCHEME: Final = "99CMB"
"""Coding scheme of the node's own codes, a local one as HL7 table 0396 names it."""


@dataclass(frozen=True)
class ReportLine:
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


def lines(findings: Findings) -> list[ReportLine]:
    """Every statement of a result, the most important first."""
    return [
        ReportLine("RESEARCH", "Intended use", wording.RESEARCH_ONLY),
        ReportLine("IMPRESSION", "Summary", wording.impression(findings)),
        ReportLine("VERIFIED", "Verification", verification(findings)),
        *summary(findings),
        *change(findings),
        *_numbered("PLACE", "Microbleeds by place", map(wording.place_count, findings.summary.regions)),
        *(_lesion(lesion, findings.change) for lesion in findings.lesions),
        *_no_longer_seen(findings.change),
        ReportLine("NOT_ASSESSED", "Not assessed", ", ".join(findings.summary.not_assessed)),
        *quality(findings),
        ReportLine("METHOD", "Method", f"{findings.software}, profile {findings.profile}"),
    ]


def verification(findings: Findings) -> str:
    """Who stands behind the result, what they changed, and their comment."""
    comment = findings.verification.comment if findings.verification else ""
    return "; ".join(filter(None, (wording.verification(findings), wording.corrections(findings), comment)))


def summary(findings: Findings) -> list[ReportLine]:
    """Counts, burden and pattern."""
    counts = findings.counts
    return [
        ReportLine("TOTAL", "Microbleeds", counts["total"]),
        ReportLine("DEFINITE", "Definite microbleeds", counts["definite"]),
        ReportLine("POSSIBLE", "Possible microbleeds", counts["possible"]),
        ReportLine("BURDEN", "Burden of microbleeds", findings.summary.burden),
        ReportLine("PATTERN", "Pattern of microbleeds", wording.pattern(findings.summary.pattern)),
    ]


def change(findings: Findings) -> list[ReportLine]:
    """The comparison with the prior study; one line says so when there is none."""
    compared = findings.change
    said = ReportLine("CHANGE", "Change over time", wording.changes(compared))
    if compared is None:
        return [said]
    prior = ReportLine("PRIOR", "Date of the prior study", wording.date(compared.prior_study_date) or "unknown")
    if not compared.assessed:
        return [prior, said]
    return [
        prior,
        said,
        ReportLine("NEW", "New microbleeds", compared.new),
        ReportLine("STABLE", "Stable microbleeds", compared.stable),
        ReportLine("GONE", "Microbleeds no longer seen", len(compared.no_longer_seen)),
        ReportLine("ARIA_H", "ARIA-H, radiographic grade of new microbleeds", compared.aria_h or wording.NOT_ASSESSED),
        *_undecided(compared),
        *_numbered("FLAG", "Threshold passed", wording.flags(findings)),
    ]


def _undecided(compared: ChangeOverTime) -> Iterator[ReportLine]:
    """Which microbleeds of either study the comparison leaves undecided."""
    if compared.undecided:
        numbers = f"microbleed {', '.join(map(str, compared.undecided))}"
        yield ReportLine("UNDECIDED", "Undecided whether new", numbers)
    if compared.unclear:
        yield ReportLine(
            "UNCLEAR", "Microbleeds of the prior study, undecided whether still present", len(compared.unclear)
        )


def _lesion(lesion: Lesion, compared: ChangeOverTime | None) -> ReportLine:
    said = f"{lesion.id}: {wording.lesion_line(lesion, compared)}"
    return ReportLine("LESION", "Microbleed", said, part=f"lesion.{lesion.id}")


def _no_longer_seen(compared: ChangeOverTime | None) -> Iterator[ReportLine]:
    gone = compared.no_longer_seen if compared else ()
    return _numbered("GONE_LESION", "Microbleed no longer seen", map(wording.outline, gone))


def quality(findings: Findings) -> list[ReportLine]:
    """What was measured of the images, and what to keep in mind: warnings and caveats."""
    measures = wording.quality(findings.image_quality)
    return [
        *(ReportLine(f"QUALITY_{one.key.upper()}", one.name, one.value, one.unit) for one in measures),
        *_numbered("WARNING", "Warning", wording.warnings(findings)),
        *_numbered("CAVEAT", "Caveat", wording.caveats(findings)),
    ]


def _numbered(code: str, name: str, values: Iterable[str]) -> Iterator[ReportLine]:
    for number, value in enumerate(values, 1):
        yield ReportLine(code, name, value, part=f"{code.lower()}.{number}")
