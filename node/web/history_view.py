"""What happened to a study? Its series, deliveries and history as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from node.ledger import Delivery, DeliveryState, Job, JobState, Ledger, SeriesRecord

from . import labels

_HISTORY = 60


@dataclass(frozen=True)
class SeriesLine:
    """A series of the study: its role, and why it has it."""

    number: str
    description: str
    images: int
    role: str
    state: str
    tone: str
    why: str


@dataclass(frozen=True)
class DeliveryLine:
    """The delivery of one object to one destination, with the destination's answer."""

    destination: str
    kind: str
    state: str
    tone: str
    attempts: str
    answer: str
    at: datetime | None


@dataclass(frozen=True)
class HistoryLine:
    """One change of state."""

    at: datetime
    what: str
    why: str


def series_line(series: SeriesRecord, job: Job | None) -> SeriesLine:
    """Format a series; `job` is the study's current job."""
    state, tone = labels.series_words(series.state)
    unused = job is None or job.state is JobState.FAILED or series.series_instance_uid not in job.series_uids
    if state == "Used" and unused:
        state, tone = "Complete", "quiet"
    return SeriesLine(
        number=labels.ABSENT if series.series_number is None else str(series.series_number),
        description=series.description or labels.ABSENT,
        images=series.instance_count,
        role=labels.role_words(series.role),
        state=state,
        tone=tone,
        why=series.why + (" (please confirm)" if series.needs_confirmation else ""),
    )


def delivery_line(delivery: Delivery) -> DeliveryLine:
    """Format a delivery."""
    state, tone = labels.delivery_words(delivery.state)
    return DeliveryLine(
        destination=delivery.destination,
        kind=labels.kind_words(delivery.result.kind),
        state=state,
        tone=tone,
        attempts=_attempts(delivery),
        answer=delivery.answer,
        at=delivery.accepted_at or delivery.first_attempt_at,
    )


def _attempts(delivery: Delivery) -> str:
    """The number of attempts, where there was more than one."""
    if delivery.state is DeliveryState.WAITING and delivery.attempts:
        return f"attempt {delivery.attempts + 1} at {labels.clock(delivery.next_attempt_at)}"
    return f"{delivery.attempts} attempts" if delivery.attempts > 1 else ""


def history_of(ledger: Ledger, uid: str, series: list[SeriesRecord]) -> tuple[HistoryLine, ...]:
    """The history of the study, its series, jobs and work items, newest first."""
    names = {one.series_instance_uid: one.description or one.series_instance_uid for one in series}
    changes = [change for entity in ("study", "prior", "pull") for change in ledger.history(entity, uid)]
    for one in series:
        changes += ledger.history("series", one.series_instance_uid)
    for job in ledger.jobs_of_study(uid):
        changes += ledger.history("job", job.id)
    for item in ledger.work_items_of(uid):
        changes += ledger.history("work item", item.workitem_uid)
    newest = sorted(changes, key=lambda change: (change.at, change.id), reverse=True)[:_HISTORY]
    return tuple(HistoryLine(change.at, labels.change_words(change, names), change.why) for change in newest)
