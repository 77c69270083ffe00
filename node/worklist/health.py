"""Is the node well? Liveness for a supervisor, numbers for Prometheus. Neither says anything about a patient."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from node.bell import ANALYSE, DELIVER, QueueAwayError
from node.ledger.prior_records import PriorState
from node.ledger.records import Counts, DeliveryState, JobState, SeriesState
from node.worklist.context import VERSION, Context, context_of

MEGABYTE = 1_000_000
Numbers = Mapping[tuple[str, ...], float]
"""Values of a metric by the values of its labels."""

router = APIRouter()
Shared = Annotated[Context, Depends(context_of)]


@router.get("/healthz")
def healthz(shared: Shared) -> JSONResponse:
    """200 if ledger and Redis answer and there is disk for another study; 503 and what is wrong otherwise."""
    checks = {"ledger": _ledger(shared), "redis": _redis(shared), "disk": _disk(shared)}
    well = all(answer == "ok" for answer in checks.values())
    return JSONResponse({"status": "ok" if well else "unwell", **checks}, 200 if well else 503)


def _ledger(shared: Context) -> str:
    try:
        shared.ledger.ping()
    except SQLAlchemyError:
        return "does not answer"
    return "ok"


def _redis(shared: Context) -> str:
    if shared.bell is None:
        return "none is named (CMBNODE_REDIS_URL)"
    try:
        shared.bell.depth(ANALYSE)
    except QueueAwayError:
        return "does not answer"
    return "ok"


def _disk(shared: Context) -> str:
    free = shutil.disk_usage(shared.settings.data_dir).free // MEGABYTE
    guard = shared.settings.archive.free_disk_mb
    return "ok" if free >= guard else f"{free} MB free, {guard} MB wanted: images are refused"


@router.get("/metrics")
def metrics(shared: Shared) -> Response:
    """Prometheus metrics."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(shared))
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class NodeCollector(Collector):
    """Reads the ledger, Redis and the disk when it is asked, so that every answer is of now."""

    def __init__(self, shared: Context) -> None:
        self._shared = shared

    def collect(self) -> Iterator[Metric]:
        """Every metric of the node."""
        counts = self._shared.ledger.counts()
        yield _gauge("cmbnode_info", "Version of the node", {(VERSION,): 1}, ["version"])
        yield _gauge("cmbnode_studies", "Studies in the ledger", {(): counts.studies})
        yield _by_state("cmbnode_series", "Series by state", SeriesState, counts.series)
        yield _by_state("cmbnode_jobs", "Jobs by state", JobState, counts.jobs)
        yield _by_state("cmbnode_deliveries", "Deliveries by state", DeliveryState, counts.deliveries)
        yield _gauge(
            "cmbnode_deliveries_waiting",
            "Result objects not yet accepted, by destination",
            {(name,): counts.waiting_by_destination.get(name, 0) for name in self._destinations(counts)},
            ["destination"],
        )
        yield _by_state(
            "cmbnode_prior_requests",
            "Requests for earlier studies by state",
            PriorState,
            self._shared.ledger.prior_counts(),
        )
        yield _gauge("cmbnode_quarantined", "Objects kept aside", {(): counts.quarantined})
        yield _gauge("cmbnode_oldest_queued_seconds", "Age of the oldest job that waits", {(): _age(counts)})
        free = shutil.disk_usage(self._shared.settings.data_dir).free
        yield _gauge("cmbnode_disk_free_bytes", "Free disk in the data folder", {(): free})
        yield from self._queues()

    def _destinations(self, counts: Counts) -> set[str]:
        return {*self._shared.settings.destinations, *counts.waiting_by_destination}

    def _queues(self) -> Iterator[Metric]:
        """Length of each queue; Redis away is a metric of its own, never a failed scrape."""
        bell, up = self._shared.bell, 0
        if bell is not None:
            try:
                values: Numbers = {(queue,): bell.depth(queue) for queue in (ANALYSE, DELIVER)}
                yield _gauge("cmbnode_queue_length", "Messages that no worker has fetched", values, ["queue"])
                up = 1
            except QueueAwayError:
                pass
        yield _gauge("cmbnode_redis_up", "Whether Redis answers", {(): up})


def _age(counts: Counts) -> float:
    at = counts.oldest_queued_at
    return 0.0 if at is None else max(0.0, (datetime.now(UTC) - at).total_seconds())


def _by_state(name: str, text: str, states: Iterable[StrEnum], numbers: Mapping[str, int]) -> Metric:
    """A gauge for each state, also those that nothing is in: a line that vanishes raises no alarm."""
    values: Numbers = {(state.value,): numbers.get(state, 0) for state in states}
    return _gauge(name, text, values, ["state"])


def _gauge(name: str, text: str, values: Numbers, labels: list[str] | None = None) -> Metric:
    metric = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values.items():
        metric.add_metric(label_values, value)
    return metric
