"""What does the ledger count? Every counter and histogram, by name.

They are counted as rows, in the transaction of what they count. So they survive restarts, are right with several
processes and hosts, and never run backwards, as counters must not: not when a job is retried, and not when old rows
are deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from .prior_records import PriorState
from .pull_records import PullState
from .states import Priority

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
PRIORITIES = tuple(one.name.lower() for one in Priority)


@dataclass(frozen=True)
class LedgerMetric:
    """A counter, or with `buckets` a histogram of seconds.

    Parameters
    ----------
    labels : mapping
        Its labels, and the values of each that are known beforehand. Those are shown from the start, with 0: Prometheus
        sees no increase from nothing to one. The values of ``destination`` are those of the settings.
    buckets : tuple of float
        Upper bounds, seconds; empty for a counter.
    """

    name: str
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


@dataclass(frozen=True)
class Tally:
    """Something to add to a metric.

    Parameters
    ----------
    labels : str
        Labels and values as sorted JSON, as the ledger keeps them.
    le : float or None
        Upper bound of the bucket; ``None`` for counters, and for values beyond the last bucket.
    seconds : float
        Sum of the values of a histogram.
    """

    metric: str
    labels: str
    number: int = 1
    le: float | None = None
    seconds: float = 0.0


def count(metric: LedgerMetric, number: int = 1, /, **labels: str) -> Tally:
    """Add to a counter."""
    return Tally(metric.name, json.dumps(labels, sort_keys=True), number)


def observe(metric: LedgerMetric, seconds: float, /, **labels: str) -> Tally:
    """Add a value to a histogram; a clock that was set back gives 0."""
    value = max(0.0, seconds)
    le = next((bound for bound in metric.buckets if value <= bound), None)
    return Tally(metric.name, json.dumps(labels, sort_keys=True), 1, le, value)


INSTANCES = LedgerMetric(
    "cmbnode_instances_received_total",
    "Answers about instances that were sent to the node, by C-STORE or STOW-RS",
    {
        "outcome": (
            *("stored", "repeated", "conflict", "no_resources", "mismatch", "not_understood", "node_fault"),
            "unsupported",
        )
    },
)
REFUSALS = LedgerMetric(
    "cmbnode_associations_refused_total",
    "Connections and associations that the receiver refused",
    {"reason": ("address", "tls", "rejected", "limit", "protocol")},
)
SETTLED = LedgerMetric(
    "cmbnode_series_settled_total",
    "Series that settled, with evidence that they are complete or at the limit",
    {"evidence": ("complete", "none")},
)
ROUTED = LedgerMetric(
    "cmbnode_studies_routed_total", "Decisions of routing about a study", {"outcome": ("analysed", "ignored")}
)
PRIORS = LedgerMetric(
    "cmbnode_prior_requests_finished_total",
    "Requests for earlier studies that ended",
    {"outcome": tuple(state.value for state in PriorState if state.is_over)},
)
PULLS = LedgerMetric(
    "cmbnode_pulls_finished_total",
    "Studies of a PACS that does not route that were fetched, ignored or given up",
    {"outcome": (PullState.FETCHED.value, PullState.IGNORED.value, PullState.FAILED.value)},
)
QUEUE_WAIT = LedgerMetric(
    "cmbnode_queue_wait_seconds",
    "Time from opening a job to its first attempt",
    {"priority": PRIORITIES},
    (1, 5, 15, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, DAY),
)
ATTEMPTS = LedgerMetric(
    "cmbnode_analysis_attempts_total",
    "Attempts at an analysis that ended",
    {"outcome": ("analysed", "failed", "postponed", "lost", "returned", "superseded")},
)
ANALYSIS = LedgerMetric(
    "cmbnode_analysis_seconds",
    "Time of a successful attempt at an analysis or a correction",
    {"kind": ("analysis", "correction")},
    (1, 2, 5, 10, 20, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 30 * MINUTE),
)
STAGE = LedgerMetric(
    "cmbnode_analysis_stage_seconds",
    "Time of each stage of an analysis",
    {"stage": ("read", "brain", "candidates", "regions", "scores", "lesions", "location", "quality")},
    (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, MINUTE, 2 * MINUTE, 5 * MINUTE),
)
JOBS = LedgerMetric(
    "cmbnode_jobs_finished_total",
    "Jobs that ended",
    {"outcome": ("delivered", "analysis_failed", "delivery_failed", "superseded")},
)
TURNAROUND = LedgerMetric(
    "cmbnode_turnaround_seconds",
    "Time from the last image of a study to the acceptance of its results by every destination",
    {"priority": PRIORITIES},
    (15, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 4 * HOUR, DAY),
)
LEASES = LedgerMetric(
    "cmbnode_leases_lost_total",
    "Workers and senders that fell silent and lost what they worked on",
    {"kind": ("analysis", "delivery", "prior", "pull")},
)
DELIVERY_ATTEMPTS = LedgerMetric(
    "cmbnode_delivery_attempts_total",
    "Attempts to send a result object that ended",
    {"destination": (), "outcome": ("accepted", "retried", "failed", "lost", "returned", "cancelled")},
)
DELIVERY_LAG = LedgerMetric(
    "cmbnode_delivery_lag_seconds",
    "Time from making a result object to its acceptance by a destination",
    {"destination": ()},
    (0.5, 1, 2, 5, 15, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, DAY),
)
COMMITMENTS = LedgerMetric(
    "cmbnode_commitments_total",
    "Accepted result objects that a destination committed to keep, or did not",
    {"destination": (), "outcome": ("committed", "refused")},
)
ALL = (
    *(INSTANCES, REFUSALS, SETTLED, ROUTED, PRIORS, PULLS, QUEUE_WAIT, ATTEMPTS, ANALYSIS, STAGE, JOBS, TURNAROUND),
    *(LEASES, DELIVERY_ATTEMPTS, DELIVERY_LAG, COMMITMENTS),
)
