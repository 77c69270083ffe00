"""When is the worklist manager told what? In every round, of each item whose job has changed or whose time has come.

Each time the node first asks the manager for the state of the item and then takes the steps from there to the wanted
state: create, claim, progress, complete or cancel. So an answer that was lost does no harm, and nothing is told in a
wrong order. While the manager is down nothing is lost either: the ledger keeps what it was last told.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import structlog
from pydicom import Dataset
from sqlalchemy.exc import SQLAlchemyError

from node.archive import Archive, is_uid
from node.ledger import Ledger, WorkItem, WorkItemInput, WorkItemState
from node.logs import explain
from node.retry import pause_s
from node.settings import Settings
from node.settings.work_items import CodedTerm, WorkItemSettings

from .fetcher import WorkItemFetcher
from .instances import has_code, read_inputs
from .manager import ItemRefusedError, ManagerAwayError, WorklistManager
from .update import WorkItemUpdate

_log = structlog.get_logger(__name__)


@dataclass
class WorkItemPerformer:
    """Keeps the work items of the manager up to date, and claims those that are for this node.

    Parameters
    ----------
    settings : Settings
        ``work_items`` says where the manager is; if it is not set, nothing happens.
    """

    settings: Settings
    ledger: Ledger
    archive: Archive
    worklist: WorklistManager | None = None
    clock: Callable[[], float] = time.monotonic
    _threads: dict[str, threading.Thread] = field(default_factory=dict)
    _fetcher: WorkItemFetcher | None = None
    _failures: int = 0
    _away: str = ""
    _refusal: str = ""
    _resume_at: float = 0.0
    _search_at: float = 0.0
    _passed_over: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        where = self.settings.work_items
        if where is not None:
            self.worklist = self.worklist or WorklistManager(where)
            self._fetcher = WorkItemFetcher(self.settings, where, self.ledger, self.archive)

    def start(self) -> None:
        """Begin to tell the manager, or end it if there is none any more."""
        if self.settings.work_items is None:
            self.ledger.end_work_items()
        else:
            self.ledger.begin_work_items()

    def stop(self) -> None:
        """End what goes on in the threads, or leave it to the next start."""
        if self._fetcher is not None:
            self._fetcher.stopping.set()
        for thread in self._threads.values():
            thread.join(self.settings.queue.grace_s)

    def start_working(self) -> None:
        """Tell and fetch what is due, in threads, so that a manager that hangs holds nothing up."""
        if self._fetcher is None:
            return
        for name, work in (("work items", self.work), ("work item images", self._fetcher.fetch_due)):
            if name not in self._threads or not self._threads[name].is_alive():
                thread = threading.Thread(target=_outlive_outages, args=(work,), name=name, daemon=True)
                self._threads[name] = thread
                thread.start()

    def work(self) -> None:
        """Tell the manager everything that is due, and look for scheduled items from time to time."""
        where = self.settings.work_items
        if where is None:
            return
        self.ledger.follow_jobs(create=where.create)
        if self.clock() < self._resume_at:
            return
        try:
            for item in self.ledger.due_work_items():
                self._attend(item, where)
            if where.perform and self.clock() >= self._search_at:
                self._search_at = self.clock() + where.poll_s
                self._search(where)
        except ManagerAwayError as error:
            self._pause(str(error))
        else:
            if self._away:
                _log.info("the worklist manager answers again", address=where.address)
            self._failures, self._away = 0, ""

    def _pause(self, why: str) -> None:
        """Leave the manager alone for a while; the log says so when it begins, and when the reason changes."""
        self._failures += 1
        self._resume_at = self.clock() + self._retry_s(self._failures)
        if self._away != why:
            _log.warning("the worklist manager cannot be updated now; the node will try again", why=why)
        self._away = why

    def _retry_s(self, attempts: int) -> float:
        return pause_s(attempts, self.settings.queue, 0.5 + random.random() / 2)

    def _attend(self, item: WorkItem, where: WorkItemSettings) -> None:
        """Tell the manager about one item. If it refuses, it is told again later, and the other items go on."""
        if not self.ledger.take_work_item(item):
            return
        try:
            WorkItemUpdate(self.settings, where, self.ledger, self.archive, self._manager).bring_up_to_date(item)
        except ManagerAwayError as error:
            self.ledger.postpone_work_item(item, 0.0, str(error))
            raise
        except ItemRefusedError as error:
            self._refused(item, str(error))
        except SQLAlchemyError:
            raise
        except Exception as error:  # one item that the node cannot deal with must not hold up the others for ever
            _log.exception("a work item cannot be brought up to date", work_item=item.workitem_uid)
            self._refused(item, explain(error))

    def _refused(self, item: WorkItem, why: str) -> None:
        queue, attempts = self.settings.queue, item.attempts + 1
        if item.why != why:
            _log.warning("the worklist manager refuses", work_item=item.workitem_uid, why=why)
        if attempts * queue.retry_longest_s > queue.retry_for_s:
            self.ledger.end_work_item(item, item.state, f"given up after {attempts} attempts: {why}")
        else:
            self.ledger.postpone_work_item(item, self._retry_s(attempts), why)

    @property
    def _manager(self) -> WorklistManager:
        assert self.worklist is not None  # noqa: S101 - for the type checker
        return self.worklist

    def _search(self, where: WorkItemSettings) -> None:
        try:
            self._claim_scheduled(where)
        except ItemRefusedError as error:
            if self._refusal != str(error):
                _log.warning("the worklist manager refuses a search", address=where.address, why=str(error))
            self._refusal = str(error)
        else:
            self._refusal = ""

    def _claim_scheduled(self, where: WorkItemSettings) -> None:
        """Enter scheduled items that are for this node, and claim them at once."""
        for uid, found in self._scheduled(where):
            if self.ledger.is_known_work_item(uid) or uid in self._passed_over:
                continue
            inputs = self._inputs_of(uid, found)
            if not inputs:
                self._passed_over.add(uid)
                _log.warning("a work item names no images of a study; it is left alone", work_item=uid)
            elif self.ledger.claim_scheduled(uid, inputs):
                _log.info("work item found", work_item=uid, study=inputs[0].study_instance_uid)
        for item in self.ledger.due_work_items():
            if item.claimed and item.state == WorkItemState.SCHEDULED:
                self._attend(item, where)

    def _inputs_of(self, uid: str, found: Dataset) -> tuple[WorkItemInput, ...]:
        """What an item refers to: a match of a search need not say it."""
        try:
            return read_inputs(self._manager.retrieve(uid) or found)
        except ItemRefusedError:
            return read_inputs(found)

    def _scheduled(self, where: WorkItemSettings) -> Iterator[tuple[str, Dataset]]:
        """Scheduled items that are ready and for this node: also judged here, as some managers match only in part."""
        station = where.station(self.settings.ae_title)
        match = {"ProcedureStepState": "SCHEDULED", "InputReadinessState": "READY"}
        if where.station_class is None and not where.unassigned:
            match["ScheduledStationNameCodeSequence.CodeValue"] = station[0]
        for code in where.workitem_codes:
            for item in self._manager.search({**match, "ScheduledWorkitemCodeSequence.CodeValue": code[0]}):
                if _is_ours(item, where, station):
                    yield str(item.SOPInstanceUID), item


def _is_ours(item: Dataset, where: WorkItemSettings, station: CodedTerm) -> bool:
    if (item.get("ProcedureStepState"), item.get("InputReadinessState", "READY")) != ("SCHEDULED", "READY"):
        return False
    if not is_uid(str(item.get("SOPInstanceUID") or "")) or not has_code(
        item, "ScheduledWorkitemCodeSequence", *where.workitem_codes
    ):
        return False
    if item.get("ScheduledStationNameCodeSequence"):
        return has_code(item, "ScheduledStationNameCodeSequence", station)
    if item.get("ScheduledStationClassCodeSequence"):
        return has_code(item, "ScheduledStationClassCodeSequence", where.station_class)
    return where.unassigned


def _outlive_outages(work: Callable[[], None]) -> None:
    try:
        work()
    except SQLAlchemyError as error:  # the next round tries again
        _log.warning("work items cannot be read or recorded now", error=type(error).__name__)
