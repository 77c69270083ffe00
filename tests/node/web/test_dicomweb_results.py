"""QIDO-RS and WADO-RS: a client finds and fetches the node's own results, and nothing that was received."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client import DICOMwebClient
from fastapi.testclient import TestClient
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    SegmentationStorage,
)
from requests import HTTPError

from node.ledger import Ledger, ResultFile
from node.ledger.access_records import AuditFilters
from node.web.app import create_app
from node.web.dicomweb.search import ResultQuery
from pipeline.uids import derive_uid
from tests.node.dicomweb import VIEWER, bearer, settings_with_clients
from tests.node.seeded import Seeder, make_findings
from tests.web_server import served

KINDS = {
    "sr": (Comprehensive3DSRStorage, "SR"),
    "seg": (SegmentationStorage, "SEG"),
    "ko": (KeyObjectSelectionDocumentStorage, "KO"),
}


def result(key: str, kind: str, study: str, patient: str, name: str, date: str) -> bytes:
    """A small object with the header of a result."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.Modality = KINDS[kind]
    ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = (
        derive_uid(key, kind),
        derive_uid(key, kind, 1),
        study,
    )
    ds.PatientID, ds.PatientName, ds.StudyDate, ds.AccessionNumber = patient, name, date, f"A-{patient}"
    ds.SeriesNumber, ds.InstanceNumber = 9001, 1
    if kind == "seg":
        ds.Rows = ds.Columns = ds.BitsAllocated = 8
        ds.PixelData = bytes(64)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class Site:
    """Two analysed studies, one that was analysed again, one without a job; and a client of the running node."""

    client: DICOMwebClient
    web: TestClient
    ledger: Ledger
    studies: dict[str, str]
    files: dict[tuple[str, str], bytes]
    data: Path


def analysed(seeder: Seeder, key: str, kinds: tuple[str, ...], patient: str, name: str, date: str) -> dict[str, bytes]:
    """Give the newest job of a study its results."""
    job, study = seeder.jobs[key], seeder.studies[key.partition("/")[0]]
    seeder.ledger.claim_job(job, "worker-1", 30)
    files, made = [], {}
    for kind in kinds:
        made[kind] = content = result(key, kind, study, patient, name, date)
        path = seeder.data_dir / "outbox" / str(job) / f"{kind}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        digest = sha256(content).hexdigest()
        place = path.relative_to(seeder.data_dir).as_posix()
        files.append(ResultFile(kind, derive_uid(key, kind), KINDS[kind][0], place, len(content), digest))
    files.append(ResultFile("report", "", "", f"outbox/{job}/report.json", 2, "0" * 64))
    seeder.ledger.finish_analysis(job, "worker-1", make_findings(study, 1).to_json(), files)
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    seeder = Seeder(tmp_path_factory.mktemp("results"))
    files = {}
    for key, kinds, patient, name, date in (
        ("old", ("sr",), "P-1", "Hopper^Grace", "20260101"),
        ("new", ("sr", "seg", "ko"), "P-2", "Müller^Änne", "20260503"),
    ):
        seeder.receive(key, name, patient)
        seeder.settle(key)
        seeder.open(key)
        files |= {(key, kind): content for kind, content in analysed(seeder, key, kinds, patient, name, date).items()}
    seeder.receive("unanalysed", "Curie^Marie", "P-3")
    settings = settings_with_clients(seeder.data_dir)
    app = create_app(settings, seeder.ledger)
    with served(app) as url:
        client = DICOMwebClient(f"{url}/dicomweb", headers=bearer(VIEWER))
        web = TestClient(app, base_url="http://127.0.0.1", headers=bearer(VIEWER))
        yield Site(client, web, seeder.ledger, seeder.studies, files, seeder.data_dir)
    seeder.ledger.close()


def values(items: list[dict[str, Any]], tag: str) -> list[Any]:
    return [item[tag].get("Value", [None])[0] for item in items]


