"""Every event becomes the audit message that the standard has for it, with no more of a patient than the Patient ID."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from node.atna.events import _KINDS, MessageWriter
from node.ledger import AuditEvent, ObjectRefused, PriorQuery, SeriesReceived
from node.ledger.access_records import AuditAction, AuditEntry
from node.settings import DicomDestination, Settings
from node.settings.destinations import Hl7Destination
from node.settings.priors import DicomPacs, DicomWebPacs, PriorsSettings
from node.settings.pull import PullSettings
from pipeline.uids import derive_uid
from tests.audit_repository import Event, check_schema
from tests.node.seeded import MR_IMAGE, Seeder

AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
STUDY = derive_uid("audit", "study")
DESTINATIONS = {
    "pacs": DicomDestination(ae_title="PACS", host="10.0.0.7", port=104),
    "ris": Hl7Destination(kind="hl7", host="ris.hospital.example", port=2575),
}
PEER = {"ae_title": "ARCHIVE", "host": "10.0.0.8", "port": 104}


def message(event: AuditEvent, folder: Path, **settings: object) -> Event:
    """The message of an event, which the schema of the standard accepts."""
    made = Settings(data_dir=folder, destinations=DESTINATIONS, **settings)  # type: ignore[arg-type]
    written = MessageWriter(made).write(event)
    assert written is not None
    found = Event(written.to_xml("CMBNODE", "St. Elsewhere"))
    check_schema([found], folder)
    return found


def entry(
    action: str, study: str = "", detail: str = "", address: str = "10.0.0.5", patient: str = "P-1"
) -> AuditEntry:
    patient = patient if study else ""
    return AuditEntry(7, AT, "ada", action, study, detail, address, "Hopper^Grace", patient, "A1")


def test_every_action_of_the_audit_has_a_message_of_its_own() -> None:
    assert set(_KINDS) == set(AuditAction)


@pytest.mark.parametrize(
    ("action", "study", "detail", "code", "action_code", "outcome"),
    [
        (AuditAction.START, "", "on host", "110100/110120", "E", "0"),
        (AuditAction.STOP, "", "on host", "110100/110121", "E", "0"),
        (AuditAction.SIGN_IN, "", "", "110114/110122", "E", "0"),
        (AuditAction.REFUSAL, "", "wrong password", "110114/110122", "E", "4"),
        (AuditAction.SIGN_OUT, "", "", "110114/110123", "E", "0"),
        (AuditAction.AUDIT, "", "user=ada", "110101", "R", "0"),
        (AuditAction.STUDY, STUDY, "", "110103", "R", "0"),
        (AuditAction.CORRECTION, STUDY, "job 3: 1 rejected", "110103", "U", "0"),
        (AuditAction.PRIORITY, STUDY, "STAT", "110111", "U", "0"),
        (AuditAction.RETRY, STUDY, "job 3", "110111", "U", "0"),
        (AuditAction.ERASED, STUDY, "erased: 1 studies", "110105", "D", "0"),
        (AuditAction.ERASED, "", "erased: 2 objects in quarantine", "110113/110132", "E", "0"),
        (AuditAction.DOWNLOAD, STUDY, "job 3, findings.json", "110106", "R", "0"),
        (AuditAction.LIST, "", "search=Hopper", "110112", "E", "0"),
        (AuditAction.USER, "", "joan added as reader", "110113/110137", "E", "0"),
        (AuditAction.USER, "", "joan: role administrator", "110113/110136", "E", "0"),
        (AuditAction.BACKUP, "", "/backup/1", "110113/110132", "E", "0"),
    ],
)
def test_what_a_person_does_is_told(
    action: str, study: str, detail: str, code: str, action_code: str, outcome: str, tmp_path: Path
) -> None:
    told = message(entry(action, study, detail), tmp_path)
    assert (told.code, told.action, told.outcome) == (code, action_code, outcome)
    assert "Hopper" not in told.xml.decode()
    if not code.startswith("110100"):
        assert told.requestor == ["ada"]
    if study:
        assert told.objects == {"Study Instance UID": STUDY, "Patient Number": "P-1"}


def test_what_was_searched_for_is_the_query_of_the_message(tmp_path: Path) -> None:
    told = message(entry(AuditAction.LIST, detail="search=Hopper"), tmp_path)
    assert told.query == b"search=Hopper"
    assert told.participants == {"Source Role ID": "ada", "Destination Role ID": "CMBNODE"}


def test_a_study_that_was_erased_has_no_patient_any_more(tmp_path: Path) -> None:
    told = message(entry(AuditAction.ERASED, STUDY, "erased: 3 instances", patient=""), tmp_path)
    assert told.objects == {"Study Instance UID": STUDY, "Patient Number": "unknown"}
    assert told.description == "erased: 3 instances"


def test_what_is_received_is_told_with_its_sender_and_counts(tmp_path: Path) -> None:
    told = message(SeriesReceived(AT, STUDY, "P-1", "MR1", "10.0.0.9", ((MR_IMAGE, 72),), False), tmp_path)
    assert (told.code, told.action, told.outcome) == ("110104", "C", "0")
    assert told.participants == {"Source Role ID": "MR1", "Destination Role ID": "CMBNODE"}
    assert told.requestor == ["MR1"]
    assert told.sop_classes == {MR_IMAGE: 72}
    assert told.objects == {"Study Instance UID": STUDY, "Patient Number": "P-1"}


def test_an_object_that_was_refused_is_told_as_a_failure(tmp_path: Path) -> None:
    told = message(ObjectRefused(AT, "", "MR1", "10.0.0.9", "no Study Instance UID"), tmp_path)
    assert (told.code, told.outcome) == ("110104", "4")
    assert told.description == "put into quarantine: no Study Instance UID"


@pytest.fixture
def seeder(tmp_path: Path) -> Iterator[Seeder]:
    made = Seeder(tmp_path)
    yield made
    made.ledger.close()


def test_a_query_for_earlier_studies_is_told_as_the_pacs_gets_it(seeder: Seeder, tmp_path: Path) -> None:
    seeder.receive("one", "Hopper^Grace", "P-1001")
    event = PriorQuery(AT, seeder.ledger.study(seeder.studies["one"]))
    told = message(event, tmp_path, priors=PriorsSettings(dicom=DicomPacs(**PEER)), receiver={"allow_anyone": True})
    query = dcmread(BytesIO(told.query), force=True)
    assert told.code == "110112"
    assert told.participants == {"Source Role ID": "CMBNODE", "Destination Role ID": "ARCHIVE"}
    assert told.objects == {"SOP Class UID": "1.2.840.10008.5.1.4.1.2.2.1"}
    assert (query.QueryRetrieveLevel, query.PatientID, query.ModalitiesInStudy) == ("STUDY", "P-1001", "MR")

    url = "https://pacs.hospital.example/dicom-web"
    told = message(event, tmp_path, priors=PriorsSettings(dicomweb=DicomWebPacs(url=url)))
    assert told.query.startswith(b"/studies?PatientID=P-1001&StudyDate=")
    assert told.objects == {"Search Criteria": f"{url}/studies"}


def test_a_query_for_new_studies_is_told_if_there_is_a_repository(seeder: Seeder, tmp_path: Path) -> None:
    days, ledger = ("20260302", "20260303"), seeder.ledger
    assert ledger.claim_pull_query("another", "one", 30, days)
    ledger.begin_feed()
    assert ledger.claim_pull_query("archive", "one", 30, days)
    batch = ledger.claim_feed()
    assert batch is not None
    (event,) = batch.events
    told = message(event, tmp_path, pull={"archive": PullSettings(dicom=DicomPacs(**PEER, retrieve="c-get"))})
    query = dcmread(BytesIO(told.query), force=True)
    assert told.code == "110112"
    assert told.participants == {"Source Role ID": "CMBNODE", "Destination Role ID": "ARCHIVE"}
    assert (query.StudyDate, query.PatientID, query.ModalitiesInStudy) == ("20260302-20260303", "", "MR")
    assert MessageWriter(Settings(data_dir=tmp_path)).write(event) is None, "the PACS was removed from the settings"


def test_results_are_told_as_a_transfer_to_a_pacs_and_as_an_export_to_a_ris(tmp_path: Path) -> None:
    from node.ledger import ResultSent

    sr, instance = "1.2.840.10008.5.1.4.1.1.88.33", derive_uid("audit", "sr")
    told = message(ResultSent(AT, STUDY, "P-1", "pacs", sr, instance, True, "stored"), tmp_path)
    assert (told.code, told.action, told.outcome) == ("110104", "R", "0")
    assert told.participants == {"Source Role ID": "CMBNODE", "Destination Role ID": "PACS"}
    assert [one.get("UID") for one in told.root.iter("Instance")] == [instance]
    told = message(ResultSent(AT, STUDY, "P-1", "ris", "", instance, False, "AE: no such order"), tmp_path)
    assert (told.code, told.outcome, told.description) == ("110106", "8", "AE: no such order")
    assert told.participants["Destination Media"] == "mllp://ris.hospital.example:2575"
    told = message(ResultSent(AT, STUDY, "P-1", "removed", sr, instance, True, ""), tmp_path)
    assert told.participants["Destination Role ID"] == "removed"


def test_hostile_text_makes_no_broken_message(tmp_path: Path) -> None:
    hostile = "<b>\"&'\x00\x1b\ud800\n]]>"
    told = message(entry(AuditAction.STUDY, STUDY, detail=hostile, patient=hostile), tmp_path)
    assert told.description.startswith("<b>\"&'")
    assert told.objects["Patient Number"].startswith("<b>\"&'")
