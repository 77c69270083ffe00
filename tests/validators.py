"""What do other people's validators say about an object?

Each function returns complaints; an empty list is praise. Nothing is passed over but what :data:`ALLOWED` names, with
the reason.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pydicom

ALLOWED = (
    # dicom3tools
    (r"Warning - Attribute is not present in standard DICOM IOD - \(0x0018,0x1002\) UI Device UID",
     "Device UID in an item of Contributing Equipment Sequence is newer than dicom3tools 2022"),
    (r"Warning - Dicom dataset contains attributes not present in standard DICOM IOD", "follows from the line above"),
    (r"Warning - Different information entities for attribute - Element=<AccessionNumber> IE <Study> versus <Series>",
     "dicom3tools knows Accession Number as a series attribute of SR documents; the values agree"),
    (r"Warning - Missing attribute or value that would be needed to build DICOMDIR",
     "a matter of media, not of the object; seen where the images themselves lack the attribute"),
    (r"Warning - Unrecognized defined term <99CMBNODE> for value 1 of attribute <Coding Scheme Designator>",
     "defined terms may be extended; designators of private schemes begin with 99 (PS3.16 8.2), and this one is "
     "explained in Coding Scheme Identification Sequence"),
    # PixelMed
    (r"^Warning: .*Code \(121233,DCM,\"Source Image for Segmentation\"\) has different code meaning",
     "the standard has since capitalised this meaning"),
    (r"^Warning: .*/CONTAINER \(125007,DCM,\"Measurement Group\"\)/(TEXT|CODE) \((111001|111003|111002|111000),DCM,.*"
     r"Content Item not in template",
     "TID 1411 and 1501 include TID 4019; these rules look for it one level above"),
    (r"^Warning: .*/CONTAINER \(125007,DCM,\"Measurement Group\"\)/CODE \((111012,DCM|CHANGE,99CMBNODE),[^)]*\): "
     r"Content Item not in template", "qualitative evaluations of TID 1411 came after these rules"),
)  # fmt: skip

_PIXELMED_OPTIONS = (
    "-Djdk.xml.xpathTotalOpLimit=0 -Djdk.xml.xpathExprOpLimit=0 -Djdk.xml.xpathExprGrpLimit=0 "  # its rules are long
    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # a short run on a busy machine
)
_PIXELMED_CHATTER = re.compile(r"^(Picked up JAVA_TOOL_OPTIONS|Found .* IOD|IOD validation complete|$)")
_MISSING_ROI = re.compile(r"^Error: Template 1411 .*within 1\.(\d+)\.(\d+): .*: Missing conditional content item$")


def dciodvfy(path: Path) -> list[str]:
    """Complaints of dicom3tools about one object."""
    lines = _run(["dciodvfy", str(path)]).splitlines()
    return _strict(line for line in lines if line.startswith(("Error", "Warning")) or not line[:1].isupper())


def dcentvfy(paths: Iterable[Path]) -> list[str]:
    """Complaints of dicom3tools about the consistency of several objects."""
    return _strict(_run(["dcentvfy", *map(str, paths)]).splitlines())


def sr_validator(path: Path) -> list[str]:
    """Complaints of PixelMed's DicomSRValidator about a report by TID 1500."""
    lines = _run(["DicomSRValidator", str(path)], JAVA_TOOL_OPTIONS=_PIXELMED_OPTIONS).splitlines()
    if (
        "Found Root Template TID_1500 (MeasurementReport)" not in lines
        or "Root Template Validation Complete" not in lines
    ):
        return ["the validator did not come to an end", *lines]
    lines = [line for line in lines if not _PIXELMED_CHATTER.match(line) and "Root Template" not in line]
    return _strict(line for line in lines if not _is_total_taken_for_region(line, path))


def _is_total_taken_for_region(line: str, path: Path) -> bool:
    """The rules take every group for TID 1411 as soon as one is; true groups of TID 1501 then lack a region.

    (They count regions over all groups at once. TID 1500 lets both kinds stand side by side, rows 8 and 9.) Only groups
    that say they are TID 1501 are excused.
    """
    match = _MISSING_ROI.match(line)
    if not match:
        return False
    report = pydicom.dcmread(path)
    group = report.ContentSequence[int(match[1]) - 1].ContentSequence[int(match[2]) - 1]
    return bool(group.ContentTemplateSequence[0].TemplateIdentifier == "1501")


def _strict(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line and not any(re.search(pattern, line) for pattern, _ in ALLOWED)]


def _run(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=280)
    return done.stdout + done.stderr
