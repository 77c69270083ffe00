"""How does a new study come into the node? A PACS is queried, each study is looked at, and fetched if it has an SWI.

Each PACS has a thread beside the sweep, so one that does not answer delays nothing else. A query and a study are held
by leases: several sweeps share the work, and what a killed process held is done again.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Literal, Self

import structlog

from node.archive import Archive
from node.leases import Heartbeat
from node.ledger import Ledger, Pull, PullState, TransferCounts
from node.logs import explain
from node.retrieve import open_source
from node.retrieve.head_series import WantedSeries
from node.retrieve.source import FoundSeries, SourceError, StudySource, TransferLimits
from node.retrieve.threads import WorkThreads
from node.retry import pause_s, tried_long_enough
from node.settings import Settings
from node.settings.pull import PullSettings
from pipeline.errors import InputError

from .search import new_studies, query_of
from .study_choice import choose_series

_PREFIX = "pull-"
"""Of the names of its threads."""

_log = structlog.get_logger(__name__)


@dataclass
class Puller:
    """Queries the PACS of the settings, and fetches from them, until it is stopped."""

    settings: Settings
    ledger: Ledger
    archive: Archive
    _threads: WorkThreads = field(init=False)

    def __post_init__(self) -> None:
        self._threads = WorkThreads(self.settings.queue.grace_s, self._say_failing)

    @staticmethod
    def _say_failing(name: str, why: str) -> None:
        _log.error("studies cannot be pulled now; it is tried again", source=name.removeprefix(_PREFIX), why=why)

    def works(self) -> bool:
        """Whether every thread runs, and none has worked on one query or study for longer than that may take."""
        return self._threads.works()

    def __enter__(self) -> Self:
        owner, threads = f"pull@{socket.gethostname()}-{secrets.token_hex(3)}", self._threads
        for name, pacs in self.settings.pull.items():
            source = open_source(pacs, self.settings, self.ledger, self.archive)
            worker = SourcePuller(self.settings, self.ledger, name, source, f"{owner}/{name}", lambda: threads.stopping)
            thread = f"{_PREFIX}{name}"
            threads.start(thread, partial(worker.work, partial(threads.beat, thread)), _limit_s(pacs))
            _log.info("ready to pull studies", source=name, address=pacs.address)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._threads.stop()


def _limit_s(pacs: PullSettings) -> float:
    way = pacs.dicom or pacs.dicomweb
    return pacs.fetch_s + (2 * way.timeout_s if way is not None else 0.0)


@dataclass(frozen=True)
class SourcePuller:
    """Works for one PACS.

    Parameters
    ----------
    name : str
        The name of its settings.
    owner : str
        Whose leases it holds.
    stopped : callable
        Whether the node stops.
    """

    settings: Settings
    ledger: Ledger
    name: str
    source: StudySource
    owner: str
    stopped: Callable[[], bool] = lambda: False

    @property
    def pacs(self) -> PullSettings:
        """The settings of the PACS."""
        return self.settings.pull[self.name]

    def work(self, beat: Callable[[], None] = lambda: None) -> bool:
        """Make a query that is due, or else look at one study; false if there is nothing to do now."""
        if not self.pacs.is_open(datetime.now(self.settings.zone)):
            return False
        return self.query(beat) or self.fetch_next()

    def query(self, beat: Callable[[], None] = lambda: None) -> bool:
        """Query the PACS for new studies, if that is due."""
        lease_s, today = self.settings.queue.lease_s, datetime.now(self.settings.zone).date()
        query = query_of(self.pacs, today)
        days = f"{query.first:%Y%m%d}", f"{query.last:%Y%m%d}"
        if not self.ledger.claim_pull_query(self.name, self.owner, lease_s, days):
            return False
        with Heartbeat(lambda: self.ledger.prolong_pull_query(self.name, self.owner, lease_s), lease_s):
            try:
                found = new_studies(self.source, self.pacs, today, beat)
            except Exception as error:
                self._note_failure(error)
                return True
        before = self.ledger.pull_sources()[self.name]
        new = self.ledger.end_pull_query(
            self.name, self.owner, found.studies, self.pacs.every_s, self.pacs.quiet_s, found.note
        )
        if found.note and found.note != before.note:
            _log.warning("a query for new studies is incomplete", source=self.name, why=found.note)
        if before.why:
            _log.info("the PACS answers queries for new studies again", source=self.name)
        if new:
            _log.info("new studies", source=self.name, found=len(found.studies), new=new)
        return True

    def _note_failure(self, error: Exception) -> None:
        """Record a query that failed; the log says so when it begins to fail, and when the reason changes."""
        if not isinstance(error, SourceError):
            _log.exception("a query for new studies failed", source=self.name)
        why = str(error) if isinstance(error, SourceError) else explain(error)
        if self.stopped():
            self.ledger.fail_pull_query(self.name, self.owner, why, 0.0, counted=False)
            return
        before = self.ledger.pull_sources()[self.name]
        pause = pause_s(before.attempts + 1, self.settings.queue, 1.0)
        if why != before.why:
            _log.warning("the PACS cannot be queried for new studies; it is tried again", source=self.name, why=why)
        self.ledger.fail_pull_query(self.name, self.owner, why, pause)

    def fetch_next(self) -> bool:
        """Look at the study that is due, and fetch it if it is to be fetched; false if none is due or this failed."""
        lease_s = self.settings.queue.lease_s
        pull = self.ledger.claim_pull(self.name, self.owner, lease_s)
        if pull is None:
            return False
        uid = pull.study_instance_uid
        with Heartbeat(lambda: self.ledger.prolong_pull(uid, self.owner, lease_s), lease_s) as heartbeat:

            def why_stopped() -> str:
                return "the node stops" if self.stopped() else "another process took it over" * heartbeat.lost

            try:
                self._look_at(pull, why_stopped)
            except SourceError as error:
                return self._put_off(pull, error)
            except Exception as error:
                _log.exception("the retrieval of a study failed", source=self.name, study=uid)
                return self._put_off(pull, SourceError(explain(error)))
        return True

    def _look_at(self, pull: Pull, why_stopped: Callable[[], str]) -> None:
        uid = pull.study_instance_uid
        series = self.source.series(uid)
        look = choose_series(self.settings, self.name, series)
        wanted, counted = look.wanted, look.images
        known = pull.counted if pull.counted is not None else pull.announced
        if self.pacs.quiet_s and counted is not None and counted != known:
            why = f"it has {counted} images now, and is fetched when it stops growing"
            self.ledger.postpone_pull(uid, self.owner, why, self.pacs.quiet_s, counted=counted, failed=False)
        elif look.why:
            self._finish(pull, PullState.IGNORED, look.why, counted=counted)
        elif self._is_here(uid, wanted, series):
            self._finish(pull, PullState.FETCHED, "the node has its images already", counted=counted)
        else:
            bounds = TransferLimits(
                time.monotonic() + self.pacs.fetch_s, why_stopped, self.pacs.max_instances, f"pull.{self.name}"
            )
            counts = self.source.fetch(uid, wanted.series_uids, bounds)
            self._check(uid, wanted, series, counts)
            self._finish(pull, PullState.FETCHED, "", counts, counted)

    def _is_here(self, uid: str, wanted: WantedSeries, series: list[FoundSeries]) -> bool:
        """Whether every image was received already, and not only for a comparison with a later study."""
        if self._missing(uid, wanted, series) or any(one.instances is None for one in series):
            return False
        try:
            return not self.ledger.study(uid).fetched
        except InputError:
            return False

    def _missing(self, uid: str, wanted: WantedSeries, series: list[FoundSeries]) -> int:
        """Images that the PACS has of the wanted series and the node has not received."""
        received = self.ledger.images_received(uid)
        there = {one.series_instance_uid: one.instances or 0 for one in series}
        return sum(max(0, there[series_uid] - received.get(series_uid, 0)) for series_uid in wanted.series_uids)

    def _check(self, uid: str, wanted: WantedSeries, series: list[FoundSeries], counts: TransferCounts) -> None:
        """Check that the images arrived here, not at another node."""
        missing, sent = self._missing(uid, wanted, series), counts.completed + counts.warnings
        if not self.ledger.images_received(uid):
            what = f"{self.source.address} reports {sent} images sent, but none arrived"
            raise SourceError(f"{what}; is this node registered there with the right address?", counts=counts)
        if missing:
            what = f"{missing} images of the study did not arrive, or are in quarantine"
            raise SourceError(f"{self.source.address} reports {sent} images sent, but {what}", counts=counts)

    def _finish(
        self, pull: Pull, state: PullState, why: str, counts: TransferCounts | None = None, counted: int | None = None
    ) -> None:
        uid = pull.study_instance_uid
        if self.ledger.finish_pull(uid, self.owner, state, why, counts, counted):
            images = 0 if counts is None else counts.completed + counts.warnings
            _log.info(
                "study pulled" if images else "study not pulled", source=self.name, study=uid, images=images, why=why
            )

    def _put_off(self, pull: Pull, error: SourceError) -> Literal[False]:
        """End an attempt that failed: there is another one, unless the time for attempts is over."""
        uid, why, queue = pull.study_instance_uid, str(error), self.settings.queue
        if self.stopped():
            self.ledger.postpone_pull(uid, self.owner, "the node stops", 0.0, failed=False)
            return False
        pause = pause_s(pull.attempts, queue, 1.0)
        again = not tried_long_enough(pull.attempts, pull.first_attempt_at, queue)
        _log.warning(
            "a study could not be pulled", source=self.name, study=uid, why=why, attempt=pull.attempts, again=again
        )
        if again:
            self.ledger.postpone_pull(uid, self.owner, why, pause)
        else:
            self.ledger.finish_pull(uid, self.owner, PullState.FAILED, why, error.counts)
        return False
