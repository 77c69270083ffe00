"""Erasing a study leaves nothing of it, and old rows go by themselves; on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select

from node.archive import Archive
from node.cli import main
from node.ledger import JobState, Ledger, NewInstance
from node.ledger.models import metadata
from node.run.erasing import erase_study, remove_old_rows
from node.settings import ArchiveSettings, Settings
from pipeline.errors import InputError
from pipeline.uids import derive_uid
from tests.node.jobs import finish, open_job

pytestmark = pytest.mark.slow

NAME, PATIENT = "Erasable^Erika", "E-4711"


@pytest.fixture
def wall_ledger(ledger_url: str) -> Iterator[Ledger]:
    ledger = Ledger(ledger_url)
    yield ledger
    ledger.close()


def analysed(ledger: Ledger, archive: Archive, name: str = "one") -> str:
    """A study of the patient, analysed and delivered; returns its UID."""
    finish(ledger, archive, open_job(ledger, archive, name))
    for delivery in ledger.claim_deliveries("pacs", "sender", 30):
        assert ledger.delivery_accepted(delivery.id, "sender", 0)
    return of_the_patient(ledger, derive_uid(name, "study"))


def of_the_patient(ledger: Ledger, uid: str) -> str:
    studies = metadata.tables["studies"]
    with ledger.engine.begin() as connection:
        values = {"patient_name": NAME, "patient_id": PATIENT}
        connection.execute(studies.update().where(studies.c.study_instance_uid == uid).values(values))
    return uid


def rows_naming(ledger: Ledger, *words: str) -> dict[str, int]:
    """Rows of every table that quote one of these words."""
    found = {}
    with ledger.engine.connect() as connection:
        for table in metadata.sorted_tables:
            rows = [str(tuple(row)) for row in connection.execute(select(table))]
            if number := sum(any(word in row for word in words) for row in rows):
                found[table.name] = number
    return found


def test_nothing_of_an_erased_study_is_left_but_that_it_was_erased(wall_ledger: Ledger, tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    uid, other = analysed(wall_ledger, archive), analysed(wall_ledger, archive, "other")
    looked_for = f"searched for erasable erika, Erika Erasable, {PATIENT}"
    wall_ledger.record_access("jane", "looked at the list", detail=looked_for)
    before = rows_naming(wall_ledger, other)
    erased = erase_study(wall_ledger, archive, uid, "root")
    assert (erased.files, erased.delivered_to) == (6, ("pacs",))  # three images and three results
    assert rows_naming(wall_ledger, uid) == {"audit": 2}
    assert rows_naming(wall_ledger, other) == before
    assert {entry.detail for entry in wall_ledger.audit() if entry.user_name == "jane"} == {
        "searched for (erased), (erased), (erased)"
    }
    assert not list((archive.root / "studies").glob(f"{uid}*"))
    assert [path.name for path in (archive.root / "outbox").iterdir()] == ["2"]


def test_a_study_whose_files_are_gone_is_erased(wall_ledger: Ledger, tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    uid = analysed(wall_ledger, archive)
    for path in [*(tmp_path / "studies").rglob("*.dcm"), *(tmp_path / "outbox").rglob("*.dcm")]:
        path.unlink()
    assert erase_study(wall_ledger, archive, uid, "root").files == 0
    assert rows_naming(wall_ledger, uid) == {"audit": 2}


def test_a_running_job_holds_the_erasure_up_and_a_dead_worker_does_not(wall_ledger: Ledger, tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    job = open_job(wall_ledger, archive)
    assert wall_ledger.claim_job(job.id, "worker", 30)
    with pytest.raises(InputError, match=f"job {job.id} is running"):
        erase_study(wall_ledger, archive, job.study_instance_uid, "root")
    assert wall_ledger.job(job.id).state == JobState.RUNNING
    assert wall_ledger.heartbeat(job.id, "worker", -1)
    erase_study(wall_ledger, archive, job.study_instance_uid, "root")
    assert rows_naming(wall_ledger, job.study_instance_uid) == {"audit": 2}


def test_an_interrupted_erasure_is_finished_by_the_next(wall_ledger: Ledger, tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    job = open_job(wall_ledger, archive)
    wall_ledger.begin_erasure(job.study_instance_uid, "root")
    assert wall_ledger.claim_next_job("worker", 30) is None  # nobody begins to work on it
    erase_study(wall_ledger, archive, job.study_instance_uid, "root")
    with pytest.raises(InputError, match="no such study"):
        wall_ledger.study(job.study_instance_uid)


def test_every_table_that_belongs_to_a_study_is_erased() -> None:
    linked = {
        table.name
        for table in metadata.sorted_tables
        if {"study_instance_uid", "series_instance_uid", "job_id", "prior_study_uid"} & set(table.columns.keys())
    }
    erased = {"studies", "series", "associations", "instances", "quarantine", "jobs", "findings", "results"}
    keep_the_uid = {"audit", "pulls", "work_items"}  # who erased it, and that it is not fetched again
    assert linked == erased | {"deliveries", "prior_requests", "priors"} | keep_the_uid


def test_old_rows_go_after_their_images_and_young_ones_stay(wall_ledger: Ledger, tmp_path: Path) -> None:
    archive, now = Archive(tmp_path), datetime.now(UTC)
    old, young = analysed(wall_ledger, archive, "old"), analysed(wall_ledger, archive, "young")
    studies = metadata.tables["studies"]
    with wall_ledger.engine.begin() as connection:
        for uid, days in ((old, 11), (young, 9)):
            removed = {"removed_at": now - timedelta(days=days)}
            connection.execute(studies.update().where(studies.c.study_instance_uid == uid).values(removed))
    wall_ledger.hold_study(young, "for the history")
    settings = ArchiveSettings(keep_rows_days=10, keep_history_days=10)
    remove_old_rows(wall_ledger, archive, settings, now)
    with pytest.raises(InputError, match="no such study"):
        wall_ledger.study(old)
    assert wall_ledger.study(young).patient_name == NAME
    assert wall_ledger.history("study", young)
    remove_old_rows(wall_ledger, archive, settings, now + timedelta(days=10, hours=1))
    assert not rows_naming(wall_ledger, young).keys() - {"audit"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    ledger = Ledger(Settings(data_dir=tmp_path).ledger_url)
    ledger.upgrade()
    analysed(ledger, Archive(tmp_path))
    ledger.close()
    return tmp_path


def test_the_command_asks_first(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.confirm", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["erase", "--patient", PATIENT, "--data", str(data)]) == 130
    assert list((data / "studies").rglob("*.dcm"))


def test_the_command_erases_a_patient_and_leaves_no_name_in_the_database(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["erase", "--patient", PATIENT, "--yes", "--json", "--data", str(data)]) == 0
    (erased,) = json.loads(capsys.readouterr().out)["erased"]
    assert (erased["study_instance_uid"], erased["files"]) == (derive_uid("one", "study"), 6)
    for file in data.glob("ledger.sqlite3*"):
        assert NAME.encode() not in file.read_bytes()
    assert main(["erase", "--patient", PATIENT, "--yes", "--data", str(data)]) == 2
    assert main(["erase", "--yes", "--data", str(data)]) == 2


def test_the_command_says_what_it_did(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uid = derive_uid("one", "study")
    assert main(["erase", "--study", uid, "--yes", "--data", str(data)]) == 0
    said = capsys.readouterr()
    assert f"study {uid}: 6 files and these rows removed:" in said.out
    assert "its results were sent to pacs, and stay there" in said.out
    assert "Backups" in said.err


def set_aside(data: Path, content: bytes) -> Path:
    """Put an object into quarantine, as the receiver does with one that has no usable UIDs."""
    archive, ledger = Archive(data), Ledger(Settings(data_dir=data).ledger_url)
    with archive.incoming() as incoming:
        incoming.write(content)
        incoming.check()
        stored = archive.quarantine(incoming, "no usable UIDs", {})
    uids = dict.fromkeys(
        ("sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "series_instance_uid", "study_instance_uid"), ""
    )
    record = NewInstance(
        **uids, path=stored.path, size=stored.size, sha256=stored.sha256, received_at=datetime.now(UTC)
    )
    ledger.quarantine(record, stored.path, "no usable UIDs")
    ledger.close()
    return data / stored.path


def an_object(patient_id: str) -> bytes:
    ds = Dataset()
    ds.PatientID, ds.PatientName = patient_id, NAME
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_a_patient_of_whom_only_quarantine_has_something_is_erased(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = set_aside(data, an_object("Q-1")), set_aside(data, an_object("Q-2"))
    garbage = set_aside(data, b"no DICOM at all")
    assert main(["erase", "--patient", "Q-1", "--yes", "--json", "--data", str(data)]) == 0
    assert json.loads(capsys.readouterr().out)["quarantine"] == {"objects": 1, "unreadable": 1}
    assert [path.exists() for path in (own, own.with_suffix(".json"), other, garbage)] == [False, False, True, True]
    assert main(["erase", "--patient", "Q-1", "--yes", "--data", str(data)]) == 2
    assert "1 object in quarantine cannot be read" in capsys.readouterr().err
    assert main(["erase", "--patient", PATIENT, "--yes", "--data", str(data)]) == 0  # its study, nothing in quarantine


def test_a_study_that_is_busy_holds_up_no_other_of_the_patient(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger, archive = Ledger(Settings(data_dir=data).ledger_url), Archive(data)
    job = open_job(ledger, archive, "busy")
    busy = of_the_patient(ledger, job.study_instance_uid)
    assert ledger.claim_job(job.id, "worker", 30)
    assert main(["erase", "--patient", PATIENT, "--yes", "--json", "--data", str(data)]) == 2
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert [one["study_instance_uid"] for one in document["erased"]] == [derive_uid("one", "study")]
    assert busy in document["refused"][0]
    assert busy in said.err
    ledger.close()
