"""Which audit message tells of which event? (PS3.15 A.5.3)"""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ImplicitVRLittleEndian

from node.ledger import AuditEvent, NewStudiesQuery, ObjectRefused, PriorQuery, ResultSent, SeriesReceived
from node.ledger.access_records import AuditAction, AuditEntry
from node.priors.choice import DateWindow, window
from node.retrieve.dicom_dates import day_of
from node.retrieve.dicom_qr import study_query
from node.retrieve.dicomweb import study_search
from node.retrieve.source import StudyQuery
from node.settings import DicomDestination, Settings
from node.settings.destinations import DestinationSettings
from node.settings.pacs import PacsSettings

from . import message as xml
from .message import Action, AuditMessage, Code, Outcome, Participant, ParticipantObject

APPLICATION_ACTIVITY = Code("110100", "Application Activity")
AUDIT_LOG_USED = Code("110101", "Audit Log Used")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
STUDY_DELETED = Code("110105", "DICOM Study Deleted")
EXPORT = Code("110106", "Export")
PROCEDURE_RECORD = Code("110111", "Procedure Record")
QUERY = Code("110112", "Query")
SECURITY_ALERT = Code("110113", "Security Alert")
USER_AUTHENTICATION = Code("110114", "User Authentication")

START = Code("110120", "Application Start")
STOP = Code("110121", "Application Stop")
LOGIN = Code("110122", "Login")
LOGOUT = Code("110123", "Logout")
RESTRICTED_FUNCTION = Code("110132", "Use of Restricted Function")
ROLES_CHANGED = Code("110136", "Security Roles Changed")
USER_CHANGED = Code("110137", "User Security Attributes Changed")

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
"""SOP Class UID of the Study Root Query/Retrieve Information Model, FIND."""

_KINDS: dict[str, tuple[Code, Action, Code | None]] = {
    AuditAction.START: (APPLICATION_ACTIVITY, Action.EXECUTE, START),
    AuditAction.STOP: (APPLICATION_ACTIVITY, Action.EXECUTE, STOP),
    AuditAction.SIGN_IN: (USER_AUTHENTICATION, Action.EXECUTE, LOGIN),
    AuditAction.REFUSAL: (USER_AUTHENTICATION, Action.EXECUTE, LOGIN),
    AuditAction.SIGN_OUT: (USER_AUTHENTICATION, Action.EXECUTE, LOGOUT),
    AuditAction.AUDIT: (AUDIT_LOG_USED, Action.READ, None),
    AuditAction.STUDY: (INSTANCES_ACCESSED, Action.READ, None),
    AuditAction.CORRECTION: (INSTANCES_ACCESSED, Action.UPDATE, None),
    AuditAction.RETRY: (PROCEDURE_RECORD, Action.UPDATE, None),
    AuditAction.REROUTE: (PROCEDURE_RECORD, Action.UPDATE, None),
    AuditAction.SEND: (PROCEDURE_RECORD, Action.UPDATE, None),
    AuditAction.PRIORITY: (PROCEDURE_RECORD, Action.UPDATE, None),
    AuditAction.ERASED: (STUDY_DELETED, Action.DELETE, None),
    AuditAction.DOWNLOAD: (EXPORT, Action.READ, None),
    AuditAction.LIST: (QUERY, Action.EXECUTE, None),
    AuditAction.DETECTOR: (QUERY, Action.EXECUTE, None),
    AuditAction.PASSWORD: (SECURITY_ALERT, Action.EXECUTE, USER_CHANGED),
    AuditAction.USER: (SECURITY_ALERT, Action.EXECUTE, USER_CHANGED),
    AuditAction.ADMINISTRATION: (SECURITY_ALERT, Action.EXECUTE, RESTRICTED_FUNCTION),
    AuditAction.TEST: (SECURITY_ALERT, Action.EXECUTE, RESTRICTED_FUNCTION),
    AuditAction.DRY_RUN: (SECURITY_ALERT, Action.EXECUTE, RESTRICTED_FUNCTION),
    AuditAction.BACKUP: (SECURITY_ALERT, Action.EXECUTE, RESTRICTED_FUNCTION),
    AuditAction.RESTORED: (SECURITY_ALERT, Action.EXECUTE, RESTRICTED_FUNCTION),
}
"""Event, action and type of what people do."""
_ABOUT_A_STUDY = (INSTANCES_ACCESSED, PROCEDURE_RECORD, STUDY_DELETED, EXPORT)
_ALERT = (SECURITY_ALERT, Action.EXECUTE, RESTRICTED_FUNCTION)


