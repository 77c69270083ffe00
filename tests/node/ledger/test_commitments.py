"""Storage commitment in the ledger: what was accepted is committed, or sent again, or fails where people see it."""

from __future__ import annotations

from datetime import timedelta

from node.ledger import Delivery, DeliveryState, Job, JobState, Ledger
from tests.node.conftest import Clock
from tests.node.ledger_factory import analyse, job_of_new_study, open_job, uid

WITHIN_S = 60.0
TRANSACTION = "2.25.1"


def accepted(ledger: Ledger, clock: Clock, *kinds: str) -> Job:
    """A job whose results were accepted by a destination that commits."""
    job = job_of_new_study(ledger, clock())
    analyse(ledger, job, *(kinds or ("sr", "seg")))
    accept_again(ledger)
    return job


def accept_again(ledger: Ledger) -> None:
    for delivery in ledger.claim_deliveries("pacs", "sender", 30, 10):
        assert ledger.delivery_accepted(delivery.id, "sender", 0, "stored", WITHIN_S)


def states(ledger: Ledger, job: Job) -> list[str]:
    return [delivery.state.value for delivery in ledger.deliveries(job.id)]


def answers(deliveries: list[Delivery]) -> set[str]:
    return {delivery.answer for delivery in deliveries}


def test_what_is_reported_as_kept_is_committed(ledger: Ledger, clock: Clock) -> None:
    job = accepted(ledger, clock)
    assert ledger.job(job.id).state is JobState.DELIVERED
    assert ledger.due_destinations(clock()) == ["pacs"]
    assert len(ledger.begin_commitment("pacs", TRANSACTION, 10)) == 2
    assert ledger.due_destinations(clock()) == []
    assert ledger.counts().uncommitted_by_destination == {"pacs": 2}
    assert ledger.record_commitment(TRANSACTION, {uid("result", "sr"), uid("result", "seg")}, {}, "PACS")
    assert states(ledger, job) == ["committed", "committed"]
    assert answers(ledger.deliveries(job.id)) == {"stored; committed to keep it"}
    assert ledger.history("delivery", ledger.deliveries(job.id)[0].id)[-1].actor == "PACS"
    assert ledger.job(job.id).state is JobState.DELIVERED
    assert ledger.expire_commitments(clock.forward(WITHIN_S + 1)) == []
    assert ledger.counts().deliveries == {"committed": 2}
    assert ledger.counts().uncommitted_by_destination == {}


def test_a_report_is_taken_once_and_only_for_its_transaction(ledger: Ledger, clock: Clock) -> None:
    job = accepted(ledger, clock)
    ledger.begin_commitment("pacs", TRANSACTION, 10)
    assert not ledger.record_commitment("2.25.2", {uid("result", "sr")}, {}, "PACS")
    assert ledger.record_commitment(TRANSACTION, {uid("result", "sr"), "1.2.3"}, {}, "PACS")
    assert states(ledger, job) == ["committed", "accepted"]  # a second report may name the other
    assert ledger.record_commitment(TRANSACTION, {uid("result", "seg")}, {}, "PACS")
    assert not ledger.record_commitment(TRANSACTION, {uid("result", "seg")}, {}, "PACS")
    assert states(ledger, job) == ["committed", "committed"]


def test_what_is_not_committed_is_sent_again_once_and_then_fails(ledger: Ledger, clock: Clock) -> None:
    job = accepted(ledger, clock)
    ledger.begin_commitment("pacs", TRANSACTION, 10)
    ledger.record_commitment(TRANSACTION, {uid("result", "seg")}, {uid("result", "sr"): "it is lost"}, "PACS")
    assert sorted(states(ledger, job)) == ["committed", "waiting"]
    again = ledger.job(job.id)
    assert (again.state, again.finished_at) == (JobState.DELIVERING, None)
    assert ledger.history("job", job.id)[-1].why == "sent again to pacs: stored, but not committed: it is lost"

    accept_again(ledger)
    assert ledger.job(job.id).state is JobState.DELIVERED
    ledger.begin_commitment("pacs", "2.25.2", 10)
    ledger.record_commitment("2.25.2", set(), {uid("result", "sr"): "it is lost"}, "PACS")
    assert sorted(states(ledger, job)) == ["committed", "failed"]
    failed = ledger.job(job.id)
    assert failed.state is JobState.FAILED
    assert failed.why == "not delivered to pacs: stored, but not committed: it is lost"
    assert failed.finished_at == clock()

    assert ledger.retry(job.id, "jane").state is JobState.DELIVERING
    accept_again(ledger)
    ledger.begin_commitment("pacs", "2.25.3", 10)
    ledger.record_commitment("2.25.3", {uid("result", "sr")}, {}, "PACS")
    assert states(ledger, job) == ["committed", "committed"]


