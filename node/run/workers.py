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
from celery.apps.worker import Worker as CeleryWorker
from celery.exceptions import SoftTimeLimitExceeded
from celery.worker import state as worker_state
from setproctitle import setproctitle
from sqlalchemy.exc import InterfaceError, OperationalError

from node.analyse.analysis import AnalysisContext, AnalysisResult, AnalysisRunner, Progress, run_pipeline
from node.analyse.comparison import prepare
from node.analyse.correction import earlier_results, run_correction
from node.analyse.replacement import replaced_result
from node.archive import Archive
from node.deliver import open_destination
from node.deliver.commitment import open_commitment
from node.deliver.commitment_reports import CommitmentReporter
from node.deliver.delivery import DeliveryRunner
from node.deliver.report import ReportStore
from node.ledger import Job, JobState, Ledger, WorklistFilters
from node.logs import set_up_logging
from node.processes.alive import beat
from node.processes.forked import die_with_parent
from node.processes.process import stop_on_signal
from node.queue import ANALYSE, DELIVER, REPORT, JobQueue, QueueAwayError, make_app
from node.settings import Settings
from node.settings.recognition import recognition
from pipeline.errors import CmbError
from pipeline.profile import load_profile

WATCH_S = 2.0
STALL_S = 60.0
"""An idle worker that fetches none of the waiting messages for this long hangs."""
HARD_LIMIT_AFTER_S = 30.0
ANALYSES_PER_CHILD = 100
"""After this many a fresh process takes over, so that no leak grows for ever."""

_log = structlog.get_logger(__name__)


class TooSlowError(CmbError):
    """An analysis took longer than it may."""


