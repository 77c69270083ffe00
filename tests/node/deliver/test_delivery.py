"""What a delivery does, with a real ledger, a real archive and real storage SCPs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from node.analyse.analysis import AnalysisRunner
from node.archive import Archive
from node.deliver import SendResult, Unreachable, open_destination, send_all
from node.deliver.delivery import DeliveryRunner
from node.ledger import DeliveryState, Job, JobState, Ledger, NewJob, Priority
from node.settings import DicomDestination, QueueSettings
from pipeline.results import ResultObject
from tests.node.jobs import QUICK, capture, findings_of, finish, open_job
from tests.node.reports import job as reported_job

pytestmark = pytest.mark.slow


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    ledger.upgrade()
    yield ledger
    ledger.close()


class Pacs:
    """A storage SCP that counts what it took, and answers what it is told to."""

    def __init__(self, answer: Callable[[str], int]) -> None:
        self.answer, self.taken, self.associations = answer, [], 0
        self.entity = AE(ae_title="PACS")
        self.entity.add_supported_context(SecondaryCaptureImageStorage)
        self.server = self.entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._accepted)],
        )

    def _store(self, event: Any) -> int:
        status = self.answer(event.request.AffectedSOPInstanceUID)
        if status == 0:
            self.taken.append(str(event.request.AffectedSOPInstanceUID))
        return status

    def _accepted(self, _event: Any) -> None:
        self.associations += 1

    @property
    def settings(self) -> DicomDestination:
        port = self.server.server_address[1]
        return DicomDestination(ae_title="PACS", host="127.0.0.1", port=port, timeout_s=5)


@contextmanager
def pacs(answer: Callable[[str], int] = lambda _uid: 0x0000) -> Iterator[Pacs]:
    server = Pacs(answer)
    try:
        yield server
    finally:
        threading.Thread(target=server.server.shutdown).start()  # half a second that nobody needs to wait for


@pytest.fixture
def runner(ledger: Ledger, archive: Archive) -> DeliveryRunner:
    return DeliveryRunner(ledger, archive, QUICK, "pacs", None, owner="deliver@test")


def to(runner: DeliveryRunner, settings: DicomDestination) -> DeliveryRunner:
    return replace(runner, destination=open_destination(settings, "CMBNODE"))


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


def damage(path: Path) -> None:
    """Change the last byte of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def analyse_again(ledger: Ledger, archive: Archive, kinds: tuple[str, ...] = ("seg", "sr", "capture")) -> Job | None:
    """Do what a worker does with the job, which makes the same small objects."""

    def work(job: Job, _paths: list[Path], _progress: Any) -> Any:
        return findings_of(job), tuple(ResultObject(kind, capture(job, kind)) for kind in kinds)

    return AnalysisRunner(ledger, archive, QUICK, "worker", work).analyse_next()


