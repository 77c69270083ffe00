"""What an analysis does, with a real ledger and archive; where errors are the subject, they replace the pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.analysis import Analyst, run_pipeline
from node.archive import Archive
from node.ledger import Job, JobState, Ledger
from pipeline.errors import InputError
from pipeline.results import ResultObject, write_results
from tests.integration.killable_node import make_study
from tests.node.jobs import QUICK, capture, findings_of, job_on, open_job

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


def analyst(ledger: Ledger, archive: Archive, work: Any = found_nothing, owner: str = "worker") -> Analyst:
    return Analyst(ledger, archive, QUICK, owner, work)


def test_findings_objects_and_deliveries_are_there_when_the_job_is_analysed(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive, destinations=("pacs", "research"))
    done = analyst(ledger, archive).analyse(job.id)
    assert done is not None
    assert done.state == JobState.DELIVERING
    assert ledger.findings(job.id) == findings_of(job).to_json()
    (result,) = ledger.results(job.id)
    content = archive.path(result.path).read_bytes()
    assert (result.size, result.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert [delivery.destination for delivery in ledger.deliveries(job.id)] == ["pacs", "research"]
    assert [change.to_state for change in ledger.history("job", job.id)][-3:] == ["running", "analysed", "delivering"]


def test_the_work_gets_every_image_of_the_job(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)
    seen: list[Path] = []

    def look(job: Job, paths: list[Path], progress: Progress) -> Any:
        seen.extend(paths)
        return found_nothing(job, paths, progress)

    analyst(ledger, archive, look).analyse(job.id)
    assert len(seen) == 3
    assert all(path.is_file() for path in seen)


def test_input_that_cannot_be_used_fails_at_once_in_its_own_words(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)

    def refuse(*_: Any) -> Any:
        raise InputError("slice 17 is missing", where="series 4", do="send it again")

    analyst(ledger, archive, refuse).analyse(job.id)
    failed = ledger.job(job.id)
    assert (failed.state, failed.attempts) == (JobState.FAILED, 1)
    assert failed.why == "series 4: slice 17 is missing; send it again"


def test_any_other_error_is_tried_again_and_fails_after_the_last_attempt(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)

    def break_down(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    seen = []
    for _ in range(QUICK.max_attempts):
        after = analyst(ledger, archive, break_down).analyse(job.id)
        assert after is not None
        seen.append(after.state)
    assert seen == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    assert ledger.job(job.id).why == "RuntimeError: CUDA out of memory"


def test_a_job_that_kills_its_worker_every_time_ends_as_failed(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)
    for _ in range(QUICK.max_attempts):
        assert ledger.claim_job(job.id, "doomed", QUICK.lease_s) is not None
        ledger.expire_leases(datetime.now(UTC) + timedelta(minutes=5), QUICK.max_attempts)
    assert ledger.job(job.id).state == JobState.FAILED
    assert analyst(ledger, archive).analyse(job.id) is None


def test_a_worker_that_lost_its_lease_discards_what_it_found(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)

    def overtaken(job: Job, paths: list[Path], progress: Progress) -> Any:
        ledger.expire_leases(datetime.now(UTC) + timedelta(minutes=5), QUICK.max_attempts)
        analyst(ledger, archive, owner="other").analyse(job.id)
        return findings_of(job, software="late"), (ResultObject("capture", capture(job)),)

    analyst(ledger, archive, overtaken).analyse(job.id)
    document = ledger.findings(job.id)
    assert document is not None
    assert document["software"] == "test"
    assert len(ledger.results(job.id)) == 1
    assert ledger.job(job.id).attempts == 2


def test_a_worker_hears_at_the_next_stage_that_its_job_is_superseded(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)
    reached: list[str] = []

    def long(job: Job, paths: list[Path], progress: Progress) -> Any:
        progress("first")
        ledger.expire_leases(datetime.now(UTC) + timedelta(minutes=5), 1)
        progress("second")
        reached.append("third")

    analyst(ledger, archive, long).analyse(job.id)
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

    analyst(ledger, archive, stages).analyse(job.id)
    assert seen == ["candidates"]
    assert ledger.job(job.id).progress == ""


def test_a_job_that_is_taken_is_left_alone(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)
    assert ledger.claim_job(job.id, "first", 60) is not None
    assert analyst(ledger, archive, owner="second").analyse(job.id) is None
    assert ledger.job(job.id).owner == "first"


def test_the_pipeline_makes_the_same_bytes_whenever_it_analyses_a_job(
    ledger: Ledger, archive: Archive, tmp_path: Path
) -> None:
    study, paths = make_study(tmp_path / "study", "twice", slices=12, size=64)
    job = job_on(study, paths, ledger, archive)
    stages: list[str] = []
    made = []
    for _ in range(2):
        inputs = [archive.path(relative) for relative in ledger.job_paths(job.id)]
        findings, objects, kept = run_pipeline(job, inputs, stages.append, "cpu", job.created_at, key_objects=True)
        folder = tmp_path / f"made {len(made)}"
        made.append({kind: path.read_bytes() for kind, path in write_results(objects, folder).items()})
        assert findings.study_instance_uid == study
    assert made[0] == made[1]
    assert {"sr", "capture"} <= set(made[0])
    assert ("ko" in made[0]) == ("seg" in made[0])
    assert {"crops.zip", "slices.zip"} <= set(kept)
    assert len(stages) > 2


def test_what_is_kept_beside_the_objects_lies_in_the_outbox_and_is_not_sent(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)

    def draw_too(job: Job, paths: list[Path], progress: Progress) -> Any:
        return (*found_nothing(job, paths, progress), {"crops.zip": b"pictures"})

    analyst(ledger, archive, draw_too).analyse(job.id)
    assert (archive.outbox(job.id) / "crops.zip").read_bytes() == b"pictures"
    assert [delivery.result.kind for delivery in ledger.deliveries(job.id)] == ["capture"]


def test_a_series_that_is_gone_from_the_archive_is_said_to_be(ledger: Ledger, archive: Archive, tmp_path: Path) -> None:
    study, paths = make_study(tmp_path / "study", "gone", slices=12, size=64)
    job = job_on(study, paths, ledger, archive)
    with pytest.raises(InputError, match=f"job {job.id}: its SWI series is not in the archive any more"):
        run_pipeline(job, [], lambda _stage: None, "cpu", job.created_at)
