from __future__ import annotations

import pytest

from node.ledger import DeliveryState, JobState, Ledger, NewJob, Priority
from pipeline.errors import InputError
from tests.node.conftest import Clock
from tests.node.ledger_factory import (
    analyse,
    deliver,
    findings,
    instance,
    job_of_new_study,
    open_job,
    receive,
    results,
    settle_and_route,
    uid,
)


def states(ledger: Ledger, job_id: int) -> list[str]:
    return [change.to_state for change in ledger.history("job", job_id)]


def late_slice(ledger: Ledger, clock: Clock, number: int = 9) -> None:
    """A slice comes late, and its series settles again."""
    ledger.record_instance(instance("study", "swi", number, clock.forward(60)))
    ledger.settle_series(uid("study", "swi"), "quiet")


def test_a_job_goes_through_all_its_states(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    analyse(ledger, job)
    assert ledger.job(job.id).state is JobState.DELIVERING
    assert deliver(ledger) == 2
    done = ledger.job(job.id)
    assert (done.state, done.attempts, done.finished_at) == (JobState.DELIVERED, 1, clock())
    assert states(ledger, job.id) == ["queued", "running", "analysed", "delivering", "delivered"]
    document = ledger.findings(job.id)
    assert document is not None
    assert document["counts"] == {"total": 2, "definite": 1, "possible": 1}
    assert [r.kind for r in ledger.results(job.id)] == ["sr", "seg"]


def test_the_same_key_gives_the_same_job(ledger: Ledger, clock: Clock) -> None:
    first = job_of_new_study(ledger, clock())
    assert open_job(ledger, key="study").id == first.id
    analyse(ledger, first)
    deliver(ledger)
    again = open_job(ledger, key="study")
    assert (again.id, again.state) == (first.id, JobState.DELIVERED)
    assert ledger.counts().jobs == {"delivered": 1}


def test_a_job_is_claimed_once(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    claimed = ledger.claim_job(job.id, "one", 30)
    assert claimed is not None
    assert (claimed.state, claimed.owner, claimed.attempts) == (JobState.RUNNING, "one", 1)
    assert ledger.claim_job(job.id, "two", 30) is None
    assert ledger.claim_job(999, "two", 30) is None


def test_only_the_owner_may_touch_a_running_job(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    ledger.claim_job(job.id, "one", 30)
    assert not ledger.heartbeat(job.id, "two", 30)
    assert not ledger.finish_analysis(job.id, "two", findings(), results("sr"))
    assert ledger.fail_attempt(job.id, "two", "no", 3) is None
    assert not ledger.release_job(job.id, "two")
    assert ledger.job(job.id).state is JobState.RUNNING
    assert ledger.findings(job.id) is None
    assert ledger.heartbeat(job.id, "one", 90, progress="brain")
    assert ledger.job(job.id).progress == "brain"
    assert ledger.expire_leases(clock.forward(60), 3) == []


def test_attempts_end_in_failure_with_its_reason(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    outcomes = []
    for _ in range(3):
        assert ledger.claim_job(job.id, "worker", 30)
        outcomes.append(ledger.fail_attempt(job.id, "worker", "out of memory", 3))
    assert outcomes == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    failed = ledger.job(job.id)
    assert (failed.why, failed.attempts, failed.finished_at) == ("out of memory", 3, clock())
    assert ledger.claim_job(job.id, "worker", 30) is None


def test_an_error_that_stays_fails_at_once(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    ledger.claim_job(job.id, "worker", 30)
    assert ledger.fail_attempt(job.id, "worker", "slice 7 is missing", 3, permanent=True) is JobState.FAILED


def test_a_worker_that_stops_gives_its_job_back_uncounted(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    ledger.claim_job(job.id, "worker", 30)
    assert ledger.release_job(job.id, "worker")
    assert (ledger.job(job.id).state, ledger.job(job.id).attempts) == (JobState.QUEUED, 0)


def test_a_silent_worker_loses_its_job_but_not_for_ever(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    for attempt in (1, 2):
        assert ledger.claim_job(job.id, f"worker-{attempt}", 30)
        assert ledger.expire_leases(clock.forward(29), 2) == []
        assert ledger.expire_leases(clock.forward(2), 2) == ([job.id] if attempt == 1 else [])
    failed = ledger.job(job.id)
    assert failed.state is JobState.FAILED
    assert failed.why.startswith("2 workers died or fell silent")
    assert failed.attempts == 0  # of the analysis itself
    assert not ledger.finish_analysis(job.id, "worker-2", findings(), results("sr"))


def test_a_job_that_lost_a_worker_waits_longer_each_time_and_the_first_time_not_at_all(
    ledger: Ledger, clock: Clock
) -> None:
    job = job_of_new_study(ledger, clock())
    for pause in (0.0, 20.0, 40.0):
        assert ledger.claim_job(job.id, "worker", 30)
        ledger.expire_leases(clock.forward(31), 9, lambda lost: 10.0 * lost if lost < 3 else 40.0)
        if pause:
            clock.forward(pause - 1)
            assert ledger.claim_next_job("other", 30) is None
            assert ledger.queued_jobs() == []
        clock.forward(2)
        assert [queued.id for queued in ledger.queued_jobs()] == [job.id]
    assert ledger.job(job.id).lost == 3


def test_an_outage_postpones_a_job_and_costs_no_attempt(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    for postponed in (1, 2, 3, 4, 5):
        assert ledger.claim_next_job("worker", 30)
        assert ledger.postpone_job(job.id, "worker", "postponed: the disk is full", lambda times: 10.0 * times)
        clock.forward(10 * postponed - 1)
        assert ledger.claim_next_job("worker", 30) is None
        clock.forward(1)
    now = ledger.job(job.id)
    assert (now.state, now.attempts, now.postponed, now.lost) == (JobState.QUEUED, 0, 5, 0)
    assert not ledger.postpone_job(job.id, "another", "no", lambda _: 0)


def test_the_next_job_is_the_most_urgent_and_then_the_oldest(ledger: Ledger, clock: Clock) -> None:
    names = [("first", Priority.ROUTINE), ("second", Priority.ROUTINE), ("stat", Priority.STAT)]
    ids = {name: job_of_new_study(ledger, clock(), name, priority=p).id for name, p in names}
    taken = []
    for worker in ("a", "b", "c"):
        job = ledger.claim_next_job(worker, 30)
        assert job is not None
        taken.append(job.id)
    assert taken == [ids["stat"], ids["first"], ids["second"]]
    assert ledger.claim_next_job("d", 30) is None


def test_stat_goes_first(ledger: Ledger, clock: Clock) -> None:
    ids = {
        p: job_of_new_study(ledger, clock(), p.name, priority=p).id
        for p in (Priority.LOW, Priority.ROUTINE, Priority.STAT)
    }
    assert [job.id for job in ledger.queued_jobs()] == [ids[Priority.STAT], ids[Priority.ROUTINE], ids[Priority.LOW]]


def test_without_destination_an_analysed_job_is_done(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock(), destinations=())
    analyse(ledger, job)
    assert ledger.job(job.id).state is JobState.DELIVERED


def test_a_failed_job_is_retried_by_hand(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    with pytest.raises(InputError, match="queued"):
        ledger.retry(job.id, "jane")
    ledger.claim_job(job.id, "worker", 30)
    ledger.fail_attempt(job.id, "worker", "broken", 3, permanent=True)
    again = ledger.retry(job.id, "jane")
    assert (again.state, again.attempts, again.why, again.finished_at) == (JobState.QUEUED, 0, "", None)
    assert ledger.history("job", job.id)[-1].actor == "jane"
    with pytest.raises(InputError, match="no such job"):
        ledger.retry(999, "jane")


def test_a_late_slice_supersedes_a_queued_job(ledger: Ledger, clock: Clock) -> None:
    old = job_of_new_study(ledger, clock())
    late_slice(ledger, clock)
    new = open_job(ledger, key="more images")
    assert new.supersedes == old.id
    replaced = ledger.job(old.id)
    assert (replaced.state, replaced.superseded_by) == (JobState.SUPERSEDED, new.id)
    assert replaced.why == f"superseded by job {new.id}"
    assert ledger.claim_job(old.id, "worker", 30) is None
    assert ledger.study(uid("study")).current_job_id == new.id


def test_a_job_whose_images_change_is_held_back(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    ledger.record_instance(instance("study", "swi", 9, clock.forward(60)))
    assert ledger.queued_jobs() == []
    assert ledger.claim_job(job.id, "worker", 30) is None
    ledger.settle_series(uid("study", "swi"), "quiet")
    assert ledger.claim_job(job.id, "worker", 30) is None  # not before it is routed again
    new = open_job(ledger, key="more images")
    assert [j.id for j in ledger.queued_jobs()] == [new.id]


def test_another_series_of_the_study_holds_nothing_back(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    receive(ledger, "study", clock.forward(60), "t1")
    assert ledger.claim_job(job.id, "worker", 30) is not None


def test_a_running_job_that_is_superseded_delivers_nothing(ledger: Ledger, clock: Clock) -> None:
    old = job_of_new_study(ledger, clock())
    ledger.claim_job(old.id, "worker", 30)
    late_slice(ledger, clock)
    open_job(ledger, key="more images")
    assert not ledger.heartbeat(old.id, "worker", 30)
    assert not ledger.finish_analysis(old.id, "worker", findings(), results("sr"))
    assert ledger.deliveries(old.id) == []


def test_what_was_still_to_be_sent_is_cancelled(ledger: Ledger, clock: Clock) -> None:
    old = job_of_new_study(ledger, clock())
    analyse(ledger, old)
    (first,) = ledger.claim_deliveries("pacs", "sender", 30, 1)
    late_slice(ledger, clock)
    assert ledger.due_destinations(clock()) == []
    new = open_job(ledger, key="more images")
    assert [d.state for d in ledger.deliveries(old.id)] == [DeliveryState.SENDING, DeliveryState.CANCELLED]
    assert ledger.delivery_accepted(first.id, "sender", 0)  # it was on its way
    assert ledger.job(old.id).state is JobState.SUPERSEDED
    before = ledger.predecessor(new.id)
    assert before is not None
    assert before.id == old.id


def test_a_delivered_job_stays_delivered_and_names_its_successor(ledger: Ledger, clock: Clock) -> None:
    old = job_of_new_study(ledger, clock())
    analyse(ledger, old)
    deliver(ledger)
    late_slice(ledger, clock, 9)
    middle = open_job(ledger, key="more images")
    late_slice(ledger, clock, 10)
    new = open_job(ledger, key="still more images")
    assert (ledger.job(old.id).state, ledger.job(old.id).superseded_by) == (JobState.DELIVERED, middle.id)
    assert (new.supersedes, ledger.job(middle.id).state) == (middle.id, JobState.SUPERSEDED)
    before = ledger.predecessor(new.id)
    assert before is not None
    assert before.id == old.id  # the last that reached anybody
    assert ledger.predecessor(old.id) is None


def test_an_old_key_may_come_back(ledger: Ledger, clock: Clock) -> None:
    first = job_of_new_study(ledger, clock())
    second = open_job(ledger, key="another profile")
    third = open_job(ledger, key="study")
    assert len({first.id, second.id, third.id}) == 3
    assert third.state is JobState.QUEUED


def test_a_study_that_is_not_analysed_any_more_takes_its_job_back(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    late_slice(ledger, clock)
    ledger.mark_routed(uid("study"), ledger.study(uid("study")).revision, why="no SWI series")
    assert ledger.job(job.id).state is JobState.SUPERSEDED
    assert "no SWI series" in ledger.history("job", job.id)[-1].why


def test_a_job_that_read_older_images_is_held_back(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "study", clock())
    settle_and_route(ledger, "study")
    new = NewJob(
        key="k",
        study_instance_uid=uid("study"),
        swi_series_uid=uid("study", "swi"),
        profile="frst",
        destinations=("pacs",),
        input_revision=0,
    )
    job = ledger.open_job(new)
    assert ledger.claim_job(job.id, "worker", 30) is None
    assert open_job(ledger, key="k").id == job.id
    assert ledger.claim_job(job.id, "worker", 30) is not None


def test_an_unknown_job_or_study_is_an_input_error(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="job 7: no such job"):
        ledger.job(7)
    with pytest.raises(InputError, match="no such study"):
        ledger.study("1.2.3")
