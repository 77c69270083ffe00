"""How does a report read in HL7? An ORU^R01 of version 2.5.1, in the manner of IHE Radiology's Results Distribution."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import datetime
from typing import Final

import hl7

from node.ledger.records import Json
from node.settings.destinations import Hl7Destination
from pipeline.findings import Findings, Verification, read_findings

from .report_lines import SCHEME, ReportLine, lines

STATUS: Final = {"preliminary": "P", "final": "F", "corrected": "C"}  # HL7 tables 0085 and 0123
CONTROL_ID_LENGTH: Final = 20  # MSH-10 of version 2.5.1

_SEPARATORS: Final = "\r|~^&"
_SHORTHAND: Final = {"|": "F", "~": "R", "^": "S", "&": "T", "\\": "E"}  # HL7 2.5.1, 2.7
_NAMES: Final = (("A", "alphabetic"), ("I", "ideographic"), ("P", "phonetic"))  # table 0465; order of PN's groups
_SEXES: Final = ("M", "F", "O")
_EMPTY: Final = ""

Component = str | tuple[str, ...]
Value = str | tuple[Component, ...] | list[tuple[Component, ...]]
"""A field: text, its components (each with subcomponents if it is a tuple), or a list of repetitions."""


def control_id(report: Json) -> str:
    """Message control ID (MSH-10): the same for the same job, another for any other."""
    job = report["job"]
    digest = hashlib.sha256(f"{job['key']}|{job['id']}".encode()).digest()
    return base64.b32encode(digest).decode()[:CONTROL_ID_LENGTH]


def oru(report: Json, settings: Hl7Destination) -> hl7.Message:
    """Make the message of a report (:mod:`node.deliver.report`); the same report makes the same one."""
    study, status = report["study"], STATUS[report["status"]]
    findings = read_findings(report["findings"])
    statements = [*lines(findings), *_objects(report)]
    segments = [
        _header(report, settings),
        _patient(study, settings),
        _segment("PV1", {1: "1", 2: "U", 8: _person(study["referring_physician"])}),
        _segment("ORC", {1: "RE", 3: _order(study)}),
        _request(report, findings.verification, settings),
        *(_observation(number, line, study, findings, status) for number, line in enumerate(statements, 1)),
    ]
    return hl7.Message("\r", segments, separators=_SEPARATORS)


def escape(text: str) -> str:
    r"""Escape what separates fields, and control characters; a line break becomes ``\.br\`` (HL7 2.5.1, 2.7).

    Other characters stay: the message is UTF-8. (The escaping of `hl7` writes them as ``\X..\``, and those beyond
    U+00FF in a way that cannot be read back.)
    """
    text = re.sub(r"\r\n?|\n", "\r", text)
    return "".join(map(_escaped, text.encode("utf-8", "replace").decode()))


def _escaped(character: str) -> str:
    if character == "\r":
        return "\\.br\\"
    if character in _SHORTHAND:
        return f"\\{_SHORTHAND[character]}\\"
    if ord(character) < 0x20 or ord(character) == 0x7F:
        return f"\\X{ord(character):02X}\\"
    return character


def _segment(name: str, fields: dict[int, Value]) -> hl7.Segment:
    """A segment from its fields by number; what is not named is empty."""
    last = max(fields)
    written = [_field(fields.get(number, _EMPTY)) for number in range(1, last + 1)]
    return hl7.Segment("|", [hl7.Field("~", [name], separators=_SEPARATORS), *written], separators=_SEPARATORS)


def _field(value: Value) -> hl7.Field:
    if isinstance(value, str):
        return hl7.Field("~", [escape(value)], separators=_SEPARATORS)
    repetitions = value if isinstance(value, list) else [value]
    return hl7.Field("~", [_repetition(one) for one in repetitions], separators=_SEPARATORS)


def _repetition(components: tuple[Component, ...]) -> hl7.Repetition:
    parts = [(one,) if isinstance(one, str) else one for one in components]
    written = [hl7.Component("&", [escape(text) for text in part], separators=_SEPARATORS) for part in parts]
    return hl7.Repetition("^", written, separators=_SEPARATORS)


def _header(report: Json, settings: Hl7Destination) -> hl7.Segment:
    fields: dict[int, Value] = {
        3: settings.sending_application,
        4: settings.sending_facility,
        5: settings.receiving_application,
        6: settings.receiving_facility,
        7: timestamp(report["issued"]),
        9: ("ORU", "R01", "ORU_R01"),
        10: control_id(report),
        11: settings.processing_id,
        12: "2.5.1",
        18: "UNICODE UTF-8",
    }
    segment = _segment("MSH", fields)
    segment[1], segment[2] = hl7.Field("", ["|"]), hl7.Field("", ["^~\\&"])
    return segment


def _patient(study: Json, settings: Hl7Destination) -> hl7.Segment:
    sex = study["patient_sex"].strip().upper()
    authority = settings.assigning_authority or study.get("issuer_of_patient_id", "")
    fields: dict[int, Value] = {
        1: "1",
        3: (study["patient_id"], "", "", authority, "PI") if study["patient_id"] else "",
        5: _names(study["patient_name"]),
        7: _digits(study["patient_birth_date"], 8),
        8: sex if sex in _SEXES else "U",
    }
    return _segment("PID", fields)


def _names(name: str) -> list[tuple[Component, ...]]:
    """XPN from PN: a repetition for each group that is there; prefix and suffix change places (PS3.5 6.2.1)."""
    groups = zip(name.split("=", 2), _NAMES, strict=False)
    told: list[tuple[Component, ...]] = [
        (*_parts(group), "", "L", representation) for group, (representation, _) in groups if group
    ]
    return told or [("",)]


def _parts(group: str) -> tuple[str, str, str, str, str]:
    """Family, given, second and further names, suffix, prefix of one group of a PN."""
    family, given, middle, prefix, suffix = (group.split("^", 4) + [""] * 4)[:5]
    return family, given, middle, suffix, prefix


def _person(name: str) -> Value:
    """XCN without an identifier from PN."""
    group = name.split("=", 1)[0]
    return ("", *_parts(group)) if group else ""


def _order(study: Json) -> str:
    """The filler order number: the accession number; a study without one is named by its UID."""
    return study["accession_number"] or study["study_instance_uid"]


def _request(report: Json, verified: Verification | None, settings: Hl7Destination) -> hl7.Segment:
    study = report["study"]
    fields: dict[int, Value] = {
        1: "1",
        3: _order(study),
        4: settings.service,
        7: study_time(study),
        16: _person(study["referring_physician"]),
        18: study["accession_number"],  # as IHE Radiology has it
        22: timestamp(verified.at.isoformat() if verified else report["issued"]),
        24: "RAD",
        25: STATUS[report["status"]],
    }
    if verified:
        fields[32] = (("", *_parts(verified.observer.split("=", 1)[0])),)
    return _segment("OBR", fields)


def _observation(number: int, line: ReportLine, study: Json, findings: Findings, status: str) -> hl7.Segment:
    scheme = "DCM" if line.code.isdigit() else SCHEME
    fields: dict[int, Value] = {
        1: str(number),
        2: _type(line.value),
        3: (line.code, line.name, scheme),
        4: line.part,
        5: str(line.value),
        6: (line.unit, line.unit, "UCUM") if line.unit else "",
        11: status,
        14: study_time(study),
    }
    if findings.verification:
        fields[16] = _person(findings.verification.observer)
    return _segment("OBX", fields)


def _type(value: float | str) -> str:
    """Numeric, or text of a line, or longer text (2.5.1: a string has at most 199 characters)."""
    if not isinstance(value, str):
        return "NM"
    return "ST" if len(value) < 200 and "\n" not in value and "\r" not in value else "TX"


def _objects(report: Json) -> list[ReportLine]:
    """Where the result lies in the PACS."""
    study = ReportLine("110180", "Study Instance UID", report["study"]["study_instance_uid"])
    found = {one["kind"]: one["sop_instance_uid"] for one in report["objects"]}
    return [study, *([ReportLine("SR_UID", "SR Instance UID", found["sr"])] if "sr" in found else [])]


def timestamp(iso: str) -> str:
    """A time with its zone as HL7 writes it: ``20260301090000+0100``."""
    return datetime.fromisoformat(iso).strftime("%Y%m%d%H%M%S%z")[:19]


def study_time(study: Json) -> str:
    """Date and time of the study as the scanner told them, without a zone."""
    day = _digits(study["study_date"], 8)
    return day + (_digits(study["study_time"], 6) if len(day) == 8 else "")


def _digits(value: str, most: int) -> str:
    match = re.match(r"[0-9]+", value.strip().replace(":", ""))
    digits = match.group()[:most] if match else ""
    return digits[: len(digits) // 2 * 2]
