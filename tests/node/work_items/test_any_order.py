"""Whatever happens in whatever order to jobs and manager: only legal requests, and in the end the right state."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from node.ledger import DeliveryState, Job, JobState, WorkItemState
from tests.node.ledger.test_state_machine import LedgerMachine
from tests.node.ledger_factory import uid

from .site import Site, scheduled_item
from .test_work_items import fetcher

pytestmark = pytest.mark.slow

OUTAGES = st.lists(st.sampled_from(["", "", "", "request lost", "answer lost"]), max_size=6)
FINAL = ("COMPLETED", "CANCELED")


class WorkItemMachine(LedgerMachine):
    """One study that keeps changing, and a manager that is often away and cancels things."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url)
        self.site = Site(self.ledger, self.clock, folder)
        self.site.worklist.notes_cancel_requests = True
        self.scheduled: list[str] = []

    @precondition(lambda self: not self.fresh(self.ledger.job(self.opened[-1])) or self.cancelled)
    @rule()
    def route(self) -> None:
        super().route()
        study = uid("study")
        job = self.ledger.job(self.opened[-1])
        self.ledger.mark_routed(study, self.ledger.study(study).revision, [], "routed", job_id=job.id)

    @property
    def cancelled(self) -> bool:
        """Whether the manager has cancelled the newest job."""
        return self.ledger.job(self.opened[-1]).why.startswith("cancelled by the worklist manager")

    @rule(outages=OUTAGES)
    def tell(self, outages: list[str]) -> None:
        self.clock.forward(10)
        self.site.work(*outages)
        self.images_are_here()

    @rule(back=st.integers(1, 3), reason=st.sampled_from(["wrong patient", ""]))
    def request_cancellation(self, back: int, reason: str) -> None:
        uids = self.site.uids()
        if uids:
            self.site.worklist.request_cancellation(uids[-min(back, len(uids))], reason)
            self.site.worklist.refusals.clear()  # those of this request

    @precondition(lambda self: len(self.scheduled) < 2)
    @rule()
    def schedule(self) -> None:
        item = scheduled_item(f"item {len(self.scheduled)}", "study", slices=3)
        self.scheduled.append(self.site.worklist.schedule(item))

    def images_are_here(self) -> None:
        fetcher(self.site).fetch_due()

    @invariant()
    def the_node_asks_for_nothing_illegal(self) -> None:
        refusals = [one for one in self.site.worklist.refusals if "already exists" not in one]  # its answer was lost
        assert refusals == []

    @invariant()
    def steps_are_told_in_order_and_once(self) -> None:
        for item_uid in self.site.uids():
            steps = self.site.worklist.steps(item_uid)
            states = [step for step in steps if not step.startswith("progress")]
            assert states == ["SCHEDULED", "IN PROGRESS", states[-1]][: len(states)]
            assert len(states) < 3 or states[-1] in FINAL
            assert len(states) < 3 or steps[-1] == states[-1]

    def teardown(self) -> None:
        """The manager comes back, and in the end it knows what is so."""
        try:
            for _ in range(2):
                self.site.catch_up()
                self.images_are_here()
            self.the_node_asks_for_nothing_illegal()
            self.steps_are_told_in_order_and_once()
            job = self.ledger.job(self.opened[-1])
            if self.fresh(job) and job.superseded_by is None and job.state is not JobState.SUPERSEDED:
                self.the_manager_knows(job)
            for item in self.ledger.work_items_of(uid("study")):
                if item.state is not WorkItemState.NEW:
                    assert self.site.worklist.state(item.workitem_uid) == item.state
                assert (item.ended_at is not None) == (item.state in FINAL or item.state is WorkItemState.NEW)
            known = {item.workitem_uid for item in self.ledger.work_items_of(uid("study"))}
            assert set(self.site.uids()) - set(self.scheduled) <= known
        finally:
            super().teardown()

    def the_manager_knows(self, job: Job) -> None:
        newest = [item for item in self.ledger.work_items_of(uid("study")) if item.job_id == job.id]
        assert newest or job.correction is not None
        if not newest:
            return
        state = self.site.worklist.state(newest[-1].workitem_uid)
        waits = {delivery.state for delivery in self.ledger.deliveries(job.id) if delivery.commit_by is not None} & {
            DeliveryState.ACCEPTED
        }
        told_before = state == "COMPLETED"  # results sent again, or lost later: COMPLETED cannot be taken back
        cancelled_there = newest[-1].why.startswith("ended by the worklist manager")  # when the job was over
        if job.state is JobState.DELIVERED and not waits:
            assert state == "COMPLETED" or cancelled_there
        elif job.state is JobState.FAILED:
            assert state == "CANCELED" or told_before
        elif job.state is JobState.QUEUED:
            assert state in ("SCHEDULED", "IN PROGRESS")
        else:
            assert state == "IN PROGRESS" or told_before


def test_any_order_of_events_and_outages(fast_folder: Path, sqlite_template: bytes) -> None:
    path = fast_folder / "ledger.sqlite3"

    def machine() -> WorkItemMachine:
        for old in fast_folder.glob("ledger*"):
            old.unlink()
        path.write_bytes(sqlite_template)
        return WorkItemMachine(f"sqlite:///{path}", fast_folder)

    run_state_machine_as_test(machine, settings=SETTINGS)


SETTINGS = settings(
    max_examples=12,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # a failure has too many steps to be made smaller in good time
)