def test_every_study_with_results_is_found_the_newest_first(site: Site) -> None:
    found = site.client.search_for_studies()
    assert values(found, "0020000D") == [site.studies["new"], site.studies["old"]]
    new = found[0]
    assert new["00080061"]["Value"] == ["KO", "SEG", "SR"]
    assert (new["00201206"]["Value"], new["00201208"]["Value"]) == ([3], [3])
    assert new["00100010"]["Value"] == [{"Alphabetic": "Müller^Änne"}]
    assert new["00080056"]["Value"] == ["ONLINE"]
    assert new["00081190"]["Value"][0].endswith(f"/dicomweb/studies/{site.studies['new']}")


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        ({"PatientID": "P-1"}, ["old"]),
        ({"PatientID": "P-*"}, ["new", "old"]),
        ({"00100020": "P-?"}, ["new", "old"]),
        ({"PatientID": "p-1"}, []),
        ({"PatientID": ""}, ["new", "old"]),
        ({"PatientName": "hopper*"}, ["old"]),
        ({"AccessionNumber": "A-P-2"}, ["new"]),
        ({"AccessionNumber": "A.P.2"}, []),
        ({"StudyDate": "20260503"}, ["new"]),
        ({"StudyDate": "20260101-20260301"}, ["old"]),
        ({"StudyDate": "20260301-"}, ["new"]),
        ({"StudyDate": "-20260301"}, ["old"]),
        ({"ModalitiesInStudy": "SEG"}, ["new"]),
        ({"ModalitiesInStudy": "MR"}, []),
        ({"Modality": "SR", "PatientID": "P-1"}, ["old"]),
    ],
)
def test_studies_are_matched(site: Site, filters: dict[str, str], keys: list[str]) -> None:
    found = site.client.search_for_studies(search_filters=filters)
    assert values(found, "0020000D") == [site.studies[key] for key in keys]


def test_uids_are_matched_one_by_one_or_as_a_list(site: Site) -> None:
    both = f"{site.studies['old']},{site.studies['new']}"
    assert len(site.client.search_for_studies(search_filters={"StudyInstanceUID": both})) == 2
    assert site.client.search_for_studies(search_filters={"StudyInstanceUID": site.studies["unanalysed"]}) == []


def test_series_and_instances_are_found_on_every_way(site: Site) -> None:
    study, series = site.studies["new"], derive_uid("new", "seg", 1)
    assert len(site.client.search_for_series()) == 4
    assert len(site.client.search_for_instances()) == 4
    assert sorted(values(site.client.search_for_series(study), "00080060")) == ["KO", "SEG", "SR"]
    assert values(site.client.search_for_series(study, search_filters={"Modality": "SEG"}), "0020000E") == [series]
    assert len(site.client.search_for_instances(study)) == 3
    (one,) = site.client.search_for_instances(study, series)
    assert (one["00080018"]["Value"], one["00280010"]["Value"]) == ([derive_uid("new", "seg")], [8])


def test_a_part_of_the_answers_is_given_at_a_time_and_the_rest_is_announced(site: Site) -> None:
    first = site.web.get("/dicomweb/instances?limit=3")
    rest = site.web.get("/dicomweb/instances?limit=3&offset=3")
    assert (len(first.json()), len(rest.json())) == (3, 1)
    assert "There are more results" in first.headers["warning"]
    assert "warning" not in rest.headers
    assert len(site.client.search_for_instances(limit=2, get_remaining=True)) == 4


@pytest.mark.parametrize(
    ("query", "status"),
    [("limit=x", 400), ("offset=-1", 400), ("StationName=x", 400), ("00081010=x", 400), ("includefield=all", 200),
     ("fuzzymatching=true", 200), ("limit=999999", 200), ("limit=9999999999", 400)],
)  # fmt: skip
def test_a_search_that_cannot_be_done_is_refused(site: Site, query: str, status: int) -> None:
    assert site.web.get(f"/dicomweb/studies?{query}").status_code == status


def test_only_json_is_given_for_searches_and_metadata(site: Site) -> None:
    study = site.studies["new"]
    for path in ("/dicomweb/studies", f"/dicomweb/studies/{study}/metadata"):
        assert site.web.get(path, headers={"Accept": "application/dicom+xml"}).status_code == 406
        assert site.web.get(path, headers={"Accept": "application/json"}).status_code == 200


