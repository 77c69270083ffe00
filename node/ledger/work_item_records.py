"""What does the ledger record about work items of a worklist manager? Frozen records; no SQL, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class WorkItemState(StrEnum):
    """Procedure Step State (0074,1000) of a work item; `NEW`: the manager does not have it yet."""

    NEW = "NEW"
    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """Whether the manager changes nothing of it any more."""
        return self in (WorkItemState.COMPLETED, WorkItemState.CANCELED)


@dataclass(frozen=True)
class WorkItemInput:
    """Images that a work item refers to.

    Parameters
    ----------
    series_instance_uid : str
        Empty if the item names only the study.
    sop_instance_uids : tuple of str
        Empty if the item names no instances.
    url : str
        Retrieve URL (WADO-RS); empty if there is none.
    """

    study_instance_uid: str
    series_instance_uid: str = ""
    sop_instance_uids: tuple[str, ...] = ()
    url: str = ""


@dataclass(frozen=True)
class WorkItem:
    """A work item, and what its manager was last told.

    Parameters
    ----------
    claimed : bool
        The manager scheduled it; otherwise the node created it.
    job_id : int or None
        The job whose state it shows.
    state : WorkItemState
        Its state at the manager, as far as the node knows.
    told : str
        The progress that the manager was last told.
    told_job_state : str
        The state of its job at that time.
    cancel_answer : str
        Why a request to cancel it was not granted; empty if there was none.
    failure : str
        Why it ends without a result; empty if its job decides.
    fetch_at : datetime or None
        When its images are fetched next; ``None``: they are in the archive.
    why : str
        Why the last attempt to tell the manager failed; empty if it did not.
    """

    workitem_uid: str
    claimed: bool
    study_instance_uid: str
    job_id: int | None
    state: WorkItemState
    transaction_uid: str
    inputs: tuple[WorkItemInput, ...]
    replaces: str | None
    told: str
    told_job_state: str
    cancel_answer: str
    failure: str
    attempts: int
    next_at: datetime
    fetch_attempts: int
    fetch_at: datetime | None
    why: str
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class WorkItemBacklog:
    """Open work items by state, and what the manager has not been told.

    Parameters
    ----------
    untold : int
        Items whose job has another state than the manager was told.
    why : str
        Why the manager could not be told; empty if it could.
    """

    by_state: dict[str, int]
    untold: int
    why: str
