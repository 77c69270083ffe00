"""The report of a job: written for those who take no DICOM, and what each destination is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from node.analyse.analysis import AnalysisResult, AnalysisRunner
from node.archive import Archive
from node.deliver.report import ReportStore, read_report, status_of
from node.ledger import Job, JobState, Ledger, NewJob
from node.settings.destinations import DicomDestination, FhirDestination, Hl7Destination
from pipeline.errors import InputError
from pipeline.findings import Verification
from pipeline.results import ResultObject
from tests.node.jobs import QUICK, capture, findings_of, open_job

DESTINATIONS = {
    "pacs": DicomDestination(ae_title="PACS", host="127.0.0.1", port=104),
    "ris": Hl7Destination(kind="hl7", host="127.0.0.1", port=2575),
    "ehr": FhirDestination(kind="fhir", url="http://127.0.0.1/fhir"),
}
REPORTS = ReportStore(DESTINATIONS, ZoneInfo("Europe/Berlin"))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    ledger.upgrade()
    yield ledger
    ledger.close()


def analyse(ledger: Ledger, archive: Archive, job: Job, verified: bool = False) -> Job:
    """Let a worker analyse it, with findings that are given."""

    def work(job: Job, paths: list[Path], progress: object) -> AnalysisResult:
        by = Verification("Rita", "Hospital", datetime.now(UTC)) if verified else None
        return findings_of(job, verification=by), (ResultObject("capture", capture(job)),)

    done = AnalysisRunner(ledger, archive, QUICK, "runner", work, reports=REPORTS).analyse_next()
    assert done is not None
    return done


def sent_to(ledger: Ledger, job: Job) -> set[tuple[str, str]]:
    return {(delivery.destination, delivery.result.kind) for delivery in ledger.deliveries(job.id)}


def test_each_destination_is_sent_what_it_takes(ledger: Ledger, archive: Archive) -> None:
    job = analyse(ledger, archive, open_job(ledger, archive, destinations=("pacs", "ris", "ehr")))
    assert job.state == JobState.DELIVERING
    assert sent_to(ledger, job) == {("pacs", "capture"), ("ris", "report"), ("ehr", "report")}


def test_where_nobody_takes_it_no_report_is_written(ledger: Ledger, archive: Archive) -> None:
    job = analyse(ledger, archive, open_job(ledger, archive))
    assert sent_to(ledger, job) == {("pacs", "capture")}
    assert [path.name for path in archive.outbox(job.id).glob("*.json")] == []


def test_a_destination_that_the_settings_lost_keeps_its_dicom_objects_waiting(ledger: Ledger, archive: Archive) -> None:
    job = analyse(ledger, archive, open_job(ledger, archive, destinations=("gone", "ris")))
    assert sent_to(ledger, job) == {("gone", "capture"), ("ris", "report")}


def test_the_report_says_what_a_message_needs(ledger: Ledger, archive: Archive) -> None:
    job = analyse(ledger, archive, open_job(ledger, archive, destinations=("ris",)))
    (row,) = [result for result in ledger.results(job.id) if result.kind == "report"]
    report = read_report(archive.path(row.path))
    assert (archive.path(row.path).stat().st_size, len(row.sha256)) == (row.size, 64)
    assert report["study"]["study_instance_uid"] == job.study_instance_uid
    assert report["job"] == {"id": job.id, "key": job.key, "warnings": []}
    assert report["findings"]["counts"]["total"] == 0
    assert "candidates" not in report["findings"]
    assert [one["kind"] for one in report["objects"]] == ["capture"]
    issued = datetime.fromisoformat(report["issued"])
    assert issued == job.created_at.replace(microsecond=0)
    assert issued.utcoffset() == job.created_at.astimezone(ZoneInfo("Europe/Berlin")).utcoffset()


def test_the_same_job_makes_the_same_report(ledger: Ledger, archive: Archive) -> None:
    job = open_job(ledger, archive)
    study, document = ledger.study(job.study_instance_uid), findings_of(job).to_json()
    made = [json.dumps(REPORTS.make(job, study, document, [], "preliminary")) for _ in range(2)]
    assert made[0] == made[1]


def again(ledger: Ledger, job: Job, key: str) -> Job:
    """Another job on the same study, in the place of this one."""
    new = NewJob(
        key=key * 64,
        study_instance_uid=job.study_instance_uid,
        swi_series_uid=job.swi_series_uid,
        profile="frst",
        destinations=("ris",),
    )
    return ledger.open_job(new)


def accept(ledger: Ledger) -> None:
    for delivery in ledger.claim_deliveries("ris", "sender", 30):
        assert ledger.delivery_accepted(delivery.id, "sender", 0, "AA")


def status(ledger: Ledger, job: Job) -> str:
    return status_of(ledger, job, ledger.findings(job.id) or {})


def test_the_machines_result_is_preliminary_a_verified_one_final_and_the_next_verified_one_corrects(
    ledger: Ledger, archive: Archive
) -> None:
    first = analyse(ledger, archive, open_job(ledger, archive, destinations=("ris",)))
    accept(ledger)
    second = analyse(ledger, archive, again(ledger, first, "b"), verified=True)
    accept(ledger)
    third = analyse(ledger, archive, again(ledger, second, "c"))
    accept(ledger)
    fourth = analyse(ledger, archive, again(ledger, third, "d"), verified=True)
    told = [status(ledger, job) for job in (first, second, third, fourth)]
    assert told == ["preliminary", "final", "preliminary", "corrected"]


def test_a_verified_result_that_nobody_got_is_not_corrected(ledger: Ledger, archive: Archive) -> None:
    first = analyse(ledger, archive, open_job(ledger, archive, destinations=("ris",)), verified=True)
    second = analyse(ledger, archive, again(ledger, first, "b"), verified=True)
    assert status(ledger, second) == "final"
    assert ledger.deliveries(first.id)[0].state == "cancelled"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "other"}'])
def test_what_is_no_report_is_not_taken_for_one(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError, match="its own report"):
        read_report(tmp_path / "report.json")


def test_unknown_destinations_take_what_a_pacs_takes() -> None:
    assert replace(REPORTS, destinations={}).takes("any", "sr")
    assert not replace(REPORTS, destinations={}).takes("any", "report")
