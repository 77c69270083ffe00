"""What does an audit message look like? XML by the DICOM audit message schema (PS3.15 A.5.1)."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may have, not even escaped (XML 1.0, 2.2)."""


class Code(NamedTuple):
    """A coded value."""

    value: str
    meaning: str
    system: str = "DCM"


class Action(StrEnum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(StrEnum):
    """EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


APPLICATION = Code("110150", "Application")
DESTINATION = Code("110152", "Destination Role ID")
SOURCE = Code("110153", "Source Role ID")
DESTINATION_MEDIA = Code("110154", "Destination Media")
URI_MEDIA = Code("110037", "URI")

STUDY_UID = Code("110180", "Study Instance UID")
SOP_CLASS_UID = Code("110181", "SOP Class UID")
NODE_ID = Code("110182", "Node ID")
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
SEARCH_CRITERIA = Code("10", "Search Criteria", "RFC-3881")
URI = Code("12", "URI", "RFC-3881")

UNKNOWN = "unknown"
"""Where the schema requires an identifier, and there is none."""


@dataclass(frozen=True)
class Participant:
    """A person or process that took part.

    Parameters
    ----------
    user_id : str
        Name of the user, or of the process.
    ae_title : str
        Of a DICOM application.
    address : str
        Its IP address, host name or URL.
    media : Code, optional
        What kind of medium a *destination media* is.
    """

    user_id: str
    is_requestor: bool = False
    role: Code | None = None
    ae_title: str = ""
    address: str = ""
    media: Code | None = None

    def add_to(self, message: Element) -> None:
        """Write it into a message."""
        element = SubElement(message, "ActiveParticipant", UserID=_text(self.user_id or UNKNOWN))
        if self.ae_title:
            element.set("AlternativeUserID", f"AETITLES={_text(self.ae_title)}")
        element.set("UserIsRequestor", str(self.is_requestor).lower())
        if self.address:
            element.set("NetworkAccessPointID", _text(self.address))
            element.set("NetworkAccessPointTypeCode", _kind_of_address(self.address))
        if self.role is not None:
            _add_code(element, "RoleIDCode", self.role)
        if self.media is not None:
            _add_code(SubElement(element, "MediaIdentifier"), "MediaType", self.media)


@dataclass(frozen=True)
class ParticipantObject:
    """What it was about: a patient, a study, a query, ...

    Parameters
    ----------
    kind, role : str
        ParticipantObjectTypeCode and ParticipantObjectTypeCodeRole.
    id_type : Code
        What `id` is.
    query : bytes, optional
        The query, instead of a name.
    details : dict
        Further values by their type.
    sop_classes : tuple
        SOP Class UID, number of instances, and UIDs of instances.
    """

    id: str
    id_type: Code
    kind: str
    role: str
    name: str = ""
    query: bytes | None = None
    details: dict[str, bytes] = field(default_factory=dict)
    sop_classes: tuple[tuple[str, int, tuple[str, ...]], ...] = ()

    def add_to(self, message: Element) -> None:
        """Write it into a message."""
        element = SubElement(
            message,
            "ParticipantObjectIdentification",
            ParticipantObjectID=_text(self.id or UNKNOWN),
            ParticipantObjectTypeCode=self.kind,
            ParticipantObjectTypeCodeRole=self.role,
        )
        _add_code(element, "ParticipantObjectIDTypeCode", self.id_type)
        if self.query is None:
            SubElement(element, "ParticipantObjectName").text = _text(self.name)  # the schema requires one of the two
        else:
            SubElement(element, "ParticipantObjectQuery").text = b64encode(self.query).decode()
        for kind, value in self.details.items():
            SubElement(element, "ParticipantObjectDetail", type=kind, value=b64encode(value).decode())
        if self.sop_classes:
            description = SubElement(element, "ParticipantObjectDescription")
            for uid, number, instances in self.sop_classes:
                sop_class = SubElement(description, "SOPClass", UID=_text(uid), NumberOfInstances=str(number))
                for instance in instances:
                    SubElement(sop_class, "Instance", UID=_text(instance))


def patient(patient_id: str) -> ParticipantObject:
    """The patient, by the Patient ID only: the name is optional, and is left out."""
    return ParticipantObject(patient_id, PATIENT_NUMBER, kind="1", role="1")


def study(uid: str, *sop_classes: tuple[str, int, tuple[str, ...]]) -> ParticipantObject:
    """A study, and which of its objects it is about."""
    return ParticipantObject(uid, STUDY_UID, kind="2", role="3", sop_classes=sop_classes)


@dataclass(frozen=True)
class AuditMessage:
    """One event.

    Parameters
    ----------
    event, type : Code
        EventID and EventTypeCode.
    description : str
        EventOutcomeDescription.
    """

    event: Code
    action: Action
    at: datetime
    participants: tuple[Participant, ...]
    objects: tuple[ParticipantObject, ...] = ()
    type: Code | None = None
    outcome: Outcome = Outcome.SUCCESS
    description: str = ""

    def to_xml(self, source_id: str, site_id: str | None = None) -> bytes:
        """The message as the repository gets it.

        Parameters
        ----------
        source_id, site_id : str
            AuditSourceID and AuditEnterpriseSiteID.
        """
        message = Element("AuditMessage")
        event = SubElement(
            message,
            "EventIdentification",
            EventActionCode=self.action.value,
            EventDateTime=self.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            EventOutcomeIndicator=self.outcome.value,
        )
        _add_code(event, "EventID", self.event)
        if self.type is not None:
            _add_code(event, "EventTypeCode", self.type)
        if self.description:
            SubElement(event, "EventOutcomeDescription").text = _text(self.description)
        for participant in self.participants:
            participant.add_to(message)
        source = SubElement(message, "AuditSourceIdentification", AuditSourceID=_text(source_id))
        if site_id:
            source.set("AuditEnterpriseSiteID", _text(site_id))
        SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process
        for one in self.objects:
            one.add_to(message)
        return b'<?xml version="1.0" encoding="UTF-8"?>' + tostring(message, encoding="utf-8", xml_declaration=False)


def _add_code(parent: Element, tag: str, code: Code) -> None:
    values = {"csd-code": code.value, "codeSystemName": code.system, "originalText": code.meaning}
    SubElement(parent, tag, values)


def _kind_of_address(address: str) -> str:
    """NetworkAccessPointTypeCode: 5 a URI, 2 an IP address, 1 a machine's name."""
    if "://" in address:
        return "5"
    try:
        ip_address(address)
    except ValueError:
        return "1"
    return "2"


def _text(value: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value)
