"""Whatever happens in whatever order: legal changes, bounded attempts, one live job, honest deliveries, kept word."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from node.ledger import AddedMicrobleed, Correction, DeliveryState, Job, JobState, Ledger, LesionVerdict, Priority
from pipeline.errors import InputError
from tests.node.conftest import Clock, empty_database
from tests.node.ledger_factory import findings, instance, open_job, receive, results, settle_and_route, uid

pytestmark = pytest.mark.slow

MAX_ATTEMPTS = 3
LEASE_S = 30.0
COMMIT_WITHIN_S = 20.0
DESTINATIONS = ("pacs", "research")
OWNERS = st.sampled_from(["one", "two"])
CORRECTIONS = st.sampled_from(
    [
        Correction("Ada", "Hospital"),
        Correction("Bob", "Hospital", (LesionVerdict("1", False),)),
        Correction("Bob", "Hospital", (LesionVerdict("1", True),), (AddedMicrobleed((9.0, 9.0, 9.0)),)),
    ]
)
FOUND = {
    **findings(),
    "lesions": [{"id": 1, "tracking_uid": "1", "centroid_lps_mm": [0.0, 0.0, 0.0], "diameter_mm": 4.0}],
}
JOB_CHANGES = {
    ("", "queued"),
    ("queued", "running"),
    ("running", "queued"),
    ("running", "analysed"),
    ("running", "failed"),
    ("analysed", "delivering"),
    ("delivering", "delivered"),
    ("delivering", "failed"),
    ("delivered", "delivered"),  # it learns its successor
    ("delivered", "delivering"),  # sent again: not committed
    ("delivered", "failed"),  # not committed in the end
    ("failed", "queued"),
    ("failed", "delivering"),
    *((state, state) for state in ("queued", "running", "delivering")),  # its priority changes
    *((state, "superseded") for state in ("queued", "running", "delivering", "failed")),
}
DELIVERY_CHANGES = {
    ("waiting", "sending"),
    ("sending", "waiting"),
    ("sending", "accepted"),
    ("sending", "failed"),
    ("sending", "cancelled"),
    ("waiting", "cancelled"),
    ("failed", "waiting"),
    ("accepted", "committed"),
    ("accepted", "waiting"),
    ("accepted", "failed"),
    ("committed", "waiting"),  # sent again by hand
}


class LedgerMachine(RuleBasedStateMachine):
    """One study that keeps changing, two workers, two senders."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.clock = Clock()
        self.ledger = Ledger(url, clock=self.clock)
        self.slices = 3
        self.opened: list[int] = []
        self.claimed: list[tuple[int, str]] = []
        self.sending: list[tuple[int, str]] = []
        self.accepted: set[int] = set()
        self.transactions: list[str] = []
        receive(self.ledger, "study", self.clock())
        settle_and_route(self.ledger, "study")

    def teardown(self) -> None:
        self.ledger.close()

    @initialize()
    def first(self) -> None:
        self.route()

    @precondition(lambda self: not self.fresh(self.ledger.job(self.opened[-1])))
    @rule()
    def route(self) -> None:
        self.ledger.settle_series(uid("study", "swi"), "quiet")
        job = open_job(self.ledger, key=f"{self.slices} slices", destinations=DESTINATIONS)
        if job.id not in self.opened:
            self.opened.append(job.id)
            corrected = [j for j in self.ledger.jobs_of_study(uid("study")) if j.correction is not None]
            assert len(job.warnings) == bool(corrected)
            assert not corrected or f"(job {corrected[0].id})" in job.warnings[0]

    @rule(back=st.integers(1, 3), correction=CORRECTIONS)
    def correct(self, back: int, correction: Correction) -> None:
        """Exactly a current, analysed result whose images are as they were can be corrected; the same twice is one."""
        before = self.ledger.job(self.opened[-min(back, len(self.opened))])
        try:
            job = self.ledger.open_correction(before.id, correction, "reader")
        except InputError as error:
            said = "superseded meanwhile by job" in str(error)
            assert not self.correctable(before) and said == (before.superseded_by is not None)  # noqa: PT018
            return
        assert job.correction == correction
        if job.id in self.opened:
            assert before.superseded_by == job.id
            return
        assert self.correctable(before)
        assert job.supersedes == before.id
        assert (job.destinations, job.warnings) == (DESTINATIONS, ())
        self.opened.append(job.id)
        again = open_job(self.ledger, key=f"{self.slices} slices", destinations=DESTINATIONS)
        assert again.id == job.id  # the same images routed again undo nobody's reading

    def correctable(self, job: Job) -> bool:
        if job.superseded_by is not None or job.state is JobState.SUPERSEDED or not self.fresh(job):
            return False
        failed_correction = job.correction is not None and job.state is JobState.FAILED
        return job.analysed_at is not None or failed_correction

    @rule(rarely=st.integers(0, 5))
    def late_slice(self, rarely: int) -> None:
        if rarely != 5:
            return
        self.ledger.record_instance(instance("study", "swi", self.slices, self.clock.forward(1)))
        self.slices += 1

    @rule(back=st.integers(1, 3), owner=OWNERS)
    def claim(self, back: int, owner: str) -> None:
        job_id = self.opened[-min(back, len(self.opened))]
        before = self.ledger.job(job_id)
        job = self.ledger.claim_job(job_id, owner, LEASE_S)
        assert (job is not None) == (before.state is JobState.QUEUED and self.fresh(before))
        if job is not None:
            self.claimed.append((job_id, owner))

    def fresh(self, job: Job) -> bool:
        """Whether a job is of the images as they are now; a correction is of those of what it corrects."""
        while job.correction is not None:
            assert job.supersedes is not None
            job = self.ledger.job(job.supersedes)
        return job.key == f"{self.slices} slices"

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), kinds=st.sampled_from([("sr",), ("sr", "seg")]))
    def finish(self, data: st.DataObject, kinds: tuple[str, ...]) -> None:
        job_id, owner = data.draw(st.sampled_from(self.claimed[-2:]))
        job = self.ledger.job(job_id)
        mine = job.state is JobState.RUNNING and job.owner == owner
        assert self.ledger.finish_analysis(job_id, owner, FOUND, results(*kinds)) == mine

    @rule(kinds=st.sampled_from([("sr",), ("sr", "seg")]))
    def analyse(self, kinds: tuple[str, ...]) -> None:
        job_id = self.opened[-1]
        if self.ledger.claim_job(job_id, "one", LEASE_S) is not None:
            assert self.ledger.finish_analysis(job_id, "one", FOUND, results(*kinds))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), permanent=st.booleans())
    def fail(self, data: st.DataObject, permanent: bool) -> None:
        job_id, owner = data.draw(st.sampled_from(self.claimed[-2:]))
        self.ledger.fail_attempt(job_id, owner, "broken", MAX_ATTEMPTS, permanent)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        self.ledger.release_job(*data.draw(st.sampled_from(self.claimed[-2:])))

    @rule(seconds=st.sampled_from([1.0, LEASE_S + 1]))
    def time_passes(self, seconds: float) -> None:
        self.ledger.expire_leases(self.clock.forward(seconds), MAX_ATTEMPTS)

    @precondition(lambda self: self.ledger.job(self.opened[-1]).state is JobState.FAILED)
    @rule()
    def retry(self) -> None:
        self.ledger.retry(self.opened[-1], "jane")

    @rule(back=st.integers(1, 3))
    def send_again(self, back: int) -> None:
        """By hand: exactly a current result can be sent again, and then everything of it is."""
        job = self.ledger.job(self.opened[-min(back, len(self.opened))])
        has_result = job.analysed_at is not None and job.state in ("delivering", "delivered", "failed")
        try:
            after = self.ledger.send_again(job.id, "jane")
        except InputError:
            assert job.superseded_by is not None or not has_result
            return
        assert job.superseded_by is None
        assert has_result
        states = {delivery.state for delivery in self.ledger.deliveries(job.id)}
        assert states <= {DeliveryState.WAITING, DeliveryState.SENDING}
        assert after.state is (JobState.DELIVERING if states else job.state)
        self.accepted -= {delivery.id for delivery in self.ledger.deliveries(job.id)}

    @rule(back=st.integers(1, 3), priority=st.sampled_from(Priority))
    def set_priority(self, back: int, priority: Priority) -> None:
        job = self.ledger.job(self.opened[-min(back, len(self.opened))])
        try:
            assert self.ledger.set_priority(job.id, priority, "jane").priority is priority
        except InputError:
            assert job.state in (JobState.DELIVERED, JobState.FAILED, JobState.SUPERSEDED)

    @rule(destination=st.sampled_from(DESTINATIONS), owner=OWNERS, limit=st.integers(1, 3))
    def take_deliveries(self, destination: str, owner: str, limit: int) -> None:
        self.request_commitment(destination)
        due = destination in self.ledger.due_destinations(self.clock())
        taken = self.ledger.claim_deliveries(destination, owner, LEASE_S, limit)
        assert bool(taken) == due
        assert not {delivery.id for delivery in taken} & self.accepted  # never sent twice
        self.sending += [(delivery.id, owner) for delivery in taken]

    @precondition(lambda self: self.sending)
    @rule(data=st.data(), within_s=st.sampled_from([None, COMMIT_WITHIN_S]))
    def accept(self, data: st.DataObject, within_s: float | None) -> None:
        delivery, owner = data.draw(st.sampled_from(self.sending[-4:]))
        if self.ledger.delivery_accepted(delivery, owner, 0, "", within_s):
            assert delivery not in self.accepted
            self.accepted.add(delivery)

    @rule(destination=st.sampled_from(DESTINATIONS), within_s=st.sampled_from([None, COMMIT_WITHIN_S]))
    def send(self, destination: str, within_s: float | None) -> None:
        for delivery in self.ledger.claim_deliveries(destination, "one", LEASE_S, 10):
            assert self.ledger.delivery_accepted(delivery.id, "one", 0, "", within_s)
            assert delivery.id not in self.accepted
            self.accepted.add(delivery.id)

    @rule(destination=st.sampled_from(DESTINATIONS))
    def request_commitment(self, destination: str) -> None:
        transaction = uid("transaction", len(self.transactions))
        if self.ledger.begin_commitment(destination, transaction, 10):
            self.transactions.append(transaction)

    @precondition(lambda self: self.transactions)
    @rule(data=st.data(), committed=st.sets(st.sampled_from(["sr", "seg"])), others_fail=st.booleans())
    def report_commitment(self, data: st.DataObject, committed: set[str], others_fail: bool) -> None:
        transaction = data.draw(st.sampled_from(self.transactions[-2:]))
        kept = {uid("result", kind) for kind in committed}
        failed = {uid("result", kind): "lost" for kind in {"sr", "seg"} - committed} if others_fail else {}
        self.ledger.record_commitment(transaction, kept, failed, "pacs")
        self.forget_what_is_sent_again()

    @rule()
    def commitments_expire(self) -> None:
        self.ledger.expire_commitments(self.clock())
        self.forget_what_is_sent_again()

    def forget_what_is_sent_again(self) -> None:
        """What was not committed may be accepted a second time, and no more often unless a person retries."""
        for job_id in self.opened:
            for delivery in self.ledger.deliveries(job_id):
                assert delivery.commit_resent <= 1
                if delivery.state in (DeliveryState.WAITING, DeliveryState.FAILED):
                    self.accepted.discard(delivery.id)

    @precondition(lambda self: self.sending)
    @rule(data=st.data(), again=st.booleans())
    def refuse(self, data: st.DataObject, again: bool) -> None:
        delivery, owner = data.draw(st.sampled_from(self.sending[-4:]))
        self.ledger.delivery_failed(delivery, owner, "refused", self.clock() if again else None)

    @invariant()
    def changes_are_legal(self) -> None:
        for job_id in self.opened:
            state, attempts = "", 0
            for change in self.ledger.history("job", job_id):
                assert change.from_state == state
                assert (change.from_state, change.to_state) in JOB_CHANGES
                state = change.to_state
                attempts += state == "running" != change.from_state
                attempts -= change.why.startswith("given back") or "fell silent" in change.why
                attempts = 0 if change.from_state == "failed" else attempts
                assert attempts <= MAX_ATTEMPTS
            assert self.ledger.job(job_id).state == state

    @invariant()
    def one_job_is_live(self) -> None:
        jobs = self.ledger.jobs_of_study(uid("study"))
        live = [job for job in jobs if job.superseded_by is None and job.state is not JobState.SUPERSEDED]
        assert len(live) <= 1
        assert len({job.key for job in live}) == len(live)
        if live:
            assert self.ledger.study(uid("study")).current_job_id == live[0].id

    @invariant()
    def deliveries_are_honest(self) -> None:
        moving = {DeliveryState.WAITING, DeliveryState.SENDING}
        for job_id in self.opened:
            job, deliveries = self.ledger.job(job_id), self.ledger.deliveries(job_id)
            states = {delivery.state for delivery in deliveries}
            if job.state is JobState.DELIVERED:
                assert states <= {DeliveryState.ACCEPTED, DeliveryState.COMMITTED} or job.superseded_by is not None
            elif job.state is JobState.DELIVERING:
                assert states & moving
            elif job.state is JobState.SUPERSEDED:
                assert DeliveryState.WAITING not in states
            elif job.state is JobState.FAILED:
                assert not states & moving
            else:
                assert not states
            for delivery in deliveries:
                changes = self.ledger.history("delivery", delivery.id)
                assert {(c.from_state, c.to_state) for c in changes} <= DELIVERY_CHANGES


def test_any_order_of_events_on_sqlite(fast_folder: Path, sqlite_template: bytes) -> None:
    path = fast_folder / "ledger.sqlite3"

    def machine() -> LedgerMachine:
        for old in fast_folder.iterdir():
            old.unlink()
        path.write_bytes(sqlite_template)
        return LedgerMachine(f"sqlite:///{path}")

    run_state_machine_as_test(machine, settings=SETTINGS)


def test_any_order_of_events_on_postgresql(postgresql_url: str) -> None:
    def machine() -> LedgerMachine:
        empty_database(postgresql_url)
        return LedgerMachine(postgresql_url)

    run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=8))


SETTINGS = settings(max_examples=20, stateful_step_count=30, suppress_health_check=list(HealthCheck), derandomize=True)
