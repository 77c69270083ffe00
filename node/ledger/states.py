"""In which states can a series, a job, a delivery and a study be? And the other short vocabularies of the ledger."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class StorageOutcome(StrEnum):
    """What became of an instance that arrived."""

    NEW = "new"
    DUPLICATE = "duplicate"  # same UID, same bytes: stored once
    CONFLICT = "conflict"  # same UID, other bytes: the caller puts them into quarantine (`Ledger.quarantine`)


class SeriesState(StrEnum):
    """Life of a series. `ignored` means settled and not to be analysed; the row says why."""

    RECEIVING = "receiving"
    SETTLED = "settled"
    IGNORED = "ignored"


class JobState(StrEnum):
    """Life of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    ANALYSED = "analysed"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class DeliveryState(StrEnum):
    """Life of one result object on its way to one destination."""

    WAITING = "waiting"
    SENDING = "sending"
    ACCEPTED = "accepted"
    COMMITTED = "committed"  # accepted, and the destination has committed to keep it (storage commitment)
    FAILED = "failed"
    CANCELLED = "cancelled"  # its job was superseded before it left


STORED = (DeliveryState.ACCEPTED, DeliveryState.COMMITTED)
"""The destination has the object, and nothing more has to be sent."""


class StudyState(StrEnum):
    """What a worklist shows for a study: the state of its newest job, or why it has none."""

    RECEIVING = "receiving"
    HELD = "held"  # waits for an earlier study to be compared with
    IGNORED = "ignored"
    QUEUED = "queued"
    RUNNING = "running"
    ANALYSED = "analysed"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class Priority(IntEnum):
    """Urgency of a job. The numbers are the priority steps of Celery on Redis, 0 the highest."""

    STAT = 0
    HIGH = 3
    ROUTINE = 6
    LOW = 9


class SortColumn(StrEnum):
    """What a list is ordered by; ties are broken by the newest first."""

    RECEIVED = "received"
    PRIORITY = "priority"
    BURDEN = "burden"
    STATE = "state"
    PATIENT = "patient"
    CREATED = "created"
