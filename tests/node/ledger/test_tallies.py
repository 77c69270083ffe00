"""Counters and histograms follow what happened, once for each event, and never run backwards."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from unittest.mock import Mock

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from node.ledger import DeliveryState, JobState, Ledger, Priority, TallyBuffer
from node.ledger.metrics import ALL, INSTANCES, REFUSALS, count, observe
from node.ledger.models import tallies
from node.ledger.state_tallies import tallies_of_change
from node.ledger.tallies import MERGE_ABOVE
from tests.node.conftest import START, Clock
from tests.node.ledger_factory import analyse, deliver, findings, job_of_new_study, results, uid


def totals(ledger: Ledger, metric: str) -> dict[str, int]:
    """Number of events, by the values of the labels."""
    found: dict[str, int] = {}
    for tally in ledger.tallies():
        if tally.metric == metric:
            labels = " ".join(json.loads(tally.labels).values())
            found[labels] = found.get(labels, 0) + tally.number
    return found


def seconds(ledger: Ledger, metric: str) -> float:
    return sum(tally.seconds for tally in ledger.tallies() if tally.metric == metric)


def test_a_study_that_goes_through_is_counted_at_each_step(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock(), priority=Priority.STAT)
    clock.forward(4)
    analyse(ledger, job)
    clock.forward(30)
    deliver(ledger)
    assert totals(ledger, "cmbnode_series_settled_total") == {"complete": 1}
    assert totals(ledger, "cmbnode_queue_wait_seconds") == {"stat": 1}
    assert seconds(ledger, "cmbnode_queue_wait_seconds") == 4
    assert totals(ledger, "cmbnode_analysis_attempts_total") == {"analysed": 1}
    assert totals(ledger, "cmbnode_delivery_attempts_total") == {"pacs accepted": 2}
    assert seconds(ledger, "cmbnode_delivery_lag_seconds") == 60
    assert totals(ledger, "cmbnode_jobs_finished_total") == {"delivered": 1}
    assert seconds(ledger, "cmbnode_turnaround_seconds") == 34
    known = {metric.name for metric in ALL}
    assert {tally.metric for tally in ledger.tallies()} <= known


def test_each_end_of_an_attempt_has_its_name(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    ledger.claim_job(job.id, "w", 30)
    ledger.release_job(job.id, "w")
    ledger.claim_job(job.id, "w", 30)
    ledger.postpone_job(job.id, "w", "the disk is full", lambda _: 1.0)
    clock.forward(2)
    ledger.claim_job(job.id, "w", 30)
    ledger.expire_leases(clock.forward(31), 6)
    ledger.claim_job(job.id, "w", 30)
    ledger.fail_attempt(job.id, "w", "no memory", max_attempts=2)
    ledger.claim_job(job.id, "w", 30)
    ledger.fail_attempt(job.id, "w", "no memory", max_attempts=2)
    expected = {"returned": 1, "postponed": 1, "lost": 1, "failed": 2}
    assert totals(ledger, "cmbnode_analysis_attempts_total") == expected
    assert totals(ledger, "cmbnode_leases_lost_total") == {"analysis": 1}
    assert totals(ledger, "cmbnode_jobs_finished_total") == {"analysis_failed": 1}
    ledger.retry(job.id, "ada")
    analyse(ledger, job)
    assert totals(ledger, "cmbnode_analysis_attempts_total") == {**expected, "analysed": 1}
    assert totals(ledger, "cmbnode_queue_wait_seconds") == {"routine": 1}, "only before its first attempt"


def test_each_end_of_sending_has_its_name(ledger: Ledger, clock: Clock) -> None:
    analyse(ledger, job_of_new_study(ledger, clock()), "sr")
    ledger.claim_deliveries("pacs", "s", 30)
    ledger.release_deliveries("s")
    ledger.claim_deliveries("pacs", "s", 30)
    ledger.expire_leases(clock.forward(31), 6)
    (sent,) = ledger.claim_deliveries("pacs", "s", 30)
    ledger.delivery_failed(sent.id, "s", "no answer", clock.forward(0))
    ledger.claim_deliveries("pacs", "s", 30)
    ledger.delivery_failed(sent.id, "s", "no answer", None)
    expected = {f"pacs {outcome}": 1 for outcome in ("returned", "lost", "retried", "failed")}
    assert totals(ledger, "cmbnode_delivery_attempts_total") == expected
    assert totals(ledger, "cmbnode_leases_lost_total") == {"delivery": 1}
    assert totals(ledger, "cmbnode_jobs_finished_total") == {"delivery_failed": 1}


def test_commitments_are_counted_too(ledger: Ledger, clock: Clock) -> None:
    analyse(ledger, job_of_new_study(ledger, clock()), "sr", "seg")
    sent = ledger.claim_deliveries("pacs", "s", 30)
    for delivery in sent:
        ledger.delivery_accepted(delivery.id, "s", 0, commit_within_s=60)
    ledger.begin_commitment("pacs", "1.2.3", 10)
    uids = [delivery.result.sop_instance_uid for delivery in sent]
    ledger.record_commitment("1.2.3", uids[:1], {uids[1]: "no such object"}, "pacs")
    assert totals(ledger, "cmbnode_commitments_total") == {"pacs committed": 1, "pacs refused": 1}


def test_what_a_transaction_did_not_do_is_not_counted(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_of_new_study(ledger, clock())
    before = ledger.tallies()
    ledger.claim_next_job("w", 30)
    with monkeypatch.context() as broken:
        broken.setattr(ledger, "_insert_results", Mock(side_effect=OSError))
        with pytest.raises(OSError):
            ledger.finish_analysis(1, "w", findings(), results("sr"))
    counted = {tally.metric for tally in ledger.tallies()} - {tally.metric for tally in before}
    assert counted == {"cmbnode_queue_wait_seconds"}


def test_rows_are_added_up_while_others_count(ledger: Ledger) -> None:
    def work(number: int) -> None:
        ledger.add_tallies([count(REFUSALS, reason="tls"), observe(ALL[-2], number, destination="pacs")])

    ledger.add_tallies([count(REFUSALS, reason="address")] * MERGE_ABOVE)
    with ThreadPoolExecutor(4) as pool:
        added = [pool.submit(work, number) for number in range(40)]
        merged = [pool.submit(ledger.merge_tallies) for _ in range(4)]
        for one in (*added, *merged):
            one.result()
    assert totals(ledger, REFUSALS.name) == {"address": MERGE_ABOVE, "tls": 40}
    assert seconds(ledger, ALL[-2].name) == sum(range(40))
    with ledger.engine.connect() as connection:
        assert (connection.scalar(select(func.count()).select_from(tallies)) or 0) < 120


def test_erasing_a_study_takes_nothing_back(ledger: Ledger, clock: Clock) -> None:
    analyse(ledger, job_of_new_study(ledger, clock()))
    deliver(ledger)
    before = ledger.tallies()
    ledger.begin_erasure(uid("study"), "ada")
    ledger.erase_rows(uid("study"), "ada")
    assert ledger.tallies() == before


def test_a_buffer_keeps_what_the_database_did_not_take(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = TallyBuffer(ledger)
    buffer.count(INSTANCES, outcome="stored")
    with monkeypatch.context() as away:

        def fail(_: object) -> None:
            raise OperationalError("INSERT", {}, Exception("away"))

        away.setattr(ledger, "add_tallies", fail)
        buffer.flush()
    buffer.count(INSTANCES, outcome="stored")
    buffer.flush()
    buffer.flush()
    assert totals(ledger, INSTANCES.name) == {"stored": 2}


def test_a_destination_fails_from_its_first_vain_attempt_until_it_accepts_something(
    ledger: Ledger, clock: Clock
) -> None:
    analyse(ledger, job_of_new_study(ledger, clock(), "first"), "sr")
    deliver(ledger)
    analyse(ledger, job_of_new_study(ledger, clock.forward(60), "second"), "sr", "seg")
    assert ledger.failing_destinations() == {}
    began = clock()
    for sent in ledger.claim_deliveries("pacs", "s", 30):
        ledger.delivery_failed(sent.id, "s", "no answer", began + timedelta(seconds=5))
    clock.forward(60)
    (failing,) = ledger.failing_destinations().values()
    assert (failing.name, failing.since, failing.waiting, failing.answer) == ("pacs", began, 2, "no answer")
    (sent, _) = ledger.claim_deliveries("pacs", "s", 30)
    ledger.delivery_accepted(sent.id, "s", 0)
    ledger.release_deliveries("s")
    assert ledger.failing_destinations() == {}, "one object may be refused while others are accepted"


def test_what_is_sent_once_more_is_no_new_study(ledger: Ledger, clock: Clock) -> None:
    analyse(ledger, job_of_new_study(ledger, clock()), "sr")
    (sent,) = ledger.claim_deliveries("pacs", "s", 30)
    ledger.delivery_accepted(sent.id, "s", 0, commit_within_s=60)
    ledger.expire_commitments(clock.forward(86_400))
    assert totals(ledger, "cmbnode_commitments_total") == {"pacs refused": 1}
    deliver(ledger)
    assert totals(ledger, "cmbnode_jobs_finished_total") == {"delivered": 2}
    assert totals(ledger, "cmbnode_turnaround_seconds") == {"routine": 1}
    assert totals(ledger, "cmbnode_delivery_lag_seconds") == {"pacs": 1}


def test_what_is_no_change_of_state_or_done_by_hand_is_not_counted() -> None:
    running = {"state": JobState.RUNNING, "started_at": START, "correction": None, "priority": 6}
    assert list(tallies_of_change("jobs", running, JobState.RUNNING, {"priority": 0}, "ada", START)) == []
    accepted = {"state": DeliveryState.ACCEPTED, "destination": "pacs", "commit_resent": 1}
    by_hand = {"commit_resent": 0, "commit_by": None}
    assert list(tallies_of_change("deliveries", accepted, DeliveryState.WAITING, by_hand, "ada", START)) == []