def encoded(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_results_are_fetched_as_they_are(site: Site) -> None:
    study, series, uid = site.studies["new"], derive_uid("new", "seg", 1), derive_uid("new", "seg")
    fetched = site.client.retrieve_study(study)
    assert [encoded(ds) for ds in fetched] == [site.files["new", kind] for kind in ("sr", "seg", "ko")]
    (of_series,) = site.client.retrieve_series(study, series)
    one = site.client.retrieve_instance(study, series, uid)
    assert encoded(of_series) == encoded(one) == site.files["new", "seg"]


def test_metadata_is_in_utf_8_and_without_pixels(site: Site) -> None:
    study, series, uid = site.studies["new"], derive_uid("new", "seg", 1), derive_uid("new", "seg")
    assert len(site.client.retrieve_study_metadata(study)) == 3
    assert len(site.client.retrieve_series_metadata(study, series)) == 1
    document = site.client.retrieve_instance_metadata(study, series, uid)
    ds = Dataset.from_json(document)
    assert (ds.PatientName, ds.SpecificCharacterSet) == ("Müller^Änne", "ISO_IR 192")
    assert "PixelData" not in ds


@pytest.mark.parametrize(
    ("accept", "status", "kind"),
    [
        ("", 200, "multipart/related"),
        ("*/*", 200, "multipart/related"),
        ("application/dicom", 200, "application/dicom"),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', 200, "multipart/related"),
        ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1', 200, "multipart/related"),
        ('multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.50', 406, ""),
        ("multipart/related; type=application/octet-stream", 406, ""),
        ("image/jpeg", 406, ""),
        ("image/jpeg, application/dicom;q=0.1", 200, "application/dicom"),
        ("application/dicom;q=0", 406, ""),
        (',;"', 406, ""),
    ],
)
def test_an_instance_comes_as_the_client_accepts_it(site: Site, accept: str, status: int, kind: str) -> None:
    series, uid = derive_uid("new", "sr", 1), derive_uid("new", "sr")
    path = f"/dicomweb/studies/{site.studies['new']}/series/{series}/instances/{uid}"
    answer = site.web.get(path, headers={"Accept": accept})
    assert answer.status_code == status
    if kind:
        assert answer.headers["content-type"].startswith(kind)
    if kind == "application/dicom":
        assert dcmread(BytesIO(answer.content)).Modality == "SR"


def test_what_was_received_is_not_served(site: Site) -> None:
    for study in (site.studies["unanalysed"], "1.2.3"):
        with pytest.raises(HTTPError, match="404"):
            site.client.retrieve_study(study)
    with pytest.raises(HTTPError, match="404"):
        site.client.retrieve_series(site.studies["new"], derive_uid("new", 4))


def test_who_searched_and_fetched_is_in_the_audit(site: Site) -> None:
    site.web.get("/dicomweb/studies?PatientID=P-1")
    site.web.get(f"/dicomweb/studies/{site.studies['old']}")
    entries = site.ledger.audit(AuditFilters(user_name="dicomweb viewer"))
    fetched, searched = entries[:2]
    assert (fetched.action, fetched.study_instance_uid) == ("downloaded", site.studies["old"])
    assert searched.detail == "QIDO-RS /dicomweb/studies?PatientID=P-1"


def test_a_damaged_file_is_not_served(site: Site) -> None:
    path = next((site.data / "outbox").glob("*/ko.dcm"))
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + b"x")
        answer = site.web.get(f"/dicomweb/studies/{site.studies['new']}")
        assert (answer.status_code, "is damaged" in answer.json()["detail"]) == (500, True)
        path.unlink()  # as retention does
        assert len(site.client.retrieve_study(site.studies["new"])) == 2
    finally:
        path.write_bytes(content)


def test_a_query_keeps_to_the_address(site: Site) -> None:
    answer = site.web.get(f"/dicomweb/studies/{site.studies['new']}/series?StudyInstanceUID={site.studies['old']}")
    assert answer.status_code == 400
    assert ResultQuery().select([]) == []
