"""How is one work item brought to its wanted state at the manager? From the state that it has there, step by step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from pydicom import Dataset

from node.archive import Archive
from node.ledger import DeliveryState, Job, JobState, Ledger, WorkItem, WorkItemState
from node.settings import Settings
from node.settings.work_items import WorkItemSettings
from node.text import one_line

from .datasets import WorkItemWriter
from .instances import input_references, output_references
from .manager import ItemRefusedError, WorklistManager
from .progress import WantedState, wanted_state

_SCHEDULED, _IN_PROGRESS = WorkItemState.SCHEDULED, WorkItemState.IN_PROGRESS
_MOST_CHARACTERS = 1024  # of an ST, as Procedure Step Progress Description
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class WorkItemUpdate:
    """Brings items up to date."""

    settings: Settings
    where: WorkItemSettings
    ledger: Ledger
    archive: Archive
    worklist: WorklistManager

    def bring_up_to_date(self, item: WorkItem) -> None:
        """Take every step that is due.

        Raises
        ------
        ManagerAwayError
            The manager was not told everything; the next attempt goes on from there.
        ItemRefusedError
            The manager did not take a step.
        """
        job = self.ledger.job(item.job_id) if item.job_id is not None else None
        wanted = self._wanted(item, job)
        if item.state == WorkItemState.NEW and job is not None:
            item = self._create(item, job)
        found = self.worklist.retrieve(item.workitem_uid)
        if found is None:
            self._gone(item, wanted)
            return
        if item.state == WorkItemState.NEW:  # it was created, and the answer was lost
            item = self.ledger.note_work_item(item.workitem_uid, _SCHEDULED)
        state = str(found.get("ProcedureStepState") or "")
        if state in (WorkItemState.CANCELED, WorkItemState.COMPLETED):
            self._ended(item, wanted, job, WorkItemState(state), _reason(found))
        elif state == _SCHEDULED:
            self._go_on_from_scheduled(item, wanted, job)
        elif item.state == _IN_PROGRESS or self._is_mine(item, wanted):
            item = self._in_progress(item, item.told if item.state == _IN_PROGRESS else wanted.words)
            item, wanted = self._answer_cancel_request(item, wanted, job, found)
            self._tell(item, wanted, job)
        else:
            _log.info("another system performs a work item", work_item=item.workitem_uid)
            self.ledger.end_work_item(item, _IN_PROGRESS, "another system performs it")

    def _wanted(self, item: WorkItem, job: Job | None) -> WantedState:
        not_analysed = None
        if job is None and item.fetch_at is None:
            not_analysed = self.ledger.study_awaits(item.study_instance_uid)
        delivered = self.ledger.deliveries(job.id) if job is not None and job.state == JobState.DELIVERED else ()
        uncommitted = any(one.state == DeliveryState.ACCEPTED and one.commit_by is not None for one in delivered)
        wanted = wanted_state(item, job, not_analysed, uncommitted=uncommitted)
        return replace(wanted, words=one_line(wanted.words)[:_MOST_CHARACTERS])  # as it comes back from the manager

    def _forgo(self, item: WorkItem, wanted: WantedState) -> None:
        """The job of an item that the manager never heard of was superseded, and no other has taken its place."""
        if wanted.state.is_final:
            self.ledger.end_work_item(item, WorkItemState.NEW, wanted.words)
        else:
            self.ledger.work_item_told(item, self.where.poll_s)

    def _create(self, item: WorkItem, job: Job) -> WorkItem:
        study = self.ledger.study(job.study_instance_uid)
        inputs = list(input_references(self.ledger, job, self.settings.ae_title))
        self.worklist.create(item.workitem_uid, self._writer.new_item(item, job, study, inputs))
        _log.info("work item created", work_item=item.workitem_uid, job=job.id)
        return self.ledger.note_work_item(item.workitem_uid, _SCHEDULED)

    def _go_on_from_scheduled(self, item: WorkItem, wanted: WantedState, job: Job | None) -> None:
        if wanted.state == _SCHEDULED:
            self._told(item, wanted, job)
            return
        self.worklist.change_state(item.workitem_uid, item.transaction_uid, _IN_PROGRESS)
        self._tell(self._in_progress(item, ""), wanted, job)

    def _in_progress(self, item: WorkItem, told: str) -> WorkItem:
        """Record that this node has claimed an item, and the progress that the manager was told."""
        if item.state == _IN_PROGRESS:
            return item
        _log.info("work item claimed", work_item=item.workitem_uid, job=item.job_id)
        return self.ledger.note_work_item(item.workitem_uid, _IN_PROGRESS, told=told)

    def _is_mine(self, item: WorkItem, wanted: WantedState) -> bool:
        """Whether it was this node that claimed an item, and only the answer was lost: its Transaction UID tells."""
        try:
            self.worklist.update(
                item.workitem_uid, item.transaction_uid, self._writer.progress(item.transaction_uid, wanted.words)
            )
        except ItemRefusedError:
            return False
        return True

    def _tell(self, item: WorkItem, wanted: WantedState, job: Job | None) -> None:
        """Tell the progress of an item that this node has claimed, or its end."""
        uid, transaction_uid = item.workitem_uid, item.transaction_uid
        if not wanted.state.is_final:
            if wanted.words != item.told:
                self.worklist.update(uid, transaction_uid, self._writer.progress(transaction_uid, wanted.words))
            self._told(item, wanted, job)
            return
        outputs = output_references(self.ledger, self.archive, self.settings, job) if job is not None else []
        item = self.ledger.note_work_item(uid, item.state, told=wanted.words)
        final = self._writer.final(transaction_uid, wanted, job, outputs, datetime.now(UTC))
        self.worklist.update(uid, transaction_uid, final)
        self.worklist.change_state(uid, transaction_uid, wanted.state)
        _log.info("work item ended", work_item=uid, job=item.job_id, state=wanted.state.value)
        self.ledger.end_work_item(item, wanted.state, wanted.words)

    def _told(self, item: WorkItem, wanted: WantedState, job: Job | None) -> None:
        told_job_state = job.state if job is not None else ""
        self.ledger.work_item_told(item, self.where.poll_s, told=wanted.words, told_job_state=told_job_state)

    def _ended(self, item: WorkItem, wanted: WantedState, job: Job | None, state: WorkItemState, reason: str) -> None:
        """The item has a final state at the manager: the node set it and the answer was lost, or somebody else did."""
        if item.state == _IN_PROGRESS and wanted.state == state:
            self.ledger.end_work_item(item, state, wanted.words)
            return
        cancelled = False
        if state == WorkItemState.CANCELED and job is not None:
            cancelled = self.ledger.cancel_job(job.id, _cancelled_by_manager(reason), "worklist manager")
        _log.warning(
            "the worklist manager ended a work item",
            work_item=item.workitem_uid, job=item.job_id, state=state.value, why=reason, job_cancelled=cancelled,
        )  # fmt: skip
        self.ledger.end_work_item(item, state, f"ended by the worklist manager: {reason or 'without a reason'}")

    def _gone(self, item: WorkItem, wanted: WantedState) -> None:
        """The manager does not have the item: it never had, or has removed what ended."""
        if item.state == WorkItemState.NEW:
            self._forgo(item, wanted)
            return
        if item.state == _IN_PROGRESS and wanted.state.is_final and item.told == wanted.words:
            self.ledger.end_work_item(item, wanted.state, wanted.words)
            return
        _log.warning("the worklist manager no longer has a work item", work_item=item.workitem_uid, job=item.job_id)
        self.ledger.end_work_item(item, item.state, "the worklist manager no longer has it")

    def _answer_cancel_request(
        self, item: WorkItem, wanted: WantedState, job: Job | None, found: Dataset
    ) -> tuple[WorkItem, WantedState]:
        """Cancel a job that waits if the manager has noted in the item that it is to be cancelled, or say why not."""
        reason = _reason(found)
        if not reason or reason == item.told or wanted.state.is_final:
            return item, wanted
        if job is None or self.ledger.cancel_job(job.id, _cancelled_by_manager(reason), "worklist manager"):
            item = self.ledger.note_work_item(item.workitem_uid, item.state, failure=_cancelled_by_manager(reason))
        else:
            answer = "cannot be cancelled: the analysis has begun"
            item = self.ledger.note_work_item(item.workitem_uid, item.state, cancel_answer=answer, told="")
        _log.info("cancellation requested", work_item=item.workitem_uid, job=item.job_id, granted=bool(item.failure))
        return item, self._wanted(item, job)

    @property
    def _writer(self) -> WorkItemWriter:
        return WorkItemWriter(self.where, self.settings.ae_title, self.settings.zone)


def _cancelled_by_manager(reason: str) -> str:
    return f"cancelled by the worklist manager: {reason or 'without a reason'}"


def _reason(found: Dataset) -> str:
    """Why an item is cancelled, or is to be, as it says itself."""
    for progress in found.get("ProcedureStepProgressInformationSequence") or ():
        if text := one_line(str(progress.get("ReasonForCancellation") or ""))[:_MOST_CHARACTERS]:
            return text
        for code in progress.get("ProcedureStepDiscontinuationReasonCodeSequence") or ():
            if text := one_line(str(code.get("CodeMeaning") or code.get("CodeValue") or "")):
                return text
    return ""
