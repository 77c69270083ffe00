"""How do the ledger's values become text for a reader? Names, dates, states; text of unknown origin made safe."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from node.ledger.records import DeliveryState, HistoryEntry, Job, Priority, SeriesState, StudyState
from pipeline.findings import wording

ABSENT = "—"

_STATES = {
    StudyState.RECEIVING: ("Receiving images", "moving"),
    StudyState.HELD: ("Waiting for a prior", "waiting"),
    StudyState.IGNORED: ("Not analysed", "quiet"),
    StudyState.QUEUED: ("Waiting for analysis", "waiting"),
    StudyState.RUNNING: ("Analysing", "moving"),
    StudyState.ANALYSED: ("Analysed, not yet sent", "moving"),
    StudyState.DELIVERING: ("Sending results", "moving"),
    StudyState.DELIVERED: ("Results delivered", "good"),
    StudyState.FAILED: ("Failed", "bad"),
    StudyState.SUPERSEDED: ("Superseded", "quiet"),
}
_SERIES = {
    SeriesState.RECEIVING: ("Receiving", "moving"),
    SeriesState.SETTLED: ("Used", "good"),
    SeriesState.IGNORED: ("Not used", "quiet"),
}
_DELIVERIES = {
    DeliveryState.WAITING: ("Waiting", "waiting"),
    DeliveryState.SENDING: ("Sending", "moving"),
    DeliveryState.ACCEPTED: ("Accepted", "good"),
    DeliveryState.COMMITTED: ("Committed", "good"),
    DeliveryState.FAILED: ("Failed", "bad"),
    DeliveryState.CANCELLED: ("Superseded, not sent", "quiet"),
}
_ROLES = {
    "swi": "SWI",
    "phase": "phase",
    "magnitude": "magnitude",
    "mip": "mIP (never analysed)",
    "mixed_complex": "magnitude and phase mixed",
    "t2star": "T2*",
    "other": "other",
    "": ABSENT,
}
_JOB_STEPS = {
    "queued": "waiting for analysis",
    "running": "analysis started",
    "analysed": "analysed",
    "delivering": "sending started",
    "delivered": "all results accepted",
    "superseded": "superseded by a newer job",
}
_PRIORS = {
    "waiting": "waiting to be requested",
    "asked": "requested",
    "fetched": "received",
    "none": "none found",
    "failed": "could not be fetched",
}
_WORK_ITEMS = {
    "NEW": "to be created",
    "SCHEDULED": "scheduled",
    "IN PROGRESS": "in progress",
    "COMPLETED": "completed",
    "CANCELED": "cancelled",
}
_KINDS = {
    "sr": "Structured report",
    "seg": "Segmentation",
    "capture": "Capture",
    "ko": "Key images",
    "report": "Findings (RIS)",
    "rejection": "Rejection note",
}


def state_words(state: StudyState, job: Job | None) -> str:
    """Say which state a study is in."""
    words = _STATES[state][0]
    if state is StudyState.DELIVERED and job is not None and not job.destinations:
        return "Analysed; no destination is set"
    if job is not None and job.correction is not None and state in (StudyState.QUEUED, StudyState.RUNNING):
        return "Writing the correction" if state is StudyState.RUNNING else "Correction waiting to be written"
    if state is StudyState.QUEUED and job is not None and job.attempts:
        return f"{words} again (attempt {job.attempts + 1})"
    if state is StudyState.RUNNING and job is not None and job.progress:
        return f"{words}: {job.progress}"
    return words


def state_tone(state: StudyState) -> str:
    """Tone of a state: good, bad, moving, waiting or quiet. The style sheet gives it a colour."""
    return _STATES[state][1]


def series_words(state: SeriesState) -> tuple[str, str]:
    """Words and tone for the state of a series."""
    return _SERIES[state]


def delivery_words(state: DeliveryState) -> tuple[str, str]:
    """Words and tone for the state of a delivery."""
    return _DELIVERIES[state]


def role_words(role: str) -> str:
    """The role of a series."""
    return _ROLES.get(role, role)


def kind_words(kind: str) -> str:
    """The kind of a result object."""
    return _KINDS.get(kind, kind)


def priority_words(priority: Priority) -> str:
    """The priority in radiology's terms."""
    return "STAT" if priority is Priority.STAT else priority.name.capitalize()


def person_name(value: str) -> str:
    """A DICOM person name as people write it; a dash if there is none."""
    return wording.person_name(value) or ABSENT


def dicom_date(value: str) -> str:
    """A DICOM date as people write it; a dash if there is none."""
    return wording.date(value) or ABSENT


def clock(value: datetime | None) -> str:
    """Write a time in the server's time zone: ``2026-11-26 14:05``."""
    return ABSENT if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M")


def change_words(change: HistoryEntry, series_names: Mapping[str, str]) -> str:
    """Describe a change of state."""
    if change.entity == "series":
        words = {"receiving": "receiving images", "settled": "complete", "ignored": "not used"}.get(
            change.to_state, change.to_state
        )
        return f"Series {series_names.get(change.entity_id, change.entity_id)}: {words}"
    if change.entity == "job":
        return f"Job {change.entity_id}: {_JOB_STEPS.get(change.to_state, change.to_state)}"
    if change.entity == "prior":
        return f"Priors: {_PRIORS.get(change.to_state, change.to_state)}"
    if change.entity == "pull":
        return f"Pull from the PACS: {change.to_state}"
    if change.entity == "work item":
        return f"Work item: {_WORK_ITEMS.get(change.to_state, change.to_state)}"
    if change.entity == "study":
        return "Study routed" if change.to_state.startswith("routed") else f"Study: {change.to_state}"
    return f"{change.entity.capitalize()} {change.entity_id}: {change.to_state}"


def iso_clock(value: str) -> str:
    """Write a time given in ISO 8601 like :func:`clock`."""
    return clock(datetime.fromisoformat(value))
