"""The script of the demo PACS: a real Orthanc sends each image to the node once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.running_node import wait_until

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "orthanc" / "route-to-cmbnode.lua"
STUDY = ROOT / "node" / "demo" / "study"
MAGNITUDE, LATER_MAGNITUDE, PHASE = STUDY / "mag-0001.dcm", STUDY / "mag-0002.dcm", STUDY / "pha-0001.dcm"

pytestmark = pytest.mark.integration


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Orthanc]:
    """A PACS whose node does not answer: what it would send is in its list of jobs."""
    with run_orthanc(tmp_path, node=("CMBNODE", free_port()), lua=SCRIPT) as orthanc:
        yield orthanc


def _sent(pacs: Orthanc) -> list[list[str]]:
    """What each C-STORE job sends, oldest first."""
    jobs = pacs.http.get("/jobs?expand").json()
    stores = [job for job in jobs if job["Type"] == "DicomModalityStore"]
    return [job["Content"]["ParentResources"] for job in sorted(stores, key=lambda job: job["CreationTime"])]


def test_images_are_not_sent_again_when_results_arrive(pacs: Orthanc) -> None:
    pacs.upload(MAGNITUDE)
    wait_until(lambda: _sent(pacs), 60)
    [study] = pacs.get("/studies")
    [magnitude] = pacs.get("/series")

    pacs.http.post("/instances", content=_result()).raise_for_status()
    wait_until(lambda: pacs.get(f"/studies/{study}")["IsStable"], 60)
    pacs.upload(PHASE)  # only now, so that Orthanc has dealt with the result when it deals with this image
    wait_until(lambda: len(_sent(pacs)) > 1, 60)
    phase = _series_of(pacs, PHASE)
    assert _sent(pacs) == [[magnitude], [phase]]


def test_a_series_is_sent_again_when_another_image_of_it_arrives(pacs: Orthanc) -> None:
    pacs.upload(MAGNITUDE)
    wait_until(lambda: _sent(pacs), 60)
    pacs.upload(LATER_MAGNITUDE)
    wait_until(lambda: len(_sent(pacs)) > 1, 60)
    assert _sent(pacs) == [[_series_of(pacs, MAGNITUDE)]] * 2


def _series_of(pacs: Orthanc, image: Path) -> str:
    uid = dcmread(image, stop_before_pixels=True).SeriesInstanceUID
    [found] = pacs.http.post("/tools/find", json={"Level": "Series", "Query": {"SeriesInstanceUID": uid}}).json()
    return str(found)


def _result() -> bytes:
    """A report in the study of the images."""
    report = dcmread(MAGNITUDE, stop_before_pixels=True)
    report.Modality = "SR"
    report.SeriesInstanceUID, report.SOPInstanceUID = generate_uid(), generate_uid()
    file = io.BytesIO()
    report.save_as(file)
    return file.getvalue()
