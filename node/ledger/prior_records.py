"""What does the ledger record about requests for earlier studies? Frozen records; no SQL, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .states import Priority


class PriorState(StrEnum):
    """Life of a request for earlier studies, and of each study that is fetched for it."""

    WAITING = "waiting"
    ASKED = "asked"
    FETCHED = "fetched"  # completely in the node
    NONE = "none"  # there is no earlier study to compare with
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self not in (PriorState.WAITING, PriorState.ASKED)


@dataclass(frozen=True)
class PriorRequest:
    """The request for earlier studies of a study's patient.

    Parameters
    ----------
    study_revision : int
        Revision of the study at the time of the request.
    deadline_at : datetime
        Latest time until which the study waits.
    late : bool
        The study's job was opened at the deadline, without the earlier study.
    """

    study_instance_uid: str
    state: PriorState
    why: str
    priority: Priority
    study_revision: int
    attempts: int
    owner: str
    lease_expires_at: datetime | None
    next_attempt_at: datetime
    deadline_at: datetime
    late: bool
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class TransferCounts:
    """Images of a fetched study: the number expected, and the sub-operations of C-MOVE or C-GET or parts of WADO-RS."""

    expected: int = 0
    completed: int = 0
    failed: int = 0
    warnings: int = 0


@dataclass(frozen=True)
class PriorFetch:
    """An earlier study that is, or was, fetched for another one."""

    study_instance_uid: str
    prior_study_uid: str
    study_date: str
    state: PriorState
    why: str
    counts: TransferCounts
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class EarlierStudy:
    """An earlier study of the same patient that the ledger holds.

    Parameters
    ----------
    settled : bool
        It has been routed, and nothing of it is being received.
    job_state : str
        State of its current job; empty if it has none.
    analysed : bool
        That job has findings.
    """

    study_instance_uid: str
    study_date: str
    study_time: str
    settled: bool
    job_state: str
    analysed: bool
    why: str
