"""What is an audit repository told of? Frozen records, made from rows of the audit and the history; no SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .access_records import AuditEntry
from .records import StudyRecord


@dataclass(frozen=True)
class SeriesReceived:
    """A series is complete, or was completed later: what one sender has sent of it since it last was.

    Parameters
    ----------
    at : datetime
        When the last of these instances arrived.
    sop_classes : tuple of (str, int)
        Each SOP class, and how many instances of it were received.
    is_more : bool
        The node had images of this series before.
    """

    at: datetime
    study_instance_uid: str
    patient_id: str
    calling_ae: str
    peer: str
    sop_classes: tuple[tuple[str, int], ...]
    is_more: bool


@dataclass(frozen=True)
class ResultSent:
    """A destination has accepted a result, or it was given up to send it there.

    Parameters
    ----------
    answer : str
        What the destination said last.
    """

    at: datetime
    study_instance_uid: str
    patient_id: str
    destination: str
    sop_class_uid: str
    sop_instance_uid: str
    is_accepted: bool
    answer: str


@dataclass(frozen=True)
class PriorQuery:
    """The PACS is queried for earlier studies of a study's patient."""

    at: datetime
    study: StudyRecord


@dataclass(frozen=True)
class NewStudiesQuery:
    """A PACS is queried for new studies, from one date to another (``YYYYMMDD``)."""

    at: datetime
    source: str
    first: str
    last: str


@dataclass(frozen=True)
class ObjectRefused:
    """An object was put into quarantine instead of being stored; UIDs may be empty."""

    at: datetime
    study_instance_uid: str
    calling_ae: str
    peer: str
    why: str


AuditEvent = AuditEntry | SeriesReceived | ResultSent | PriorQuery | NewStudiesQuery | ObjectRefused
"""What an audit repository is told of; an :class:`AuditEntry` is what a person or a program did."""


@dataclass(frozen=True)
class FeedBatch:
    """What is sent at once.

    Parameters
    ----------
    attempts : int
        How often it was tried to send it, this time included.
    before, after : tuple of int
        The positions in the audit and in the history.
    """

    events: tuple[AuditEvent, ...]
    attempts: int
    before: tuple[int, int]
    after: tuple[int, int]


@dataclass(frozen=True)
class FeedState:
    """What waits for the audit repository.

    Parameters
    ----------
    waiting : int
        Rows of the audit and the history that it has not been told of.
    oldest_at : datetime or None
        When the first of them was written.
    why : str
        Why the last attempt failed; empty if it did not.
    """

    waiting: int
    oldest_at: datetime | None
    why: str
    sent_at: datetime | None
