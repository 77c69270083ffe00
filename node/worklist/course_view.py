"""How did a study get here? Its series, its deliveries, what happened to it, in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from node.ledger import Delivery, DeliveryState, Job, Ledger, Series
from node.worklist import words

_HISTORY = 60


@dataclass(frozen=True)
class SeriesLine:
    """A series of the study: what it is taken for and why."""

    number: str
    description: str
    images: int
    role: str
    state: str
    tone: str
    why: str


@dataclass(frozen=True)
class DeliveryLine:
    """One object on its way to one destination, with that side's answer."""

    destination: str
    kind: str
    state: str
    tone: str
    tries: str
    answer: str
    at: datetime | None


@dataclass(frozen=True)
class HistoryLine:
    """One change of state, in words."""

    at: datetime
    what: str
    why: str


def series_line(series: Series, job: Job | None) -> SeriesLine:
    """Say of a series what it was taken for and why; `job` is the one whose images it may be among."""
    state, tone = words.series_words(series.state)
    if state == "Used" and (job is None or series.series_instance_uid not in job.series_uids):
        state, tone = "Complete", "quiet"
    return SeriesLine(
        number=words.ABSENT if series.series_number is None else str(series.series_number),
        description=series.description or words.ABSENT,
        images=series.instance_count,
        role=words.role_words(series.role),
        state=state,
        tone=tone,
        why=series.why + (" (please confirm)" if series.needs_confirmation else ""),
    )


def delivery_line(delivery: Delivery) -> DeliveryLine:
    """Say how far an object got on its way, and what the other side answered."""
    state, tone = words.delivery_words(delivery.state)
    return DeliveryLine(
        destination=delivery.destination,
        kind=words.kind_words(delivery.result.kind),
        state=state,
        tone=tone,
        tries=_tries(delivery),
        answer=delivery.answer,
        at=delivery.accepted_at or delivery.first_attempt_at,
    )


def _tries(delivery: Delivery) -> str:
    """How often it was tried, where that says something."""
    if delivery.state is DeliveryState.WAITING and delivery.attempts:
        return f"try {delivery.attempts + 1} at {words.clock(delivery.next_attempt_at)}"
    return f"{delivery.attempts} tries" if delivery.attempts > 1 else ""


def history_of(ledger: Ledger, uid: str, series: list[Series]) -> tuple[HistoryLine, ...]:
    """What happened to the study, its series and its jobs, the newest first."""
    names = {one.series_instance_uid: one.description or one.series_instance_uid for one in series}
    changes = [*ledger.history("study", uid), *ledger.history("prior", uid)]
    for one in series:
        changes += ledger.history("series", one.series_instance_uid)
    for job in ledger.jobs_of_study(uid):
        changes += ledger.history("job", job.id)
    newest = sorted(changes, key=lambda change: (change.at, change.id), reverse=True)[:_HISTORY]
    return tuple(HistoryLine(change.at, words.change_words(change, names), change.why) for change in newest)
