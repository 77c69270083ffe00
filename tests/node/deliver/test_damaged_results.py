"""What is damaged or gone when it is to be sent: made again where that can be, and it holds up nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from node.analyse.analysis import AnalysisRunner
from node.archive import Archive
from node.deliver import SendResult, open_destination, send_all
from node.deliver.delivery import DeliveryRunner
from node.ledger import DeliveryState, Job, JobState, Ledger
from pipeline.results import ResultObject
from tests.node.jobs import QUICK, capture, findings_of, finish, open_job
from tests.node.reports import job as reported_job

from .counting_pacs import pacs, to
from .test_delivery import ledger as ledger

pytestmark = pytest.mark.slow


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
    assert failed.answer.startswith("the node cannot send this file (TypeError at test_damaged_results.py:")
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
