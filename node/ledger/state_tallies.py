"""What does a change of state add to the metrics? Told from the row before, the state after, and the values written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from .metrics import (
    ANALYSIS,
    ATTEMPTS,
    COMMITMENTS,
    DELIVERY_ATTEMPTS,
    DELIVERY_LAG,
    JOBS,
    LEASES,
    PRIORS,
    PULLS,
    QUEUE_WAIT,
    SETTLED,
    Tally,
    count,
    observe,
)
from .prior_records import PriorState
from .pull_records import PullState
from .rows import Row
from .states import DeliveryState, JobState, Priority, SeriesState

SWEEP = "sweep"
"""The actor that takes back what others held."""


def tallies_of_change(
    table: str, row: Row, after: str, values: Mapping[str, Any], actor: str, now: datetime
) -> Iterator[Tally]:
    """What to add when a row of a table goes to another state."""
    if after == row["state"]:
        return  # something else of it changed
    if table == "jobs":
        yield from _job(row, after, values, now)
    elif table == "deliveries":
        yield from _delivery(row, after, values, actor, now)
    elif table == "series" and after == SeriesState.SETTLED:
        yield count(SETTLED, evidence="complete" if values["whole"] else "none")
    elif table == "prior_requests":
        if row["state"] == PriorState.ASKED and actor == SWEEP:
            yield count(LEASES, kind="prior")
        if PriorState(after).is_over:
            yield count(PRIORS, outcome=PriorState(after).value)
    elif table == "pulls":
        if row["state"] == PullState.FETCHING and actor == SWEEP:
            yield count(LEASES, kind="pull")
        if PullState(after).is_over:
            yield count(PULLS, outcome=PullState(after).value)


def _job(row: Row, after: str, values: Mapping[str, Any], now: datetime) -> Iterator[Tally]:
    if after == JobState.RUNNING and row["started_at"] is None:
        priority = Priority(row["priority"]).name.lower()
        yield observe(QUEUE_WAIT, (now - row["created_at"]).total_seconds(), priority=priority)
    if row["state"] == JobState.RUNNING:
        outcome = _attempt(after, values)
        yield count(ATTEMPTS, outcome=outcome)
        if outcome == "lost":
            yield count(LEASES, kind="analysis")
        if outcome == "analysed":
            kind = "analysis" if row["correction"] is None else "correction"
            yield observe(ANALYSIS, (now - row["started_at"]).total_seconds(), kind=kind)
    if after == JobState.FAILED:
        yield count(JOBS, outcome="analysis_failed" if row["state"] == JobState.RUNNING else "delivery_failed")
    elif after in (JobState.DELIVERED, JobState.SUPERSEDED):
        yield count(JOBS, outcome=JobState(after).value)


def _attempt(after: str, values: Mapping[str, Any]) -> str:
    """How an attempt at an analysis ended; what a worker gives back or loses is no attempt that failed."""
    if after in (JobState.ANALYSED, JobState.SUPERSEDED):
        return JobState(after).value
    for written, outcome in (("lost", "lost"), ("postponed", "postponed"), ("attempts", "returned")):
        if written in values:
            return outcome
    return "failed"


def _delivery(row: Row, after: str, values: Mapping[str, Any], actor: str, now: datetime) -> Iterator[Tally]:
    where = {"destination": str(row["destination"])}
    if row["state"] == DeliveryState.ACCEPTED:
        if after == DeliveryState.COMMITTED:
            yield count(COMMITMENTS, **where, outcome="committed")
        elif after == DeliveryState.FAILED or values.get("commit_resent", 0) > row["commit_resent"]:
            yield count(COMMITMENTS, **where, outcome="refused")  # otherwise a person has it sent again
    if row["state"] != DeliveryState.SENDING:
        return
    outcome = "retried" if after == DeliveryState.WAITING else DeliveryState(after).value
    if actor == SWEEP:
        outcome = "lost"
        yield count(LEASES, kind="delivery")
    elif "attempts" in values:
        outcome = "returned"
    yield count(DELIVERY_ATTEMPTS, **where, outcome=outcome)
    if after == DeliveryState.ACCEPTED and row["accepted_at"] is None:
        yield observe(DELIVERY_LAG, (now - row["created_at"]).total_seconds(), **where)
