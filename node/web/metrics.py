"""What does Prometheus see? The node's metrics, which contain no patient data; docs/watch.md lists them.

Everything is read at the scrape: counters and histograms from the ledger, the rest from the ledger's states, Redis, the
disk, the certificates and the files with which the parts say that they work.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from functools import lru_cache
from itertools import product
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from node.archive import MEGABYTE
from node.archive.qa_runs import last_run
from node.ledger import Ledger
from node.ledger.metrics import ALL, LedgerMetric, Tally
from node.ledger.prior_records import PriorState
from node.ledger.pull_records import PullState
from node.ledger.records import DeliveryState, JobState, LedgerCounts, SeriesState
from node.ledger.work_item_records import WorkItemState
from node.processes.parts import read_clock, read_parts
from node.queue import ANALYSE, DELIVER, QueueAwayError
from node.tls.certificates import certificate_expiries

from .context import VERSION, Context, context_of
from .detector_monitoring import last_months, shifted_scanners
from .health import parts_of

SHIFTS_EVERY_S = 3600.0
"""Shifts of the detector are looked for once in this time: they take a second where there are many studies."""

Labels = tuple[str, ...]
Numbers = Mapping[Labels, float]
"""The values of a metric, by the values of its labels."""

router = APIRouter()
Shared = Annotated[Context, Depends(context_of)]


@router.get("/metrics")
def metrics(shared: Shared) -> Response:
    """Prometheus metrics."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(shared))
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class NodeCollector(Collector):
    """Reads the ledger, Redis and the disk at each scrape."""

    def __init__(self, shared: Context) -> None:
        self._shared, self._settings = shared, shared.settings

    def collect(self) -> Iterator[Metric]:
        """Every metric of the node."""
        counts = self._shared.ledger.counts()
        yield _gauge("cmbnode_info", "Version of the node", {(VERSION,): 1}, ["version"])
        yield from self._states(counts)
        yield from self._destinations(counts)
        yield from self._parts()
        yield from self._machine()
        yield from self._queues()
        yield from self._qa()
        yield from self._audit()
        yield self._detector()
        yield from self._pulls()
        yield from self._work_items()
        destinations = sorted({*self._settings.destinations, *counts.waiting_by_destination})
        yield from ledger_metrics(self._shared.ledger.tallies(), destinations)

    def _qa(self) -> Iterator[Metric]:
        """The last run of site QA, if there was one."""
        if (run := last_run(self._settings.data_dir)) is None:
            return
        yield _gauge("cmbnode_qa_good", "Whether the last QA run was good", {(): run.good})
        yield _gauge("cmbnode_qa_timestamp_seconds", "Time of the last QA run, since 1970", {(): run.at.timestamp()})
        text = "Share of the planted microbleeds that the last QA run found"
        yield _gauge("cmbnode_qa_sensitivity", text, {(): run.sensitivity})
        yield _gauge("cmbnode_qa_false_positives", "False positives of the last QA run", {(): run.false})
        steps: Numbers = {(step,): seconds for step, seconds in run.seconds.items()}
        yield _gauge("cmbnode_qa_step_seconds", "Duration of each step of the last QA run", steps, ["step"])

    def _audit(self) -> Iterator[Metric]:
        """What waits for the audit repository, if there is one."""
        if self._settings.audit_repository is None or (state := self._shared.ledger.feed_state()) is None:
            return
        yield _gauge("cmbnode_audit_waiting", "Events that the audit repository has not been told", {(): state.waiting})
        text = "Age of the oldest event that the audit repository has not been told"
        yield _gauge("cmbnode_audit_oldest_waiting_seconds", text, {(): _age(state.oldest_at)})
        yield _gauge("cmbnode_audit_failing", "Whether the last attempt to send to it failed", {(): bool(state.why)})

    def _detector(self) -> Metric:
        """Where the detector's work has shifted, this month or last."""
        shifted = _shifted(self._shared.ledger, self._settings.zone, int(time.time() // SHIFTS_EVERY_S))
        text = "Scanners whose newest month with enough studies differs from the months before"
        return _gauge("cmbnode_detector_shifts", text, shifted, ["profile", "measure"])

    def _pulls(self) -> Iterator[Metric]:
        """The PACS that are queried for new studies, and what was found there."""
        names, ledger = self._settings.pull, self._shared.ledger
        if not names:
            return
        counts, records = ledger.pull_counts(), ledger.pull_sources()
        studies: Numbers = {(name, state.value): counts.get((name, state), 0) for name in names for state in PullState}
        yield _gauge("cmbnode_pulls", "Studies found by source and state", studies, ["source", "state"])
        last = {name: records[name].queried_at if name in records else None for name in names}
        queried: Numbers = {(name,): at.timestamp() if at else 0.0 for name, at in last.items()}
        text = "When a PACS last answered a query for new studies, seconds since 1970; 0: never"
        yield _gauge("cmbnode_pull_query_timestamp_seconds", text, queried, ["source"])
        failing: Numbers = {(n,): _age(records[n].failing_since) if n in records else 0.0 for n in names}
        text = "For how long queries for new studies fail; 0: they succeed"
        yield _gauge("cmbnode_pull_failing_seconds", text, failing, ["source"])
        incomplete: Numbers = {(name,): bool(name in records and records[name].note) for name in names}
        text = "Whether a PACS left studies out of its last answer"
        yield _gauge("cmbnode_pull_incomplete", text, incomplete, ["source"])

    def _work_items(self) -> Iterator[Metric]:
        """Open work items, if there is a worklist manager."""
        if self._settings.work_items is None:
            return
        backlog = self._shared.ledger.work_item_backlog()
        states = (WorkItemState.NEW, WorkItemState.SCHEDULED, WorkItemState.IN_PROGRESS)
        values: Numbers = {(state.value.lower(),): backlog.by_state.get(state, 0) for state in states}
        yield _gauge("cmbnode_work_items", "Open work items by their state at the manager", values, ["state"])
        yield _gauge("cmbnode_work_items_untold", "Work items that are not up to date there", {(): backlog.untold})
        text = "Whether the last attempt to tell the manager about one failed"
        yield _gauge("cmbnode_work_items_failing", text, {(): bool(backlog.why)})

    def _states(self, counts: LedgerCounts) -> Iterator[Metric]:
        """What there is in the ledger, by state."""
        yield _gauge("cmbnode_studies", "Studies in the ledger", {(): counts.studies})
        yield _by_state("cmbnode_series", "Series by state", SeriesState, counts.series)
        yield _by_state("cmbnode_jobs", "Jobs by state", JobState, counts.jobs)
        yield _by_state("cmbnode_deliveries", "Deliveries by state", DeliveryState, counts.deliveries)
        priors = self._shared.ledger.prior_counts()
        yield _by_state("cmbnode_prior_requests", "Requests for priors by state", PriorState, priors)
        yield _gauge("cmbnode_quarantined", "Instances in quarantine", {(): counts.quarantined})
        text = "Age of the oldest waiting job"
        yield _gauge("cmbnode_oldest_queued_seconds", text, {(): _age(counts.oldest_queued_at)})
        last = counts.last_received_at
        text = "When the last new series of a study began to arrive or settled, seconds since 1970; 0: none ever did"
        yield _gauge("cmbnode_last_received_timestamp_seconds", text, {(): last.timestamp() if last else 0.0})

    def _destinations(self, counts: LedgerCounts) -> Iterator[Metric]:
        """What waits for each destination, and whether it accepts anything."""
        settings = self._settings.destinations
        names = {*settings, *counts.waiting_by_destination}
        waiting: Numbers = {(name,): counts.waiting_by_destination.get(name, 0) for name in names}
        text = "Result objects not yet accepted, by destination"
        yield _gauge("cmbnode_deliveries_waiting", text, waiting, ["destination"])
        oldest: Numbers = {(name,): _age(counts.oldest_waiting_by_destination.get(name)) for name in names}
        text = "Age of the oldest result object not yet accepted, by destination"
        yield _gauge("cmbnode_oldest_waiting_seconds", text, oldest, ["destination"])
        failing = self._shared.ledger.failing_destinations()
        since: Numbers = {(name,): _age(failing[name].since) if name in failing else 0.0 for name in names}
        text = "For how long a destination has accepted nothing though objects were sent; 0: it works"
        yield _gauge("cmbnode_destination_failing_seconds", text, since, ["destination"])
        must_commit = [n for n, way in settings.items() if getattr(way, "commit_within_s", None) is not None]
        text = "Result objects accepted and not yet committed, by destination that must commit"
        uncommitted: Numbers = {(name,): counts.uncommitted_by_destination.get(name, 0) for name in must_commit}
        yield _gauge("cmbnode_commitments_waiting", text, uncommitted, ["destination"])

    def _parts(self) -> Iterator[Metric]:
        """Whether each part works, and how long ago each process of it said so."""
        up: Numbers = {(part,): answer == "ok" for part, answer in parts_of(self._settings).items()}
        yield _gauge("cmbnode_part_up", "Whether every process of a part works", up, ["part"])
        ages: Numbers = {(life.part, life.instance): life.age_s for life in read_parts(self._settings.data_dir)}
        text = "Time since a process of a part said that it works"
        yield _gauge("cmbnode_part_silent_seconds", text, ages, ["part", "instance"])

    def _machine(self) -> Iterator[Metric]:
        """The disk, the clock and the certificates."""
        folder = self._settings.data_dir
        disk, files = shutil.disk_usage(folder), os.statvfs(folder)
        yield _gauge("cmbnode_disk_free_bytes", "Free disk space in the data folder", {(): disk.free})
        yield _gauge("cmbnode_disk_size_bytes", "Size of the disk with the data folder", {(): disk.total})
        guard = self._settings.archive.free_disk_mb * MEGABYTE
        yield _gauge("cmbnode_disk_required_bytes", "Images are refused when less disk space is free", {(): guard})
        text = "Free inodes in the data folder; a file system without a limit has 0 of 0"
        yield _gauge("cmbnode_disk_free_inodes", text, {(): files.f_favail})
        yield _gauge("cmbnode_disk_inodes", "Inodes of the disk with the data folder", {(): files.f_files})
        yield _gauge("cmbnode_time_seconds", "The clock of the machine, seconds since 1970", {(): time.time()})
        report = read_clock(folder)
        untrusted: Numbers = {(): report.untrusted_s if report else 0.0}
        yield _gauge("cmbnode_clock_untrusted_seconds", "Nothing is deleted for this long: the clock jumped", untrusted)
        expiries = certificate_expiries(self._settings)
        ends: Numbers = {(one.setting,): one.expires_at.timestamp() if one.expires_at else 0.0 for one in expiries}
        text = "When a certificate expires, seconds since 1970; 0: it cannot be read"
        yield _gauge("cmbnode_certificate_expiry_timestamp_seconds", text, ends, ["setting"])

    def _queues(self) -> Iterator[Metric]:
        """Length of each queue. If Redis is unreachable, a metric says so and the scrape succeeds."""
        job_queue, up = self._shared.job_queue, 0
        if job_queue is not None:
            try:
                values: Numbers = {(queue,): job_queue.depth(queue) for queue in (ANALYSE, DELIVER)}
                yield _gauge("cmbnode_queue_length", "Messages that no worker has fetched yet", values, ["queue"])
                up = 1
            except QueueAwayError:
                pass
        yield _gauge("cmbnode_redis_up", "Whether Redis answers", {(): up})


@lru_cache(maxsize=1)
def _shifted(ledger: Ledger, zone: tzinfo | None, _period: int) -> Numbers:
    """Profile and measure → scanners that have shifted; read once in each period."""
    return shifted_scanners(last_months(ledger, zone, 2))


def ledger_metrics(tallies: Iterable[Tally], destinations: Sequence[str]) -> Iterator[Metric]:
    """The counters and histograms that the ledger keeps, those without an event included."""
    found: dict[str, dict[Labels, list[Tally]]] = {}
    for tally in tallies:
        labels = tuple(json.loads(tally.labels).values())
        found.setdefault(tally.metric, {}).setdefault(labels, []).append(tally)
    for metric in ALL:
        names = sorted(metric.labels)  # the order in which the ledger keeps them
        known = (metric.labels[name] or tuple(destinations) for name in names)
        values = {labels: list[Tally]() for labels in product(*known)} | found.get(metric.name, {})
        yield _histogram(metric, names, values) if metric.buckets else _counter(metric, names, values)


def _counter(metric: LedgerMetric, names: list[str], values: Mapping[Labels, list[Tally]]) -> Metric:
    family = CounterMetricFamily(metric.name, metric.help, labels=names)
    for labels, tallies in values.items():
        family.add_metric(labels, sum(tally.number for tally in tallies))
    return family


def _histogram(metric: LedgerMetric, names: list[str], values: Mapping[Labels, list[Tally]]) -> Metric:
    """A histogram; Prometheus wants each bucket to hold those below it."""
    family = HistogramMetricFamily(metric.name, metric.help, labels=names)
    for labels, tallies in values.items():
        buckets = [
            (floatToGoString(bound), sum(t.number for t in tallies if t.le is not None and t.le <= bound))
            for bound in metric.buckets
        ]
        buckets.append(("+Inf", sum(tally.number for tally in tallies)))
        family.add_metric(labels, buckets, sum(tally.seconds for tally in tallies))
    return family


def _age(at: datetime | None) -> float:
    return 0.0 if at is None else max(0.0, (datetime.now(UTC) - at).total_seconds())


def _by_state(name: str, text: str, states: Iterable[StrEnum], numbers: Mapping[str, int]) -> Metric:
    """A value for every state, zero included: an alarm cannot watch a line that disappears."""
    values: Numbers = {(state.value,): numbers.get(state, 0) for state in states}
    return _gauge(name, text, values, ["state"])


def _gauge(name: str, text: str, values: Numbers, labels: list[str] | None = None) -> Metric:
    metric = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values.items():
        metric.add_metric(label_values, value)
    return metric
