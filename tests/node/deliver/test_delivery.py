"""What a delivery does, with a real ledger, a real archive and real storage SCPs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.archive import Archive
from node.deliver import Unreachable
from node.deliver.delivery import DeliveryRunner
from node.ledger import DeliveryState, JobState, Ledger, NewJob, Priority
from node.settings import QueueSettings
from tests.node.jobs import QUICK, finish, open_job

from .counting_pacs import pacs, to

pytestmark = pytest.mark.slow


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    ledger.upgrade()
    yield ledger
    ledger.close()


def states(ledger: Ledger, job_id: int) -> Counter[str]:
    return Counter(delivery.state for delivery in ledger.deliveries(job_id))


def test_a_job_is_delivered_when_every_object_was_accepted(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    job = finish(ledger, archive, open_job(ledger, archive))
    with pacs() as far_side:
        assert to(runner, far_side.settings).deliver() == 3
    assert ledger.job(job.id).state == JobState.DELIVERED
    assert sorted(far_side.taken) == sorted(result.sop_instance_uid for result in ledger.results(job.id))
    assert far_side.associations == 1
    assert {(d.status, d.answer) for d in ledger.deliveries(job.id)} == {(0, "stored")}


def test_a_refused_object_waits_while_the_others_arrive(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    job = finish(ledger, archive, open_job(ledger, archive))
    refused = ledger.results(job.id)[1].sop_instance_uid
    patient = replace(runner, queue=QUICK.model_copy(update={"retry_first_s": 9e3, "retry_longest_s": 9e3}))
    with pacs(lambda uid: 0xA700 if uid == refused else 0) as far_side:
        to(patient, far_side.settings).deliver()
    assert ledger.job(job.id).state == JobState.DELIVERING
    assert states(ledger, job.id) == {DeliveryState.ACCEPTED: 2, DeliveryState.WAITING: 1}
    waiting = next(d for d in ledger.deliveries(job.id) if d.state == DeliveryState.WAITING)
    assert waiting.status == 0xA700
    assert "Out of" in waiting.answer


def test_a_destination_that_is_down_gets_everything_once_it_is_up(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    job = finish(ledger, archive, open_job(ledger, archive))
    with pacs() as far_side:
        settings = far_side.settings
    down = to(
        replace(runner, queue=QUICK.model_copy(update={"retry_first_s": 60.0, "retry_longest_s": 60.0})), settings
    )
    assert down.deliver() == 0
    assert states(ledger, job.id) == {DeliveryState.WAITING: 3}
    delivery = ledger.deliveries(job.id)[0]
    assert "does not answer" in delivery.answer
    assert delivery.next_attempt_at > delivery.created_at
    later = Ledger(f"sqlite:///{archive.root / 'ledger.sqlite3'}", clock=lambda: datetime.now(UTC) + timedelta(hours=1))
    with pacs() as far_side:
        assert to(replace(runner, ledger=later), far_side.settings).deliver() == 3
    assert ledger.job(job.id).state == JobState.DELIVERED
    later.close()


def test_one_call_tries_to_connect_once_however_much_waits(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    for number in range(12):  # more than one batch
        finish(ledger, archive, open_job(ledger, archive, f"study {number}"))

    class Nowhere:
        calls = 0
        address = "PACS@nowhere:104"

        def send(self, paths: Any, record: Any) -> None:
            self.calls += 1
            raise Unreachable("PACS@nowhere:104 does not answer")

    nowhere = Nowhere()
    slow = QueueSettings(retry_first_s=900, retry_longest_s=900)
    replace(runner, destination=nowhere, queue=slow).deliver()
    assert nowhere.calls == 1
    waiting = {d.next_attempt_at.replace(microsecond=0) for job in range(1, 13) for d in ledger.deliveries(job)}
    assert (max(waiting) - min(waiting)) < timedelta(seconds=30)  # they come back together


def test_stat_goes_first(ledger: Ledger, archive: Archive, runner: DeliveryRunner) -> None:
    routine = finish(ledger, archive, open_job(ledger, archive, "routine"))
    stat = finish(ledger, archive, open_job(ledger, archive, "stat", priority=Priority.STAT))
    with pacs() as far_side:
        to(runner, far_side.settings).deliver()
    urgent = {result.sop_instance_uid for result in ledger.results(stat.id)}
    assert set(far_side.taken[:3]) == urgent
    assert ledger.job(routine.id).state == JobState.DELIVERED


def test_after_the_last_attempt_the_job_is_failed_with_the_last_answer(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    job = finish(ledger, archive, open_job(ledger, archive))
    impatient = replace(runner, queue=QUICK.model_copy(update={"retry_for_s": 1e-9}))
    with pacs(lambda _uid: 0x0124) as far_side:
        to(impatient, far_side.settings).deliver()
    failed = ledger.job(job.id)
    assert failed.state == JobState.FAILED
    assert "pacs" in failed.why
    assert "0x0124" in failed.why
    ledger.retry(job.id, "a person")
    with pacs() as far_side:
        to(runner, far_side.settings).deliver()
    assert ledger.job(job.id).state == JobState.DELIVERED


def test_a_destination_that_the_settings_lost_is_named(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    job = finish(ledger, archive, open_job(ledger, archive))
    replace(runner, queue=QueueSettings()).deliver()
    assert "no longer have a destination 'pacs'" in ledger.deliveries(job.id)[0].answer


def test_an_object_sent_but_not_written_down_is_sent_again_and_accepted(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    job = finish(ledger, archive, open_job(ledger, archive))
    with pacs() as far_side:
        lost = to(replace(runner, owner="lost"), far_side.settings)
        rows = ledger.claim_deliveries("pacs", "lost", -1)  # a lease that is over at once, as after a kill
        assert lost.destination is not None
        lost.destination.send([archive.path(row.result.path) for row in rows], lambda _sent: None)
        assert to(runner, far_side.settings).deliver() == 0  # still taken
        ledger.expire_leases(datetime.now(UTC), 3)
        assert to(runner, far_side.settings).deliver() == 3
    assert ledger.job(job.id).state == JobState.DELIVERED
    assert len(far_side.taken) == 6
    assert len(set(far_side.taken)) == 3


def test_what_was_claimed_and_not_sent_goes_back_when_the_ledger_fails(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    job = finish(ledger, archive, open_job(ledger, archive))

    class Full(Ledger):
        calls = 0

        def delivery_accepted(self, *arguments: Any, **named: Any) -> bool:
            self.calls += 1
            if self.calls > 1:
                raise OSError("the disk is full")
            return super().delivery_accepted(*arguments, **named)

    full = Full(f"sqlite:///{archive.root / 'ledger.sqlite3'}")
    with pacs() as far_side, pytest.raises(OSError, match="full"):
        to(replace(runner, ledger=full), far_side.settings).deliver()
    full.close()
    assert states(ledger, job.id) == {DeliveryState.ACCEPTED: 1, DeliveryState.WAITING: 2}


def test_a_worker_that_stops_finishes_the_object_in_hand_and_puts_the_rest_back(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    job = finish(ledger, archive, open_job(ledger, archive))
    stop = threading.Event()

    def answer(_uid: str) -> int:
        stop.set()
        return 0x0000

    with pacs(answer) as far_side:
        to(replace(runner, stopping=stop.is_set), far_side.settings).deliver()
    assert states(ledger, job.id) == {DeliveryState.ACCEPTED: 1, DeliveryState.WAITING: 2}
    assert len(far_side.taken) == 1
    assert {d.attempts for d in ledger.deliveries(job.id)} == {0, 1}


def test_a_superseded_result_is_not_sent(ledger: Ledger, archive: Archive, runner: DeliveryRunner) -> None:
    old = finish(ledger, archive, open_job(ledger, archive, "again"))
    new = replace_job(ledger)
    with pacs() as far_side:
        assert to(runner, far_side.settings).deliver() == 0
    assert ledger.job(old.id).state == JobState.SUPERSEDED
    assert new != old.id


def replace_job(ledger: Ledger) -> int:
    """Open a second job on the same study."""
    before = ledger.job(1)
    new = NewJob(
        key="f" * 64,
        study_instance_uid=before.study_instance_uid,
        swi_series_uid=before.swi_series_uid,
        profile="other",
        destinations=("pacs",),
    )
    return ledger.open_job(new).id