def test_what_is_not_reported_in_time_is_sent_again(ledger: Ledger, clock: Clock) -> None:
    job = accepted(ledger, clock, "sr")
    ledger.begin_commitment("pacs", TRANSACTION, 10)
    assert ledger.expire_commitments(clock.forward(WITHIN_S - 1)) == []
    assert len(ledger.expire_commitments(clock.forward(2))) == 1
    assert states(ledger, job) == ["waiting"]
    assert answers(ledger.deliveries(job.id)) == {"stored, but not committed: it did not report in time"}
    assert not ledger.record_commitment(TRANSACTION, {uid("result", "sr")}, {}, "PACS"), "that was too late"


def test_a_destination_that_cannot_be_asked_is_asked_again_and_says_why_in_the_end(
    ledger: Ledger, clock: Clock
) -> None:
    job = accepted(ledger, clock, "sr")
    for _ in range(2):
        assert len(ledger.begin_commitment("pacs", TRANSACTION, 10)) == 1
        ledger.postpone_commitment(TRANSACTION, "PACS@host:104 does not answer", clock() + timedelta(seconds=10))
        assert ledger.due_destinations(clock()) == []
        assert ledger.due_destinations(clock.forward(10)) == ["pacs"]
    assert answers(ledger.deliveries(job.id)) == {"stored; not committed yet: PACS@host:104 does not answer"}
    ledger.expire_commitments(clock.forward(WITHIN_S))
    assert answers(ledger.deliveries(job.id)) == {"stored, but not committed: PACS@host:104 does not answer"}


def test_a_superseded_result_is_not_sent_again(ledger: Ledger, clock: Clock) -> None:
    job = accepted(ledger, clock, "sr")
    ledger.begin_commitment("pacs", TRANSACTION, 10)
    open_job(ledger, "study", "another key")
    ledger.expire_commitments(clock.forward(WITHIN_S + 1))
    assert states(ledger, job) == ["failed"]
    assert ledger.job(job.id).state is JobState.DELIVERED


def test_images_stay_until_it_is_settled_whether_results_must_be_sent_again(ledger: Ledger, clock: Clock) -> None:
    accepted(ledger, clock, "sr")
    later = clock.forward(10)
    assert ledger.removable_studies(later, 0) == []
    ledger.begin_commitment("pacs", TRANSACTION, 10)
    ledger.record_commitment(TRANSACTION, {uid("result", "sr")}, {}, "PACS")
    assert ledger.removable_studies(later, 0) == [uid("study")]


def test_without_commitment_nothing_is_asked(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    analyse(ledger, job, "sr")
    (delivery,) = ledger.claim_deliveries("pacs", "sender", 30, 10)
    assert ledger.delivery_accepted(delivery.id, "sender", 0)
    assert ledger.due_destinations(clock.forward(1e6)) == []
    assert ledger.expire_commitments(clock()) == []
    assert ledger.deliveries(job.id)[0].state is DeliveryState.ACCEPTED


def test_a_clock_that_was_set_back_does_not_put_the_end_off(ledger: Ledger, clock: Clock) -> None:
    job = accepted(ledger, clock, "sr")
    ledger.begin_commitment("pacs", TRANSACTION, 10)
    now = clock.forward(-86_400 * 40)
    ledger.correct_future_times(now, 30, 900)
    ledger.expire_commitments(clock.forward(1))
    assert states(ledger, job) == ["waiting"]
