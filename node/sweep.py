"""What was lost between two steps? Settles, routes, takes back, rings again, tidies up; for ever, whatever fails."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import islice

import structlog

from node.archive import Archive
from node.bell import ANALYSE, DELIVER, Bell, make_app
from node.config import Settings
from node.ledger import Ledger
from node.logs import set_up_logging
from node.priors.fetching import Fetcher, open_source
from node.priors.waiting import catch_up
from node.processes import alive_file, beat
from node.routing import route_ready
from node.rules import Table, load_table, recognition
from node.settling import settle
from node.tidying import forget_old, look_at_disk, remove_old, remove_strays

TIDY_EVERY_S = 600.0
STRAYS_EVERY_S = 86_400.0
STUDIES_A_ROUND = 20

_log = structlog.get_logger(__name__)


@dataclass
class Sweep:
    """One round after the other. A step that fails is logged and tried again in the next round; the others go on."""

    settings: Settings
    ledger: Ledger
    archive: Archive
    bell: Bell
    _failing: dict[str, str] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)
    _strays: Iterator[int] | None = None

    @cached_property
    def table(self) -> Table:
        """The rule table, as it was when the sweep started."""
        return load_table(self.settings)

    def round(self) -> None:
        """Do every step once."""
        self._step("settle", self.settle)
        self._step("take back requests for earlier studies", self.take_back_priors)
        self._step("late earlier studies", self.catch_up)
        self._step("route", self.route)
        self._step("take back", self.take_back)
        self._step("ring for analyses", self.ring_analyses)
        self._step("ring for deliveries", self.ring_deliveries)
        now = time.monotonic()
        if now >= self._due.get("tidy", 0.0):
            self._due["tidy"] = now + TIDY_EVERY_S
            self._step("remove old images", self.remove_old)
            self._step("forget old rows", self.forget_old)
            self._step("look at the disk", self.look_at_disk)
        if now >= self._due.get("strays", 0.0):
            self._step("remove strays", self.remove_strays)

    def _step(self, name: str, step: Callable[[], None]) -> None:
        """Do one step; say when it starts to fail, when the reason changes, and when it works again."""
        beat(alive_file(self.settings.data_dir, "sweep"))
        try:
            step()
        except Exception as error:  # an outage of the database, of Redis, of the disk: the next round tries again
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            if self._failing.get(name) != why:
                _log.error("a step of the sweep fails; it is tried again", step=name, why=why)
            self._failing[name] = why
        else:
            if self._failing.pop(name, None) is not None:
                _log.info("a step of the sweep works again", step=name)

    def settle(self) -> None:
        """Settle series that are complete."""
        settle(self.ledger, datetime.now(UTC), self.settings.settling)

    def route(self) -> None:
        """Open jobs for studies that are ready; :meth:`ring_analyses` rings for them."""
        for job in route_ready(self.ledger, self.archive, self.table, self.settings):
            self.bell.analyse(job.id, job.priority)

    def take_back_priors(self) -> None:
        """Take back requests for earlier studies from those who fell silent."""
        for uid in self.ledger.expire_prior_requests(datetime.now(UTC), self.settings.priors.attempts):
            _log.warning("who asked for earlier studies fell silent", study=uid)

    def catch_up(self) -> None:
        """Compare what was not compared because the earlier study came too late."""
        catch_up(self.ledger, self.settings.priors, self.settings.change.min_days)

    def take_back(self) -> None:
        """Take back what silent workers held."""
        for job_id in self.ledger.expire_leases(datetime.now(UTC), self.settings.queue.max_attempts):
            _log.warning("a worker fell silent; the job is queued again", job=job_id)

    def ring_analyses(self) -> None:
        """Ring for waiting jobs when no message is left, for then they were lost (or their images changed)."""
        waiting = self.ledger.queued_jobs()
        if waiting and not self.bell.depth(ANALYSE):
            for job in waiting:
                self.bell.analyse(job.id, job.priority)

    def ring_deliveries(self) -> None:
        """Ring for destinations that something is due for, when no message is left."""
        due = self.ledger.due_destinations(datetime.now(UTC))
        if due and not self.bell.depth(DELIVER):
            for destination in due:
                self.bell.deliver(destination)

    def remove_old(self) -> None:
        """Remove what retention lets go, and what a crash left half-written."""
        remove_old(self.ledger, self.archive, self.settings.archive.keep_days)
        if removed := self.archive.clean_incoming():
            _log.info("half-written files removed", files=removed)

    def forget_old(self) -> None:
        """Forget rows of the audit, sessions and attempts whose time is over."""
        forget_old(self.ledger, self.settings.worklist)

    def remove_strays(self) -> None:
        """Go through a part of the archive for files that no row knows; once through, begin again after a day."""
        if self._strays is None:
            self._strays = remove_strays(self.ledger, self.archive)
        walk, self._strays = self._strays, None  # a walk that fails is not gone on with
        if sum(1 for _ in islice(walk, STUDIES_A_ROUND)) == STUDIES_A_ROUND:
            self._strays = walk
        else:
            self._due["strays"] = time.monotonic() + STRAYS_EVERY_S

    def look_at_disk(self) -> None:
        """Warn before the receiver has to refuse images."""
        if what := look_at_disk(self.archive, self.settings.archive.free_disk_mb):
            _log.warning(what)


def run_sweep(settings: Settings, stop: threading.Event | None = None) -> None:
    """Sweep until `stop` is set, or until SIGTERM or SIGINT when none is given.

    Raises
    ------
    ConfigError
        If the rule table or the settings make no sense.
    """
    set_up_logging(settings)
    if stop is None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_, event=stop: event.set())
    archive = Archive(settings.data_dir, settings.archive.free_disk_mb)
    sweep = Sweep(settings, Ledger(settings.ledger_url), archive, Bell(make_app(settings)))
    _ = sweep.table, recognition(settings)  # complain now, not in every round
    sweep.ledger.upgrade()  # whichever part starts first on a new database
    source = open_source(settings, sweep.ledger, archive)
    with Fetcher(settings, sweep.ledger, source) if source is not None else nullcontext():
        while not stop.is_set():
            sweep.round()
            stop.wait(settings.queue.sweep_s)
    sweep.ledger.close()
