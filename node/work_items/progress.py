"""Which state is a work item to have? A function of its job and its row; no network, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from node.ledger import Job, JobState, WorkItem, WorkItemState
from node.settings.work_items import CodedTerm

UNSPECIFIED: Final[CodedTerm] = ("110513", "Discontinued for unspecified reason", "DCM")
OBJECTS_INCOMPLETE: Final[CodedTerm] = ("110523", "Object Set incomplete", "DCM")
OBJECTS_NOT_SUPPORTED: Final[CodedTerm] = ("110522", "Object Types not supported", "DCM")
"""CID 9300, Procedure Discontinuation Reasons (PS3.16)."""

NOT_FETCHED: Final = "its images could not be fetched"
_WORDS: Final = {
    JobState.QUEUED: "waits for a worker",
    JobState.RUNNING: "is being analysed",
    JobState.ANALYSED: "analysed",
    JobState.DELIVERING: "analysed; results are being delivered",
    JobState.DELIVERED: "results delivered",
}


@dataclass(frozen=True)
class WantedState:
    """What the manager is to know.

    Parameters
    ----------
    state : WorkItemState
        The state that the item is to reach.
    words : str
        Procedure Step Progress Description; of a cancelled item, the reason.
    reason : CodedTerm
        Why it is cancelled, coded.
    """

    state: WorkItemState
    words: str
    reason: CodedTerm = UNSPECIFIED


def wanted_state(
    item: WorkItem, job: Job | None, not_analysed: str | None = None, *, uncommitted: bool = False
) -> WantedState:
    """Find the state that an item is to have.

    Parameters
    ----------
    job : Job or None
        The job that the item shows.
    not_analysed : str, optional
        Why routing has opened no job; ``None`` while that is still to be decided.
    uncommitted : bool
        Whether a destination must still commit to keep a result.
    """
    if item.failure:
        incomplete = item.failure.startswith(NOT_FETCHED)
        return WantedState(WorkItemState.CANCELED, item.failure, OBJECTS_INCOMPLETE if incomplete else UNSPECIFIED)
    if job is None:
        return _without_job(item, not_analysed)
    if job.state == JobState.FAILED:
        step = "the analysis failed" if job.analysed_at is None else "results could not be delivered"
        return WantedState(WorkItemState.CANCELED, f"{step}: {job.why}" if job.why else step)
    words = _WORDS.get(job.state, "is being superseded by a new analysis")
    if job.state == JobState.DELIVERED and uncommitted:
        words = f"{words}; waits for a destination to commit to keep them"
    elif job.state == JobState.DELIVERED:
        return WantedState(WorkItemState.COMPLETED, words)
    if item.cancel_answer:
        words = f"{words}; {item.cancel_answer}"
    return WantedState(_at_least(item, job), words)


def _without_job(item: WorkItem, not_analysed: str | None) -> WantedState:
    if item.fetch_at is not None:
        return WantedState(WorkItemState.IN_PROGRESS, "images are being fetched")
    if not_analysed is not None:
        return WantedState(WorkItemState.CANCELED, f"not analysed: {not_analysed}", OBJECTS_NOT_SUPPORTED)
    words = "waits until the study is complete"
    return WantedState(WorkItemState.IN_PROGRESS if item.claimed else WorkItemState.SCHEDULED, words)


def _at_least(item: WorkItem, job: Job) -> WorkItemState:
    """A job that waits, or whose successor will, is SCHEDULED; an item of the manager has been claimed by then."""
    waits = job.state in (JobState.QUEUED, JobState.SUPERSEDED) and not item.claimed
    return WorkItemState.SCHEDULED if waits else WorkItemState.IN_PROGRESS
