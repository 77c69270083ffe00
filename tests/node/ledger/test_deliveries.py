from __future__ import annotations

from node.ledger import DeliveryState, JobState, Ledger, Priority
from tests.node.conftest import Clock
from tests.node.ledger_factory import analyse, deliver, job_of_new_study


def test_every_object_goes_to_every_destination(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock(), destinations=("pacs", "research"))
    analyse(ledger, job, "sr", "seg", "capture")
    assert ledger.due_destinations(clock()) == ["pacs", "research"]
    assert len(ledger.deliveries(job.id)) == 6
    assert deliver(ledger, "pacs") == 3
    assert ledger.job(job.id).state is JobState.DELIVERING
    assert ledger.due_destinations(clock()) == ["research"]
    assert deliver(ledger, "research") == 3
    assert ledger.job(job.id).state is JobState.DELIVERED


def test_a_delivery_is_claimed_once_and_the_urgent_first(ledger: Ledger, clock: Clock) -> None:
    for name, priority in (("routine", Priority.ROUTINE), ("stat", Priority.STAT)):
        analyse(ledger, job_of_new_study(ledger, clock(), name, priority=priority), "sr")
    (first,) = ledger.claim_deliveries("pacs", "one", 30, 1)
    (second,) = ledger.claim_deliveries("pacs", "two", 30, 5)
    assert [first.priority, second.priority] == [Priority.STAT, Priority.ROUTINE]
    assert (first.state, first.attempts, first.owner, first.result.kind) == (DeliveryState.SENDING, 1, "one", "sr")
    assert ledger.claim_deliveries("pacs", "three", 30, 5) == []
    assert not ledger.delivery_accepted(first.id, "two", 0)


def test_a_failed_attempt_waits_for_its_time(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    analyse(ledger, job, "sr")
    (claimed,) = ledger.claim_deliveries("pacs", "sender", 30)
    later = clock.forward(1)
    assert ledger.delivery_failed(claimed.id, "sender", "connection refused", clock.forward(60))
    assert ledger.due_destinations(later) == []
    assert ledger.claim_deliveries("pacs", "sender", 30) != []  # its time has come
    (waiting,) = ledger.deliveries(job.id)
    assert (waiting.attempts, waiting.answer, waiting.first_attempt_at) == (2, "connection refused", clock.forward(-61))
    assert ledger.job(job.id).state is JobState.DELIVERING


def test_after_a_jump_of_the_clock_the_time_for_attempts_begins_anew(ledger: Ledger, clock: Clock) -> None:
    waiting, sending = (job_of_new_study(ledger, clock(), name) for name in ("waits", "is-sent"))
    for job in (waiting, sending):
        analyse(ledger, job, "sr")
    one, _other = ledger.claim_deliveries("pacs", "sender", 30)
    ledger.delivery_failed(one.id, "sender", "connection refused", clock.forward(1))
    now = clock.forward(40 * 86_400)
    ledger.begin_periods_anew(now, 30)
    deliveries = [delivery for job in (waiting, sending) for delivery in ledger.deliveries(job.id)]
    assert [one.state for one in deliveries] == [DeliveryState.WAITING, DeliveryState.SENDING]
    assert [one.first_attempt_at for one in deliveries] == [now, now]


def test_giving_up_one_destination_fails_the_job_but_not_the_other(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock(), destinations=("dead", "pacs"))
    analyse(ledger, job, "sr")
    (claimed,) = ledger.claim_deliveries("dead", "sender", 30)
    assert ledger.delivery_failed(claimed.id, "sender", "0xA900 refused", None, status=0xA900)
    assert ledger.job(job.id).state is JobState.DELIVERING  # the PACS still gets its own
    assert deliver(ledger, "pacs") == 1
    failed = ledger.job(job.id)
    assert (failed.state, failed.why) == (JobState.FAILED, "not delivered to dead: 0xA900 refused")
    ledger.retry(job.id, "jane")
    assert ledger.due_destinations(clock()) == ["dead"]
    assert deliver(ledger, "dead") == 1
    assert ledger.job(job.id).state is JobState.DELIVERED
    assert ledger.job(job.id).attempts == 1  # it was not analysed again


def test_a_sender_that_fell_silent_loses_what_it_held(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    analyse(ledger, job, "sr")
    (claimed,) = ledger.claim_deliveries("pacs", "dead", 30)
    assert ledger.expire_leases(clock.forward(31), 3) == []
    assert not ledger.delivery_accepted(claimed.id, "dead", 0)
    assert deliver(ledger) == 1
    assert ledger.job(job.id).state is JobState.DELIVERED


def test_a_sender_that_stops_gives_back_what_it_held(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    analyse(ledger, job, "sr", "seg")
    ledger.claim_deliveries("pacs", "sender", 30)
    assert ledger.release_deliveries("sender") == 2
    assert [(d.state, d.attempts) for d in ledger.deliveries(job.id)] == [(DeliveryState.WAITING, 0)] * 2


def test_each_answer_is_kept(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    analyse(ledger, job, "sr")
    (claimed,) = ledger.claim_deliveries("pacs", "sender", 30)
    ledger.delivery_accepted(claimed.id, "sender", 0xB000, "coercion of data elements")
    (kept,) = ledger.deliveries(job.id)
    assert (kept.status, kept.answer, kept.accepted_at) == (0xB000, "coercion of data elements", clock())
    assert [c.to_state for c in ledger.history("delivery", claimed.id)] == ["sending", "accepted"]


def test_a_slow_sender_keeps_what_it_prolongs(ledger: Ledger, clock: Clock) -> None:
    analyse(ledger, job_of_new_study(ledger, clock()), "sr")
    (claimed,) = ledger.claim_deliveries("pacs", "slow", 30)
    clock.forward(20)
    assert ledger.prolong_deliveries("slow", 30)
    assert not ledger.prolong_deliveries("nobody", 30)
    ledger.expire_leases(clock.forward(20), 3)
    assert ledger.delivery_accepted(claimed.id, "slow", 0)
