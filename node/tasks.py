"""What runs in the background? The Celery workers: one that analyses, one that delivers."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pydicom.config
import structlog
from celery import signals
from celery.exceptions import SoftTimeLimitExceeded
from celery.worker import state as worker_state

from node.analysis import Analyst, Outcome, Progress, run_pipeline
from node.archive import Archive
from node.bell import ANALYSE, DELIVER, Bell, QueueAwayError, make_app
from node.comparison import prepare
from node.config import Settings
from node.correcting import earlier_results, run_correction
from node.delivery import Courier
from node.destinations import open_destination
from node.ledger import Filters, Job, JobState, Ledger
from node.logs import set_up_logging
from node.processes import alive_file, beat, die_with_parent
from node.report import Reports
from node.rules import recognition

WATCH_S = 2.0
STALL_S = 60.0
"""An idle worker that fetches none of the waiting messages for so long is taken to be stuck."""
HARD_LIMIT_AFTER_S = 30.0
ANALYSES_PER_CHILD = 100
"""Then a fresh process takes over, so that no leak grows for ever."""

_log = structlog.get_logger(__name__)


class TooSlowError(Exception):
    """An analysis took longer than it may."""


class Worker:
    """One worker process and what its tasks need.

    The analysing worker has one child process (prefork) that loads the networks and may touch the GPU, which a parent
    must not do before it forks. The delivering one has a thread for each destination and some to spare, so that none
    waits for another.
    """

    def __init__(self, settings: Settings, queue: str) -> None:
        self.settings, self.queue = settings, queue
        self.owner = f"{queue}@{socket.gethostname()}-{secrets.token_hex(3)}"
        self.app = make_app(settings)
        self.bell = Bell(self.app)
        self.stopping = threading.Event()
        self._sending: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.app.task(name=ANALYSE)(self.analyse)
        self.app.task(name=DELIVER)(self.deliver)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger; connections are made when used, and not shared with a forked child."""
        return Ledger(self.settings.ledger_url)

    @cached_property
    def archive(self) -> Archive:
        """The archive."""
        return Archive(self.settings.data_dir, self.settings.archive.free_disk_mb)

    def analyse(self, job_id: int) -> None:
        """Task: analyse a job, then ring for its deliveries."""
        reports = Reports(self.settings.destinations, self.settings.zone)
        analyst = Analyst(self.ledger, self.archive, self.settings.queue, self.owner, self._work, reports)
        job = analyst.analyse(job_id)
        try:
            if job is not None and job.state == JobState.DELIVERING:
                for destination in job.destinations:
                    self.bell.deliver(destination)
            elif job is not None and job.state == JobState.QUEUED:
                self.bell.analyse(job.id, job.priority)
        except QueueAwayError as error:
            _log.warning("Redis is away; the sweep will ring", error=str(error))

    def _work(self, job: Job, paths: list[Path], progress: Progress) -> Outcome:
        try:
            return self._run(job, paths, progress)
        except SoftTimeLimitExceeded:
            raise TooSlowError(f"not done after {self.settings.queue.time_limit_s:g} s") from None

    def _run(self, job: Job, paths: list[Path], progress: Progress) -> Outcome:
        before = self.ledger.predecessor(job.id)
        rules = recognition(self.settings)
        created = job.created_at.astimezone(self.settings.zone)
        predecessor = before.key if before else None
        comparison = prepare(self.ledger, self.archive, job, self.settings.change)
        key_objects = self.settings.results.key_objects
        if job.correction is not None:
            earlier = earlier_results(self.ledger, self.archive, job)
            return run_correction(job, earlier, paths, progress, created, predecessor, rules, comparison, key_objects)
        device = self.settings.device
        return run_pipeline(job, paths, progress, device, created, predecessor, rules, comparison, key_objects)

    def deliver(self, destination: str) -> None:
        """Task: deliver what is due to one destination, unless somebody here is at it already."""
        lock = self._sending[destination]
        if not lock.acquire(blocking=False):
            return
        try:
            given = self.settings.destinations.get(destination)
            Courier(
                self.ledger,
                self.archive,
                self.settings.queue,
                destination,
                open_destination(given, self.settings.ae_title) if given else None,
                owner=f"{self.owner}/{destination}",
                stopping=self.stopping.is_set,
            ).deliver()
        finally:
            lock.release()

    def run(self) -> int:
        """Work until SIGTERM or SIGINT; returns the exit status."""
        self.ledger.upgrade()  # whichever part starts first on a new database
        signals.setup_logging.connect(_keep_logging, weak=False)
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_process_init.connect(_on_child_start, weak=False)
        signals.worker_shutting_down.connect(self._on_stopping, weak=False)
        limit_s = self.settings.queue.time_limit_s
        options: dict[str, Any] = (
            {
                "pool": "prefork",
                "concurrency": 1,
                "soft_time_limit": limit_s,
                "time_limit": limit_s + HARD_LIMIT_AFTER_S,
                "max_tasks_per_child": ANALYSES_PER_CHILD,
            }
            if self.queue == ANALYSE
            else {"pool": "threads", "concurrency": len(self.settings.destinations) + 4}
        )
        worker = self.app.Worker(
            queues=[self.queue],
            hostname=self.owner,
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            **options,
        )
        worker.start()
        return int(worker.exitcode or 0)

    def _on_ready(self, **_: object) -> None:
        _log.info("worker ready", queue=self.queue, owner=self.owner)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        """Say "alive" while messages are fetched; end the process when they are not, for a supervisor to restart it."""
        alive = alive_file(self.settings.data_dir, f"worker-{self.queue}")
        idle_s = 0.0
        while True:
            beat(alive)
            if self.stopping.wait(WATCH_S):
                return
            idle_s = idle_s + WATCH_S if self._ignores_work() else 0.0
            if idle_s > STALL_S:
                _log.error("messages wait and none is fetched; the worker ends", queue=self.queue)
                _end_children()
                os._exit(os.EX_TEMPFAIL)

    def _ignores_work(self) -> bool:
        try:
            return not worker_state.reserved_requests and self.bell.depth(self.queue) > 0
        except (QueueAwayError, OSError):
            return False  # Redis is away; Celery waits for it

    def _on_stopping(self, **_: object) -> None:
        """Celery lets running tasks finish, without a limit; this sets one."""
        self.stopping.set()
        threading.Thread(target=self._stop_in_time, name="stop", daemon=True).start()

    def _stop_in_time(self) -> None:
        threading.Event().wait(self.settings.queue.grace_s)
        _log.warning("the work does not end in time and is given back", queue=self.queue)
        _end_children()
        self._give_back()
        os._exit(0)

    def _give_back(self) -> None:
        for summary in self.ledger.jobs(Filters(states=(JobState.RUNNING,)), limit=1000):
            if summary.job.owner == self.owner:
                self.ledger.release_job(summary.job.id, self.owner)
        for destination in list(self._sending):
            self.ledger.release_deliveries(f"{self.owner}/{destination}")


def _keep_logging(**_: object) -> None:
    """Celery sets up no logging of its own where somebody listens to this signal."""


def _on_child_start(**_: object) -> None:
    """In the forked child: end when the worker ends, however that happens."""
    die_with_parent(os.getppid(), signal.SIGKILL)


def _end_children() -> None:
    for child in psutil.Process().children(recursive=True):
        child.kill()


def run_worker(settings: Settings, queue: str) -> None:
    """Run one worker until SIGTERM or SIGINT.

    Parameters
    ----------
    queue : {'analyse', 'deliver'}
        Which work it takes.
    """
    set_up_logging(settings)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings quote patients' data
    recognition(settings)  # complain now; and all children judge by the rules as they are now
    status = Worker(settings, queue).run()
    if status:
        raise SystemExit(status)
