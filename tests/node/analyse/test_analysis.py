"""What an analysis does, with a real ledger and archive; where errors are the subject, they replace the pipeline."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from node.analyse.analysis import AnalysisContext, AnalysisRunner, run_pipeline
from node.archive import Archive, OutOfResourcesError
from node.ledger import Job, JobState, Ledger
from pipeline.errors import InputError
from pipeline.results import ReplacedObject, ReplacedResult, ResultObject, write_results
from tests.integration.killable_node import make_study
from tests.node.jobs import QUICK, capture, findings_of, job_on, open_job
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

Progress = Callable[[str], None]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    ledger.upgrade()
    yield ledger
    ledger.close()


def found_nothing(job: Job, _paths: list[Path], _progress: Progress) -> Any:
    return findings_of(job), (ResultObject("capture", capture(job)),)


def runner(ledger: Ledger, archive: Archive, work: Any = found_nothing, owner: str = "worker") -> AnalysisRunner:
    return AnalysisRunner(ledger, archive, QUICK, owner, work)


def test_findings_objects_and_deliveries_are_there_when_the_job_is_analysed(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive, destinations=("pacs", "research"))
    done = runner(ledger, archive).analyse_next()
    assert done is not None
    assert done.state == JobState.DELIVERING
    assert ledger.findings(job.id) == findings_of(job).to_json()
    (result,) = ledger.results(job.id)
    content = archive.path(result.path).read_bytes()
    assert (result.size, result.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert [delivery.destination for delivery in ledger.deliveries(job.id)] == ["pacs", "research"]
    assert [change.to_state for change in ledger.history("job", job.id)][-3:] == ["running", "analysed", "delivering"]


def test_the_work_gets_every_image_of_the_job(ledger: Ledger, archive: Archive) -> None:
    open_job(ledger, archive)
    seen: list[Path] = []

    def look(job: Job, paths: list[Path], progress: Progress) -> Any:
        seen.extend(paths)
        return found_nothing(job, paths, progress)

    runner(ledger, archive, look).analyse_next()
    assert len(seen) == 3
    assert all(path.is_file() for path in seen)


def test_input_that_cannot_be_used_fails_at_once_in_its_own_words(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)

    def refuse(*_: Any) -> Any:
        raise InputError("slice 17 is missing", where="series 4", do="send it again")

    runner(ledger, archive, refuse).analyse_next()
    failed = ledger.job(job.id)
    assert (failed.state, failed.attempts) == (JobState.FAILED, 1)
    assert failed.why == "series 4: slice 17 is missing; send it again"


def test_any_other_error_is_tried_again_and_fails_after_the_last_attempt(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)

    def break_down(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    seen = []
    for _ in range(QUICK.max_attempts):
        after = runner(ledger, archive, break_down).analyse_next()
        assert after is not None
        seen.append(after.state)
    assert seen == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    assert ledger.job(job.id).why.startswith("RuntimeError at test_analysis.py:")


def test_a_job_that_kills_its_worker_every_time_ends_as_failed(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)
    for _ in range(QUICK.max_attempts):
        assert ledger.claim_job(job.id, "doomed", QUICK.lease_s) is not None
        ledger.expire_leases(datetime.now(UTC) + timedelta(minutes=5), QUICK.max_attempts)
    assert ledger.job(job.id).state == JobState.FAILED
    assert runner(ledger, archive).analyse_next() is None


def test_a_worker_that_lost_its_lease_discards_what_it_found(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)

    def overtaken(job: Job, paths: list[Path], progress: Progress) -> Any:
        ledger.expire_leases(datetime.now(UTC) + timedelta(minutes=5), QUICK.max_attempts)
        runner(ledger, archive, owner="other").analyse_next()
        return findings_of(job, software="late"), (ResultObject("capture", capture(job)),)

    runner(ledger, archive, overtaken).analyse_next()
    document = ledger.findings(job.id)
    assert document is not None
    assert document["software"] == "test"
    assert len(ledger.results(job.id)) == 1
    now = ledger.job(job.id)
    assert (now.attempts, now.lost) == (1, 1)


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT", {}, Exception("the connection was closed")),
        OSError(errno.ENOSPC, "No space left on device"),
        OutOfResourcesError("the disk is full"),
    ],
)
def test_an_outage_of_the_database_or_the_disk_costs_no_attempt(
    ledger: Ledger, archive: Archive, error: Exception
) -> None:
    job = open_job(ledger, archive)

    def hindered(job: Job, paths: list[Path], progress: Progress) -> Any:
        raise error

    hindered_runner = runner(ledger, archive, hindered)
    for times in range(1, 6):
        wait_for(lambda: hindered_runner.analyse_next() is not None)
        now = ledger.job(job.id)
        assert (now.state, now.attempts, now.postponed) == (JobState.QUEUED, 0, times)
    wait_for(lambda: runner(ledger, archive).analyse_next() is not None)
    assert ledger.job(job.id).state == JobState.DELIVERING


def test_a_finished_result_waits_for_a_database_that_is_away(
    ledger: Ledger, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, tries = open_job(ledger, archive), []
    finish_analysis = ledger.finish_analysis

    def away_at_first(*given: Any) -> bool:
        tries.append(given)
        if len(tries) == 1:
            raise OperationalError("UPDATE", {}, Exception("database is locked"))
        return finish_analysis(*given)

    monkeypatch.setattr(ledger, "finish_analysis", away_at_first)
    runner(ledger, archive).analyse_next()
    now = ledger.job(job.id)
    assert (len(tries), now.state, now.attempts, now.postponed) == (2, JobState.DELIVERING, 1, 0)


def test_a_worker_hears_at_the_next_stage_that_its_job_is_superseded(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)
    reached: list[str] = []

    def long(job: Job, paths: list[Path], progress: Progress) -> Any:
        progress("first")
        ledger.expire_leases(datetime.now(UTC) + timedelta(minutes=5), 1)
        progress("second")
        reached.append("third")

    runner(ledger, archive, long).analyse_next()
    assert reached == []
    assert ledger.job(job.id).state == JobState.FAILED
    assert "fell silent" in ledger.job(job.id).why


def test_the_stage_is_seen_while_it_runs(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)
    seen: list[str] = []

    def stages(job: Job, paths: list[Path], progress: Progress) -> Any:
        progress("candidates")
        seen.append(ledger.job(job.id).progress)
        return found_nothing(job, paths, progress)

    runner(ledger, archive, stages).analyse_next()
    assert seen == ["candidates"]
    assert ledger.job(job.id).progress == ""


def test_a_job_that_is_taken_is_left_alone(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)
    assert ledger.claim_job(job.id, "first", 60) is not None
    assert runner(ledger, archive, owner="second").analyse_next() is None
    assert ledger.job(job.id).owner == "first"


EARLIER = ReplacedResult("earlier", 1, (ReplacedObject("sr", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.1"),))
EXPIRED = "data retention policy expired"


def test_the_pipeline_makes_the_same_bytes_whenever_it_analyses_a_job(
    ledger: Ledger, archive: Archive, tmp_path: Path
) -> None:
    study, paths = make_study(tmp_path / "study", "twice", slices=12, size=64)
    job = job_on(study, paths, ledger, archive)
    stages: list[str] = []
    made = []
    for _ in range(2):
        inputs = [archive.path(relative) for relative in ledger.job_paths(job.id)]
        context = AnalysisContext(
            job, inputs, job.created_at, device="cpu", replaces=EARLIER, key_objects=True, rejection_note=EXPIRED
        )
        findings, objects, kept = run_pipeline(context, stages.append)
        folder = tmp_path / f"made {len(made)}"
        made.append({kind: path.read_bytes() for kind, path in write_results(objects, folder).items()})
        assert findings.study_instance_uid == study
    assert made[0] == made[1]
    assert {"sr", "capture", "rejection"} <= set(made[0])
    assert ("ko" in made[0]) == ("seg" in made[0])
    assert {"crops.zip", "slices.zip", "volumes.zip"} <= set(kept)
    assert len(stages) > 2


def test_what_is_kept_beside_the_objects_lies_in_the_outbox_and_is_not_sent(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)

    def draw_too(job: Job, paths: list[Path], progress: Progress) -> Any:
        return (*found_nothing(job, paths, progress), {"crops.zip": b"pictures"})

    runner(ledger, archive, draw_too).analyse_next()
    assert (archive.outbox(job.id) / "crops.zip").read_bytes() == b"pictures"
    assert [delivery.result.kind for delivery in ledger.deliveries(job.id)] == ["capture"]


def test_a_series_that_is_gone_from_the_archive_is_said_to_be(ledger: Ledger, archive: Archive, tmp_path: Path) -> None:
    study, paths = make_study(tmp_path / "study", "gone", slices=12, size=64)
    job = job_on(study, paths, ledger, archive)
    with pytest.raises(InputError, match=f"job {job.id}: its SWI series is no longer in the archive"):
        run_pipeline(AnalysisContext(job, [], job.created_at), lambda _stage: None)


def damage(path: Path) -> None:
    """Change the last byte of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_image_fails_the_job_and_a_copy_sent_again_heals_it(
    ledger: Ledger, archive: Archive, tmp_path: Path
) -> None:
    study, paths = make_study(tmp_path / "study", "damaged", slices=12, size=64)
    job = job_on(study, paths, ledger, archive)
    count = len(ledger.job_images(job.id))
    image = archive.path(ledger.job_paths(job.id)[3])
    damage(image)
    runner(ledger, archive, lambda *_: pytest.fail("it was analysed")).analyse_next()
    failed = ledger.job(job.id)
    assert failed.state == JobState.FAILED
    assert f"1 of its {count} images are damaged" in failed.why
    assert image.name in failed.why
    assert job_on(study, paths, ledger, archive).id == job.id  # all of it is sent again, and routed
    assert ledger.job(job.id).state == JobState.QUEUED
    done = runner(ledger, archive).analyse_next()
    assert done is not None
    assert done.state == JobState.DELIVERED


def test_the_text_of_an_error_is_kept_only_where_it_cannot_quote_a_header(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)

    def quote(*_: Any) -> Any:
        raise ValueError("cannot decode 'Doe^John'")

    runner(ledger, archive, quote).analyse_next()
    assert ledger.job(job.id).why.startswith("ValueError at test_analysis.py:")
    assert not [change for change in ledger.history("job", job.id) if "Doe" in change.why]
