"""What was lost between two steps? The sweep settles, routes, takes back, signals again and cleans up.

It goes round for as long as the node runs, and outlives every outage. Of several sweeps one works, the others stand by.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import islice

import structlog

from node.archive import Archive, DiskSpace
from node.atna import AuditSender
from node.ledger import Lead, Ledger
from node.logs import explain, set_up_logging
from node.notices import Notifier
from node.priors.fetcher import Fetcher, open_prior_source
from node.priors.waiting import catch_up
from node.processes.alive import beat
from node.processes.parts import FETCHER, PULLER, PartFile, forget_parts
from node.processes.process import stop_on_signal
from node.pull.puller import Puller
from node.queue import ANALYSE, DELIVER, JobQueue, make_app
from node.retry import pause_s
from node.route.routing import route_ready
from node.route.rules import RoutingTable, load_table
from node.route.settling import settle
from node.settings import Settings
from node.settings.recognition import recognition
from node.tls.certificates import certificate_notices
from node.work_items import WorkItemPerformer

from .clock import SteadyClock
from .erasing import remove_old_rows
from .retention import forget_old, forget_pulls, remove_old, remove_orphans

CLEAN_EVERY_S = 600.0
ORPHANS_EVERY_S = 86_400.0
CERTIFICATES_EVERY_S = 86_400.0
NOTICES_EVERY_S = 5.0
STUDIES_PER_ROUND = 20
BEAT_EVERY_S = 10.0

_log = structlog.get_logger(__name__)


@dataclass
class Sweep:
    """One round after the other. A step that fails is logged and tried again in the next round; the others go on."""

    settings: Settings
    ledger: Ledger
    archive: Archive
    job_queue: JobQueue
    helpers: dict[str, Fetcher | Puller] = field(default_factory=dict)
    _jumped: bool = False
    _failing: dict[str, str] = field(default_factory=dict)
    _files: dict[str, PartFile] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    _orphans: Iterator[int] | None = None

    @cached_property
    def clock(self) -> SteadyClock:
        """What tells whether the wall clock can be trusted."""
        return SteadyClock(self.settings.data_dir, self.settings.archive.steady_clock_s)

    @cached_property
    def table(self) -> RoutingTable:
        """The rule table, as it was when the sweep started."""
        return load_table(self.settings)

    @cached_property
    def notifier(self) -> Notifier:
        """What tells people by webhook and e-mail."""
        return Notifier(self.settings, self.ledger)

    @cached_property
    def audit_sender(self) -> AuditSender:
        """What tells the audit repository."""
        return AuditSender(self.settings, self.ledger)

    @cached_property
    def work_items(self) -> WorkItemPerformer:
        """What keeps the work items of the worklist manager up to date."""
        return WorkItemPerformer(self.settings, self.ledger, self.archive)

    def round(self) -> None:
        """Do every step once."""
        if not self._step("correct times", self.correct_times):
            return  # no lease or quiet period can be judged
        self._step("settle", self.settle)
        self._step("take back requests for earlier studies", self.take_back_priors)
        self._step("late earlier studies", self.catch_up)
        self._step("take back studies being fetched", self.take_back_pulls)
        self._step("route", self.route)
        self._step("take back", self.take_back)
        self._step("signal analyses", self.requeue_analyses)
        self._step("look for late commitments", self.expire_commitments)
        self._step("signal deliveries", self.requeue_deliveries)
        self._step("work items", self.work_items.start_working)
        now = time.monotonic()
        if now >= self._due.get("notices", 0.0):
            self._due["notices"] = now + NOTICES_EVERY_S
            self._step("send notices", self.send_notices)
            self._step("send audit messages", self.audit_sender.start_sending)
        if now >= self._due.get("clean", 0.0):
            self._due["clean"] = now + CLEAN_EVERY_S
            self._step("check the disk", self.look_at_disk)
            self._step("forget parts that ended", self.forget_parts)
            self._step("remove half-written files", self.clean_incoming)
            self._step("add up the metrics", self.merge_tallies)
            self._step("forget old notices", self.forget_notices)
            self._step("remove old images", self.remove_old)
            self._step("remove old rows", self.forget_old)
        if now >= self._due.get("certificates", 0.0):
            self._due["certificates"] = now + CERTIFICATES_EVERY_S
            self._step("look at certificates", self.look_at_certificates)
        if now >= self._due.get("orphans", 0.0):
            self._step("remove files without a row", self.remove_orphans)

    def _step(self, name: str, step: Callable[[], None]) -> bool:
        """Do one step, and say when it starts to fail, when the reason changes, and when it works again.

        Returns whether it worked.
        """
        self.beat()
        try:
            step()
        except Exception as error:  # an outage of the database, of Redis, of the disk: the next round tries again
            why = explain(error).splitlines()[0]
            if self._failing.get(name) != why:
                _log.error("a step of the sweep fails; it is tried again", step=name, why=why)
            self._failing[name] = why
            return False
        if self._failing.pop(name, None) is not None:
            _log.info("a step of the sweep works again", step=name)
        return True

    def beat(self) -> None:
        """Say that the sweep works, and those that work in its threads; if one hangs, all are to be restarted."""
        working = {name: helper.works() for name, helper in self.helpers.items()}
        if all(working.values()):
            beat()
        for name in (name for name, works in working.items() if works):
            self._files.setdefault(name, PartFile(self.settings.data_dir, name)).beat()

    def pause(self, stop: threading.Event) -> None:
        """Wait for the next round, or until `stop` is set."""
        until = time.monotonic() + self.settings.queue.sweep_s
        while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, BEAT_EVERY_S)):
            self.beat()

    def correct_times(self) -> None:
        """After a jump of the clock have leases and quiet periods begin anew; correct times that lie ahead."""
        queue = self.settings.queue
        self._jumped = self.clock.check() != 0.0 or self._jumped
        if self._jumped:
            self.ledger.begin_periods_anew(self.clock.now, queue.lease_s)
            self._jumped = False
        if corrected := self.ledger.correct_future_times(self.clock.now, queue.lease_s, queue.retry_longest_s):
            _log.warning("times that lay in the future were corrected: the clock was set back", rows=corrected)

    def settle(self) -> None:
        """Settle series that are complete."""
        settle(self.ledger, self.clock.now, self.settings.settling)

    def route(self) -> None:
        """Open jobs for studies that are ready, and signal them."""
        for job in route_ready(self.ledger, self.archive, self.table, self.settings):
            self.job_queue.analyse(job.id, job.priority)

    def take_back_priors(self) -> None:
        """Take back requests for earlier studies from fetchers that fell silent."""
        for uid in self.ledger.expire_prior_requests(self.clock.now, self.settings.priors.attempts):
            _log.warning("the prior fetcher fell silent during a request", study=uid)

    def take_back_pulls(self) -> None:
        """Take back studies from processes that fell silent while they fetched them."""
        for uid in self.ledger.expire_pulls(self.clock.now):
            _log.warning("a process fell silent while it fetched a study", study=uid)

    def catch_up(self) -> None:
        """Compare what was not compared because the earlier study came too late."""
        catch_up(self.ledger, self.settings.priors, self.settings.change.min_days)

    def take_back(self) -> None:
        """Take back what silent workers held; :meth:`requeue_analyses` signals it in the same round."""
        queue = self.settings.queue

        def pause(lost: int) -> float:
            return pause_s(lost - 1, queue, 1.0)

        for job_id in self.ledger.expire_leases(self.clock.now, queue.max_lost_workers, pause):
            _log.warning("a worker fell silent; its job is queued again", job=job_id)

    def requeue_analyses(self) -> None:
        """Have as many signals in Redis as jobs that wait.

        A worker takes the most urgent job at each signal, so it does not matter which signals were lost.
        """
        waiting = self.ledger.queued_jobs()
        missing = len(waiting) - self.job_queue.depth(ANALYSE) if waiting else 0
        for job in waiting[: max(0, missing)]:
            self.job_queue.analyse(job.id, job.priority)

    def expire_commitments(self) -> None:
        """Send again what a destination did not commit to keep in time."""
        if late := self.ledger.expire_commitments(self.clock.now):
            _log.warning("a destination did not commit in time to keep what it accepted", deliveries=len(late))

    def requeue_deliveries(self) -> None:
        """Have as many signals in Redis as systems that something is due for; each is then signalled again."""
        due = self.ledger.due_destinations(self.clock.now)
        reports = self.ledger.due_commitment_reports(self.clock.now)
        if (due or reports) and self.job_queue.depth(DELIVER) < len(due) + len(reports):
            for destination in due:
                self.job_queue.deliver(destination)
            for calling_ae in reports:
                self.job_queue.report(calling_ae)

    def clean_incoming(self) -> None:
        """Remove what a crash left half-written."""
        if removed := self.archive.clean_incoming():
            _log.info("half-written files removed", files=removed)

    def remove_old(self) -> None:
        """Remove images and results whose time is over, if the clock can be trusted."""
        if self._trusts_the_clock():
            remove_old(self.ledger, self.archive, self.settings.archive.keep_days)

    def forget_old(self) -> None:
        """Remove rows whose time is over, if the clock can be trusted."""
        if self._trusts_the_clock():
            forget_old(self.ledger, self.settings.worklist)
            remove_old_rows(self.ledger, self.archive, self.settings.archive, self.clock.now)
            forget_pulls(self.ledger, self.clock.now)
            self.ledger.forget_work_items(self.clock.now - timedelta(days=self.settings.archive.keep_history_days))

    def _trusts_the_clock(self) -> bool:
        self._jumped = self.clock.check() != 0.0 or self._jumped
        return self.clock.untrusted_s == 0.0

    def remove_orphans(self) -> None:
        """Remove files that no row knows, a few studies per round; at the end begin again after a day."""
        if not self._trusts_the_clock():
            return
        if self._orphans is None:
            self._orphans = remove_orphans(self.ledger, self.archive)
        walk, self._orphans = self._orphans, None  # a walk that failed is not continued
        if sum(1 for _ in islice(walk, STUDIES_PER_ROUND)) == STUDIES_PER_ROUND:
            self._orphans = walk
        else:
            self._due["orphans"] = time.monotonic() + ORPHANS_EVERY_S

    def forget_parts(self) -> None:
        """Forget processes that ended without saying so."""
        forget_parts(self.settings.data_dir)

    def send_notices(self) -> None:
        """Tell people what happened, if they want to be told."""
        if self.settings.notices.channels:
            self.notifier.note(self.clock.now, self._disk())
            self.notifier.start_sending()

    def forget_notices(self) -> None:
        """Forget what people were told long ago."""
        self.notifier.forget_old(self.clock.now)

    def merge_tallies(self) -> None:
        """Keep few rows of what the metrics count."""
        self.ledger.merge_tallies()

    def look_at_disk(self) -> None:
        """Warn before the receiver has to refuse images."""
        if (disk := self._disk()).fills_up:
            _log.warning(str(disk))

    def _disk(self) -> DiskSpace:
        return DiskSpace.of(self.archive.root, self.settings.archive.free_disk_mb)

    def look_at_certificates(self) -> None:
        """Warn before a certificate expires."""
        for notice in certificate_notices(self.settings):
            _log.warning(notice)


def run_sweep(settings: Settings, stop: threading.Event | None = None) -> None:
    """Sweep until `stop` is set, or until SIGTERM or SIGINT when none is given.

    Raises
    ------
    ConfigError
        If the rule table or the settings make no sense.
    """
    set_up_logging(settings)
    archive = Archive(settings.data_dir, settings.archive.free_disk_mb)
    sweep = Sweep(settings, Ledger(settings.ledger_url), archive, JobQueue(make_app(settings)))
    _ = sweep.table, recognition(settings)  # complain now, not in every round
    sweep.ledger.upgrade()  # whichever part starts first on a new database
    source = open_prior_source(settings, sweep.ledger, archive)
    with ExitStack() as stack:
        stack.callback(sweep.ledger.close)
        stop = stop or stack.enter_context(stop_on_signal())
        sweep.audit_sender.start()
        stack.callback(sweep.audit_sender.stop)
        sweep.work_items.start()
        stack.callback(sweep.work_items.stop)
        if source is not None:
            sweep.helpers[FETCHER] = stack.enter_context(Fetcher(settings, sweep.ledger, source))
        if settings.pull:
            sweep.helpers[PULLER] = stack.enter_context(Puller(settings, sweep.ledger, archive))
        lead = Lead(sweep.ledger, "sweep")
        stack.callback(lead.close)
        while not stop.is_set():
            if lead.held():
                sweep.round()
            else:
                sweep.beat()
            sweep.pause(stop)