@dataclass(frozen=True)
class MessageWriter:
    """Writes the audit messages of a node."""

    settings: Settings

    @property
    def node(self) -> Participant:
        """The node as a participant."""
        title = self.settings.ae_title
        return Participant(title, ae_title=title, address=socket.gethostname())

    def write(self, event: AuditEvent) -> AuditMessage | None:
        """The message that tells of an event; ``None`` if there was none after all."""
        match event:
            case AuditEntry():
                return self._action(event)
            case SeriesReceived():
                return self._received(event)
            case ObjectRefused():
                return self._refused(event)
            case ResultSent():
                return self._sent(event)
            case PriorQuery():
                return self._queried(event)
            case NewStudiesQuery():
                return self._looked_for(event)

    def _action(self, entry: AuditEntry) -> AuditMessage:
        """What a person did, or a program in somebody's name."""
        event, action, kind = _KINDS.get(entry.action, _ALERT)
        if event in _ABOUT_A_STUDY and not entry.study_instance_uid:  # as objects in quarantine that were erased
            event, action, kind = _ALERT
        if entry.action == AuditAction.USER and ": role " in entry.detail:
            kind = ROLES_CHANGED
        user = Participant(entry.user_name, is_requestor=True, address=entry.address)
        made = AuditMessage(event, action, entry.at, (user, self.node), type=kind, description=entry.detail)
        if event == APPLICATION_ACTIVITY:
            return replace(made, participants=(replace(self.node, role=xml.APPLICATION),))
        if event == USER_AUTHENTICATION:
            refused = entry.action == AuditAction.REFUSAL
            return replace(made, outcome=Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS)
        if event == AUDIT_LOG_USED:
            return replace(made, objects=(self._audit_log(),))
        if event == QUERY:
            return self._search(made, user, entry.detail)
        if event == SECURITY_ALERT:
            return replace(made, objects=(self._alert(f"{entry.action}: {entry.detail}".rstrip(": ")),))
        made = replace(made, objects=(xml.study(entry.study_instance_uid), xml.patient(entry.patient_id)))
        if event == EXPORT:
            medium = Participant(
                entry.address or entry.user_name, role=xml.DESTINATION_MEDIA, address=entry.address, media=xml.URI_MEDIA
            )
            source = replace(self.node, role=xml.SOURCE)
            return replace(made, participants=(replace(user, role=xml.DESTINATION), source, medium))
        return made

    def _search(self, made: AuditMessage, user: Participant, detail: str) -> AuditMessage:
        """A list that somebody looked at; what was searched for may name a patient, and is the query."""
        participants = (replace(user, role=xml.SOURCE), replace(self.node, role=xml.DESTINATION))
        query = ParticipantObject(
            "worklist", xml.SEARCH_CRITERIA, kind="2", role="3", query=detail.encode("utf-8", "replace")
        )
        return replace(made, participants=participants, objects=(query,), description="")

    def _audit_log(self) -> ParticipantObject:
        base = (self.settings.worklist.url or f"http://{socket.gethostname()}:{self.settings.worklist.port}").rstrip(
            "/"
        )
        return ParticipantObject(f"{base}/audit", xml.URI, kind="2", role="13", name="Security Audit Log")

    def _alert(self, text: str) -> ParticipantObject:
        details = {"Alert Description": text.encode("utf-8", "replace")}
        name = f"{self.settings.ae_title}@{socket.gethostname()}"
        return ParticipantObject(name, xml.NODE_ID, kind="2", role="13", details=details)

    def _received(self, event: SeriesReceived) -> AuditMessage:
        classes = tuple((uid, number, ()) for uid, number in event.sop_classes)
        action = Action.UPDATE if event.is_more else Action.CREATE
        objects = (xml.study(event.study_instance_uid, *classes), xml.patient(event.patient_id))
        participants = self._from_peer(event.calling_ae, event.peer)
        return AuditMessage(INSTANCES_TRANSFERRED, action, event.at, participants, objects)

    def _refused(self, event: ObjectRefused) -> AuditMessage:
        objects = (xml.study(event.study_instance_uid), xml.patient(""))
        participants = self._from_peer(event.calling_ae, event.peer)
        return AuditMessage(
            INSTANCES_TRANSFERRED, Action.CREATE, event.at, participants, objects,
            outcome=Outcome.MINOR_FAILURE, description=f"put into quarantine: {event.why}",
        )  # fmt: skip

    def _from_peer(self, calling_ae: str, peer: str) -> tuple[Participant, ...]:
        """Another system sends to the node."""
        sender = Participant(calling_ae or peer, is_requestor=True, role=xml.SOURCE, ae_title=calling_ae, address=peer)
        return (sender, replace(self.node, role=xml.DESTINATION))

    def _sent(self, event: ResultSent) -> AuditMessage:
        """A result that was sent: to a DICOM system as instances, to another one as an export."""
        way = self.settings.destinations.get(event.destination)
        classes = ((event.sop_class_uid, 1, (event.sop_instance_uid,)),) if event.sop_class_uid else ()
        objects = (xml.study(event.study_instance_uid, *classes), xml.patient(event.patient_id))
        there = _participant(event.destination, way)
        us = replace(self.node, role=xml.SOURCE, is_requestor=True)
        made = AuditMessage(
            INSTANCES_TRANSFERRED, Action.READ, event.at, (us, replace(there, role=xml.DESTINATION)), objects,
            outcome=Outcome.SUCCESS if event.is_accepted else Outcome.SERIOUS_FAILURE,
            description="" if event.is_accepted else event.answer,
        )  # fmt: skip
        if way is None or way.TAKES_DICOM:
            return made
        medium = replace(there, role=xml.DESTINATION_MEDIA, media=xml.URI_MEDIA)
        return replace(made, event=EXPORT, participants=(us, medium))

    def _queried(self, event: PriorQuery) -> AuditMessage | None:
        """A query for earlier studies, as the prior fetcher makes it."""
        priors = self.settings.priors
        days = window(event.study, priors.max_age_days, self.settings.change.min_days)
        if not isinstance(days, DateWindow):
            return None
        return self._query(event.at, priors, StudyQuery(days.first, days.last, event.study.patient_id))

    def _looked_for(self, event: NewStudiesQuery) -> AuditMessage | None:
        """A query for new studies, as the puller makes it; nothing of a PACS that is no longer in the settings."""
        pacs, first, last = self.settings.pull.get(event.source), day_of(event.first), day_of(event.last)
        if pacs is None or first is None or last is None:
            return None
        return self._query(event.at, pacs, StudyQuery(first, last))

    def _query(self, at: datetime, source: PacsSettings, wanted: StudyQuery) -> AuditMessage | None:
        if source.dicom is not None:
            pacs = Participant(source.dicom.ae_title, ae_title=source.dicom.ae_title, address=source.dicom.host)
            identifier = _encode(study_query(wanted))
            query = ParticipantObject(
                STUDY_ROOT_FIND, xml.SOP_CLASS_UID, kind="2", role="3", query=identifier,
                details={"TransferSyntax": ImplicitVRLittleEndian.encode()},
            )  # fmt: skip
        elif source.dicomweb is not None:
            pacs = Participant(source.dicomweb.url, address=source.dicomweb.url)
            url = f"{source.dicomweb.url}/studies"
            search = study_search(wanted).encode()
            query = ParticipantObject(url, xml.SEARCH_CRITERIA, kind="2", role="3", query=search)
        else:
            return None
        participants = (
            replace(self.node, role=xml.SOURCE, is_requestor=True),
            replace(pacs, role=xml.DESTINATION),
        )
        return AuditMessage(QUERY, Action.EXECUTE, at, participants, (query,))


def _participant(name: str, way: DestinationSettings | None) -> Participant:
    """A destination; one that is no longer in the settings has only its name."""
    if isinstance(way, DicomDestination):
        return Participant(way.ae_title, ae_title=way.ae_title, address=way.host)
    return Participant(way.address, address=way.address) if way is not None else Participant(name)


def _encode(query: Dataset) -> bytes:
    """A query in Implicit VR Little Endian, which every system can read."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, query)
    return buffer.getvalue()