class Worker:
    """One worker process and what its tasks need.

    The analysing worker has one child process (prefork) that loads the networks and may use the GPU, which a parent
    must not do before it forks. The delivering worker has a thread for each destination and some to spare, so that no
    destination waits for another.
    """

    def __init__(self, settings: Settings, queue: str) -> None:
        self.settings, self.queue = settings, queue
        self.owner = f"{queue}@{socket.gethostname()}-{secrets.token_hex(3)}"
        self.app = make_app(settings)
        self.job_queue = JobQueue(self.app)
        self.stopping = threading.Event()
        self._device_told = False
        self._sending: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.app.task(name=ANALYSE)(self.analyse)
        self.app.task(name=DELIVER)(self.deliver)
        self.app.task(name=REPORT)(self.report)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger; connections are made when used, and not shared with a forked child."""
        return Ledger(self.settings.ledger_url)

    @cached_property
    def archive(self) -> Archive:
        """The archive."""
        return Archive(self.settings.data_dir, self.settings.archive.free_disk_mb)

    def analyse(self, job_id: int) -> None:
        """Task: analyse the most urgent job that waits, then signal its deliveries.

        Parameters
        ----------
        job_id : int
            The job that caused the signal; it need not be the most urgent one now.
        """
        reports = ReportStore(self.settings.destinations, self.settings.zone)
        runner = AnalysisRunner(self.ledger, self.archive, self.settings.queue, self.owner, self._work, reports)
        try:
            job = runner.analyse_next()
        except (OperationalError, InterfaceError) as error:
            _log.warning("the database does not answer; the sweep signals again", error=type(error).__name__)
            return
        if job is None:
            _log.info("no job waits", signal=job_id)
            return
        try:
            if job.state == JobState.DELIVERING:
                for destination in job.destinations:
                    self.job_queue.deliver(destination)
            elif job.state == JobState.QUEUED and job.not_before is None:
                self.job_queue.analyse(job.id, job.priority)
        except QueueAwayError as error:
            _log.warning("Redis is away; the sweep signals again", error=str(error))

    def _work(self, job: Job, paths: list[Path], progress: Progress) -> AnalysisResult:
        try:
            return self._run(job, paths, progress)
        except SoftTimeLimitExceeded:
            raise TooSlowError(f"not done after {self.settings.queue.time_limit_s:g} s") from None

    def _run(self, job: Job, paths: list[Path], progress: Progress) -> AnalysisResult:
        context = AnalysisContext(
            job,
            paths,
            created=job.created_at.astimezone(self.settings.zone),
            device=self.settings.device,
            rules=recognition(self.settings),
            comparison=prepare(self.ledger, self.archive, job, self.settings.change),
            replaces=replaced_result(self.ledger, job),
            key_objects=self.settings.results.key_objects,
            rejection_note=self.settings.results.rejection_note,
        )
        if job.correction is not None:
            return run_correction(context, earlier_results(self.ledger, self.archive, job), progress)
        if load_profile(job.profile).weights:  # a profile without networks need not load PyTorch
            self._tell_device()
        return run_pipeline(context, progress)

    def _tell_device(self) -> None:
        """Log once what the networks run on; not before a fork, which CUDA does not survive."""
        if self._device_told:
            return
        self._device_told = True
        from pipeline.networks.hardware import find_hardware

        found = find_hardware()
        on_gpu = bool(found.gpu) and self.settings.device != "cpu"
        device = found.gpu if on_gpu else f"CPU, {found.cpu}"
        _log.info("networks run on", device=device, pytorch=found.pytorch)

    def deliver(self, destination: str) -> None:
        """Task: deliver what is due to one destination, unless another thread is doing so."""
        lock = self._sending[destination]
        if not lock.acquire(blocking=False):
            return
        try:
            given = self.settings.destinations.get(destination)
            DeliveryRunner(
                self.ledger,
                self.archive,
                self.settings.queue,
                destination,
                open_destination(given, self.settings.ae_title) if given else None,
                owner=f"{self.owner}/{destination}",
                commitment=open_commitment(given, self.settings.ae_title),
                stopping=self.stopping.is_set,
            ).deliver()
        finally:
            lock.release()

    def report(self, calling_ae: str) -> None:
        """Task: report to an AE title which of its images the node commits to keep."""
        settings = self.settings
        CommitmentReporter(self.ledger, self.archive, settings.dicom_peers, settings.ae_title, settings.queue).report(
            calling_ae
        )

    def run(self) -> int:
        """Work until SIGTERM or SIGINT; returns the exit status."""
        self.ledger.upgrade()  # whichever part starts first on a new database
        signals.setup_logging.connect(_keep_logging, weak=False)
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_process_init.connect(_on_child_start, weak=False)
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
        worker = _CeleryWorker(
            app=self.app,
            queues=[self.queue],
            hostname=self.owner,
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            **options,
        )
        with stop_on_signal() as stop:
            threading.Thread(target=self._stop_in_time, args=(stop,), name="stop", daemon=True).start()
            worker.start()
        return int(worker.exitcode or 0)

    def _on_ready(self, **_: object) -> None:
        _log.info("worker ready", queue=self.queue, owner=self.owner)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        """Say that the worker works while it fetches messages; end the process when it fetches none of those waiting.

        Whoever supervises it then starts another.
        """
        idle_s = 0.0
        while True:
            beat()
            if self.stopping.wait(WATCH_S):
                return
            idle_s = idle_s + WATCH_S if self._ignores_work() else 0.0
            if idle_s > STALL_S:
                _log.error("messages wait and none is fetched; the worker ends", queue=self.queue)
                _end_children()
                os._exit(os.EX_TEMPFAIL)

    def _ignores_work(self) -> bool:
        try:
            return not worker_state.reserved_requests and self.job_queue.depth(self.queue) > 0
        except (QueueAwayError, OSError):
            return False  # Redis is away; Celery waits for it

    def _stop_in_time(self, stop: threading.Event) -> None:
        """Have Celery take no more work; it would wait for running tasks without a limit, and this sets one."""
        stop.wait()
        self.stopping.set()
        worker_state.should_stop = os.EX_OK
        threading.Event().wait(self.settings.queue.grace_s)
        _log.warning("work that did not end in time is given back", queue=self.queue)
        _end_children()
        self._give_back()
        os._exit(0)

    def _give_back(self) -> None:
        for summary in self.ledger.jobs(WorklistFilters(states=(JobState.RUNNING,)), limit=1000):
            if summary.job.owner == self.owner:
                self.ledger.release_job(summary.job.id, self.owner)
        for destination in list(self._sending):
            self.ledger.release_deliveries(f"{self.owner}/{destination}")


class _CeleryWorker(CeleryWorker):
    """A Celery worker that leaves signals and the name of its process to the node, which treats all parts alike."""

    def install_platform_tweaks(self, worker: Any) -> None:
        """Install no signal handlers."""

    def set_process_status(self, info: str) -> None:
        """Keep the name."""


def _keep_logging(**_: object) -> None:
    """Celery sets up no logging of its own where somebody listens to this signal."""


def _on_child_start(**_: object) -> None:
    """In the forked child: end when the worker ends, however that happens."""
    die_with_parent(os.getppid(), signal.SIGKILL)
    setproctitle(f"cmbnode worker --queue {ANALYSE}")  # Celery's name for it says nothing to an administrator


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
