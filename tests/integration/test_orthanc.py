"""A real PACS: Orthanc routes a study to the node, and the results appear in that study."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from node.ledger import Ledger, SeriesRecord, SeriesState
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.running_node import AE_TITLE, RunningNode, run_node, wait_until

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "node" / "demo" / "study"
RESULTS = {"SEG", "SR", "SC"}
KINDS = {
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.88.34": "SR",
    "1.2.840.10008.5.1.4.1.1.7": "SC",
    "1.2.840.10008.5.1.4.1.1.7.4": "SC",
}

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Site:
    """A PACS and a node that know each other, and the study that was sent through both."""

    orthanc: Orthanc
    node: RunningNode
    study_instance_uid: str
    sent: int


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    lua = ROOT / "deploy" / "orthanc" / "route-to-cmbnode.lua"
    port = free_port()
    with (
        run_orthanc(folder / "pacs", node=(AE_TITLE, port), lua=lua) as orthanc,
        run_node(folder / "node", {"pacs": (Orthanc.ae_title, orthanc.dicom_port)}, dicom_port=port) as node,
    ):
        files = sorted(STUDY.glob("*.dcm"))
        uid = dcmread(files[0], stop_before_pixels=True).StudyInstanceUID
        orthanc.upload(*files)
        done = wait_until(
            lambda: [job for job in node.jobs() if job["state"] in ("delivered", "failed")],
            180, node.process, folder / "node" / "node.out",
        )  # fmt: skip
        assert [job["state"] for job in done] == ["delivered"], done
        yield Site(orthanc, node, uid, len(files))


def _results(site: Site) -> dict[str, Dataset]:
    """Return the node's objects as the PACS gives them back, by kind."""
    datasets = [dcmread(io.BytesIO(file)) for file in site.orthanc.instances(site.study_instance_uid)]
    return {KINDS[ds.SOPClassUID]: ds for ds in datasets if ds.SOPClassUID in KINDS}


def test_the_results_arrive_in_the_study_once_each(site: Site) -> None:
    datasets = [
        dcmread(io.BytesIO(f), stop_before_pixels=True) for f in site.orthanc.instances(site.study_instance_uid)
    ]
    kinds = Counter(KINDS.get(ds.SOPClassUID, "image") for ds in datasets)
    assert kinds == {"image": site.sent, "SEG": 1, "SR": 1, "SC": 1}
    assert site.orthanc.get("/statistics")["CountStudies"] == 1
    assert site.orthanc.get("/statistics")["CountPatients"] == 1


def test_dicomweb_of_the_pacs_finds_a_new_series_for_each_result(site: Site) -> None:
    series = site.orthanc.find_series(site.study_instance_uid)
    modalities = Counter(row["00080060"] for row in series)
    assert {name: modalities[name] for name in ("SEG", "SR")} == {"SEG": 1, "SR": 1}
    found = {row["0020000E"] for row in series}
    assert {ds.SeriesInstanceUID for ds in _results(site).values()} <= found


def test_report_segmentation_and_source_images_name_each_other(site: Site) -> None:
    results = _results(site)
    assert results.keys() == RESULTS
    segments = {segment.TrackingUID for segment in results["SEG"].SegmentSequence}
    assert segments, "the demo study has bleeds"
    text = str(results["SR"])
    assert all(uid in text for uid in segments)
    assert results["SEG"].SOPInstanceUID in text
    referenced = {
        item.ReferencedSOPInstanceUID
        for series in results["SEG"].ReferencedSeriesSequence
        for item in series.ReferencedInstanceSequence
    }
    stored = {path.stem for path in STUDY.glob("*.dcm")} | {
        dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in STUDY.glob("*.dcm")
    }
    assert referenced <= stored


def test_results_that_the_pacs_sends_back_are_not_analysed_again(site: Site) -> None:
    """Orthanc's routing looks at MR only, but many a PACS sends whole studies: the node must not answer itself."""
    series = site.orthanc.http.post(
        "/tools/find",
        json={"Level": "Study", "Query": {"StudyInstanceUID": site.study_instance_uid}},
    ).json()  # fmt: skip
    answer = site.orthanc.http.post("/modalities/cmbnode/store", json={"Resources": series, "Synchronous": True})
    assert answer.json()["FailedInstancesCount"] == 0
    shown = wait_until(
        lambda: [row for row in _series(site) if row.modality != "MR" and row.state == SeriesState.IGNORED],
        60, site.node.process, site.node.data / "node.out",
    )  # fmt: skip
    assert all(row.why for row in shown)
    assert len(site.node.jobs()) == 1


def _series(site: Site) -> list[SeriesRecord]:
    ledger = Ledger(f"sqlite:///{site.node.data / 'ledger.sqlite3'}")
    try:
        return ledger.series(site.study_instance_uid)
    finally:
        ledger.close()


def test_every_state_is_in_the_history(site: Site) -> None:
    job = site.node.jobs()[0]["id"]
    history = json.loads(site.node.command("show", str(job), "--json").stdout)["history"]
    assert [row["to"] for row in history] == ["queued", "running", "analysed", "delivering", "delivered"]