@pytest.mark.parametrize("break_it", [damage, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_result_is_made_again_and_then_sent(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner, break_it: Callable[[Path], object]
) -> None:
    open_job(ledger, archive)
    job = analyse_again(ledger, archive)
    assert job is not None
    before = ledger.results(job.id)
    break_it(archive.path(before[1].path))
    with pacs() as far_side:
        assert to(runner, far_side.settings).deliver() == 2
        assert ledger.job(job.id).state == JobState.QUEUED
        assert "outbox/1/sr.dcm" in ledger.deliveries(job.id)[1].answer
        again = analyse_again(ledger, archive)
        assert again is not None
        assert again.state == JobState.DELIVERING
        assert ledger.results(job.id) == before
        assert to(runner, far_side.settings).deliver() == 1
    assert ledger.job(job.id).state == JobState.DELIVERED
    assert len(far_side.taken) == len(set(far_side.taken)) == 3


def test_a_damaged_result_whose_images_are_gone_fails_and_is_not_sent(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    job = finish(ledger, archive, open_job(ledger, archive))
    damage(archive.path(ledger.results(job.id)[0].path))
    archive.path(ledger.job_paths(job.id)[0]).unlink()
    with pacs() as far_side:
        assert to(runner, far_side.settings).deliver() == 2
    failed = ledger.job(job.id)
    assert failed.state == JobState.FAILED
    assert "the content of the file has changed since it was stored" in failed.why
    assert "send the study again" in failed.why


def test_results_made_again_that_differ_from_what_was_sent_are_not_sent(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    open_job(ledger, archive)
    job = analyse_again(ledger, archive)
    assert job is not None
    damage(archive.path(ledger.results(job.id)[0].path))
    with pacs() as far_side:
        assert to(runner, far_side.settings).deliver() == 2
        analyse_again(ledger, archive, ("seg", "sr"))
        assert to(runner, far_side.settings).deliver() == 0
    assert ledger.job(job.id).state == JobState.FAILED
    assert "the results of the repeated analysis differ from those already sent" in ledger.job(job.id).why


class OneBadFile:
    """A destination that raises an unforeseen error at one file, before or after it has sent others."""

    address = "x"

    def __init__(self, bad: Path) -> None:
        self.bad, self.sent = bad, []

    def send(self, paths: Sequence[Path], record: Callable[[SendResult], None]) -> None:
        for path in paths:
            if path == self.bad:
                raise TypeError("cannot decode 'Doe^John'")
            self.sent.append(path)
            record(SendResult(path, True, 0, "stored"))

    def check(self) -> str:
        return ""


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_file_that_cannot_be_sent_has_failed_and_the_others_are_sent(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner, bad: int
) -> None:
    job = finish(ledger, archive, open_job(ledger, archive))
    path = archive.path(ledger.deliveries(job.id)[bad].result.path)
    destination = OneBadFile(path)
    patient = QUICK.model_copy(update={"retry_first_s": 9e3, "retry_longest_s": 9e3})
    assert replace(runner, destination=destination, queue=patient).deliver() == 2
    assert len(destination.sent) == 2
    failed = ledger.deliveries(job.id)[bad]
    assert (failed.state, failed.attempts) == (DeliveryState.WAITING, 1)
    assert failed.next_attempt_at > datetime.now(UTC)
    assert failed.answer.startswith("the node cannot send this file (TypeError at test_delivery.py:")
    assert "Doe" not in failed.answer


class Remover(OneBadFile):
    """A destination during whose first attempt a file is deleted, after it was looked at and before it is sent."""

    def send(self, paths: Sequence[Path], record: Callable[[SendResult], None]) -> None:
        self.bad.unlink(missing_ok=True)
        for path in paths:
            path.read_bytes()
            self.sent.append(path)
            record(SendResult(path, True, 0, "stored"))


def test_a_result_that_is_gone_when_it_is_to_be_sent_is_made_again(
    ledger: Ledger, archive: Archive, runner: DeliveryRunner
) -> None:
    open_job(ledger, archive)
    job = analyse_again(ledger, archive)
    assert job is not None
    path = archive.path(ledger.results(job.id)[0].path)
    assert replace(runner, destination=Remover(path)).deliver() == 2
    assert ledger.job(job.id).state == JobState.QUEUED
    (waiting,) = (d for d in ledger.deliveries(job.id) if d.state == DeliveryState.WAITING)
    assert waiting.answer.endswith("it is made again from the images")
    analyse_again(ledger, archive)
    with pacs() as far_side:
        assert to(runner, far_side.settings).deliver() == 1
    assert ledger.job(job.id).state == JobState.DELIVERED


@pytest.mark.parametrize("at", [128, 136])
def test_a_damaged_object_on_its_way_to_a_pacs_costs_that_object_only(files: list[Path], at: int) -> None:
    content = bytearray(files[1].read_bytes())
    content[at : at + 2] = b"TL"
    files[1].write_bytes(content)
    answers: dict[Path, SendResult] = {}
    with pacs() as far_side:
        destination = open_destination(far_side.settings, "CMBNODE")
        send_all(destination, files, lambda sent: answers.update({sent.path: sent}))
    assert answers[files[0]].accepted
    assert answers[files[2]].accepted
    assert not answers[files[1]].accepted


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three small objects."""
    paths = [tmp_path / f"{name}.dcm" for name in "abc"]
    for path in paths:
        capture(reported_job(), path.stem).save_as(path, enforce_file_format=True)
    return paths


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
