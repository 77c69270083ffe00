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
    (r"^Warning: .*/CONTAINER \(125007,DCM,\"Measurement Group\"\)/(NUM \(81827009,SCT,\"Diameter\"\)/)?"
     r"SCOORD(3D)? \(111010,DCM,\"Center\"\)[^:]*: Content Item not in template",
     "the centre is added to TID 1411 and 1419, which are extensible"),
    (r"^Warning: .*/CONTAINER \(126011,DCM,\"Derived Imaging Measurements\"\)/.*: Content Item not in template",
     "the groups of totals are added to TID 1500, which is extensible"),
    (r"^Warning: .*/CONTAINER \(RESULT_OBJECTS,99CMBNODE,\"Objects of this result\"\).*: Content Item not in template",
     "the names of the other objects of a result are added to TID 1500, which is extensible"),
    (r"^(Internal Error: |\s*Template 1420 .*|\s*: Concept Name CID is empty or missing - |\s*7465|\s*)$",
     "these rules lack CID 7465, and say so wherever there are derived measurements"),
    (r"^Error: .*: Code \(24590-2,LN,\"Brain MRI\"\) not found in context group 100",
     "CID 100 is extensible and has no code for MRI of the brain; this one is from CID 646"),
)  # fmt: skip

_PIXELMED_OPTIONS = (
    "-Djdk.xml.xpathTotalOpLimit=0 -Djdk.xml.xpathExprOpLimit=0 -Djdk.xml.xpathExprGrpLimit=0 "  # its rules are long
    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # a short run on a busy machine
)
_PIXELMED_CHATTER = re.compile(r"^(Picked up JAVA_TOOL_OPTIONS|Found .* IOD|IOD validation complete|$)")


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
    return _strict(lines)


def _strict(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line and not any(re.search(pattern, line) for pattern, _ in ALLOWED)]


def _run(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=280)
    return done.stdout + done.stderr
