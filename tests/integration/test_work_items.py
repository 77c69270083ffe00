"""A running node set up as the page says, a strict worklist manager over HTTP, and Orthanc as PACS and image source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from node.deliver.scu import Peer, read_outgoing, send
from node.ledger import Ledger
from tests.dicom_factory import Patient, affine, classic, siemens_swi, write
from tests.heads import SPACING, small_head
from tests.node.work_items.site import new_item, reference
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.running_node import AE_TITLE, RunningNode, run_node, wait_until
from tests.worklist_manager import ReferenceManager, run_manager

from .test_dicomweb import shell

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "connect-a-pacs.md").read_text()
SECTION = PAGE.partition("\n## Work items of a worklist manager\n")[2].split("\n## ")[0]
STATION = ("CMB1", "Microbleed detector", "99HOSPITAL")
TOKEN = "a token of the hospital"
DONE = ("COMPLETED", "CANCELED")

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@dataclass
class Site:
    """The node and what it works with. The manager can be stopped and started again at the same address."""

    node: RunningNode
    orthanc: Orthanc
    manager: ReferenceManager
    port: int
    folder: Path
    running: ExitStack

    def start_manager(self) -> None:
        self.running.enter_context(run_manager(self.manager, TOKEN, self.port))

    def stop_manager(self) -> None:
        self.running.close()

    def wait(self, condition: object) -> None:
        assert callable(condition)
        wait_until(condition, 120, self.node.process, self.node.data / "node.out")

    def route(self, study: Sequence[Path]) -> None:
        files = [one for path in study if (one := read_outgoing(path)) is not None]
        sent = send(files, Peer(AE_TITLE, "127.0.0.1", self.node.dicom_port), "MODALITY")
        assert all(one.accepted for one in sent)

    def items(self, study_uid: str) -> list[str]:
        """Work items about a study."""
        return [uid for uid, item in self.manager.items.items() if item.StudyInstanceUID == study_uid]

    def schedule(self, name: str, files: Sequence[Path]) -> str:
        """Schedule an item for images that Orthanc has."""
        headers = [dcmread(path, stop_before_pixels=True) for path in files]
        study = str(headers[0].StudyInstanceUID)
        by_series: dict[str, list[Dataset]] = {}
        for one in headers:
            by_series.setdefault(str(one.SeriesInstanceUID), []).append(one)
        address = f"{str(self.orthanc.http.base_url).rstrip('/')}/dicom-web"
        references = [
            reference(
                study,
                series,
                [(str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in images],
                f"{address}/studies/{study}/series/{series}",
            )
            for series, images in by_series.items()
        ]
        return self.manager.schedule(new_item(f"2.25.{int(name.encode().hex(), 16)}", study, references, STATION))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("work-items"), free_port()
    (settings,) = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)
    keep_token, _ = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
    (folder / "secrets").mkdir(mode=0o700)
    shell(f'TOKEN="{TOKEN}"\n{keep_token}', folder)
    manager = ReferenceManager()
    with ExitStack() as stack, run_orthanc(folder / "pacs") as orthanc:
        running = stack.enter_context(ExitStack())
        running.enter_context(run_manager(manager, TOKEN, port))
        settings = settings.replace("https://worklist.hospital.example/dicom-web", f"http://127.0.0.1:{port}/api")
        settings = settings.replace("https://pacs.hospital.example", str(orthanc.http.base_url).rstrip("/"))
        (folder / "node.toml").write_text(settings)
        given = {
            "CONFIG": str(folder / "node.toml"),
            "SECRETS_DIR": str(folder / "secrets"),
            "WORK_ITEMS__POLL_S": "0.5",
            "QUEUE__RETRY_LONGEST_S": "1",
        }
        with run_node(folder / "node", {"pacs": (Orthanc.ae_title, orthanc.dicom_port)}, **given) as node:
            yield Site(node, orthanc, manager, port, folder, running)
        assert manager.refusals == [], "the node asked for something that a manager may refuse"


def swi(folder: Path, name: str) -> list[Path]:
    image, phase = small_head()
    patient = Patient(seed=name, patient_id=f"P-{name}")
    return write(siemens_swi(image, phase, image, patient=patient, matrix=affine(spacing=SPACING)), folder / name)


def study_of(files: Sequence[Path]) -> str:
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def test_the_manager_sees_a_routed_study_from_queued_to_completed(site: Site, tmp_path: Path) -> None:
    files = swi(tmp_path, "routed")
    worker = site.node.part("worker --queue analyse")
    worker.suspend()
    try:
        site.route(files)
        site.wait(lambda: site.items(study_of(files)))
        (item_uid,) = site.items(study_of(files))
        assert site.manager.state(item_uid) == "SCHEDULED"
    finally:
        worker.resume()
    site.wait(lambda: site.manager.state(item_uid) in DONE)
    states = [step for step in site.manager.steps(item_uid) if not step.startswith("progress")]
    assert states == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
    (performed,) = site.manager.items[item_uid].UnifiedProcedureStepPerformedProcedureSequence
    named = {
        str(one.ReferencedSOPInstanceUID)
        for output in performed.OutputInformationSequence
        for one in output.ReferencedSOPSequence
    }
    stored = {one["SOPInstanceUID"] for one in stored_results(site, study_of(files))}
    assert named == stored
    assert {one.DICOMRetrievalSequence[0].RetrieveAETitle for one in performed.OutputInformationSequence} == {
        Orthanc.ae_title
    }


def stored_results(site: Site, study_uid: str) -> list[dict[str, str]]:
    """What the PACS has of a study."""
    found = site.orthanc.get(f"/dicom-web/studies/{study_uid}/instances")
    return [{"SOPInstanceUID": one["00080018"]["Value"][0]} for one in found]


def test_a_scheduled_item_is_claimed_its_images_fetched_and_completed(site: Site, tmp_path: Path) -> None:
    files = swi(tmp_path, "scheduled")
    site.orthanc.upload(*files)
    item_uid = site.schedule("scheduled", files)
    site.wait(lambda: site.manager.state(item_uid) in DONE)
    assert site.manager.state(item_uid) == "COMPLETED"
    assert site.items(study_of(files)) == [item_uid]  # no second item for the same work
    said = site.manager.steps(item_uid)
    assert said[:3] == ["SCHEDULED", "IN PROGRESS", "progress: images are being fetched"]
    (performed,) = site.manager.items[item_uid].UnifiedProcedureStepPerformedProcedureSequence
    assert len(performed.OutputInformationSequence) >= 2
    ledger = Ledger(f"sqlite:///{site.node.data / 'ledger.sqlite3'}")
    try:
        assert not ledger.study(study_of(files)).fetched  # treated as if it had been sent
    finally:
        ledger.close()


def test_an_item_whose_analysis_fails_is_cancelled_with_the_reason(site: Site, tmp_path: Path) -> None:
    few = classic(np.ones((3, 16, 16), dtype=np.uint16), patient=Patient(seed="few", patient_id="P-few"))
    files = write(few, tmp_path)
    site.orthanc.upload(*files)
    item_uid = site.schedule("few", files)
    site.wait(lambda: site.manager.state(item_uid) in DONE)
    assert site.manager.state(item_uid) == "CANCELED"
    (progress,) = site.manager.items[item_uid].ProcedureStepProgressInformationSequence
    assert progress.ReasonForCancellation.startswith("the analysis failed: ")
    assert "at least 4 are needed" in progress.ReasonForCancellation
    assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"


def test_what_happens_while_the_manager_is_down_is_told_in_order_afterwards(site: Site, tmp_path: Path) -> None:
    files = swi(tmp_path, "outage")
    site.stop_manager()
    site.route(files)
    known = {job["id"] for job in site.node.jobs() if job["state"] == "delivered"}
    site.wait(lambda: {job["id"] for job in site.node.jobs() if job["state"] == "delivered"} - known)
    doctor = site.node.command("doctor")
    assert doctor.returncode == 1
    assert f"worklist manager: http://127.0.0.1:{site.port}/api cannot be reached" in doctor.stdout
    site.start_manager()
    site.wait(lambda: site.items(study_of(files)))
    (item_uid,) = site.items(study_of(files))
    site.wait(lambda: site.manager.state(item_uid) in DONE)
    assert site.manager.steps(item_uid) == ["SCHEDULED", "IN PROGRESS", "progress: results delivered", "COMPLETED"]
    assert "answers UPS-RS" in site.node.command("doctor").stdout


def test_an_item_cancelled_at_the_manager_cancels_the_job_that_waits(site: Site, tmp_path: Path) -> None:
    files = swi(tmp_path, "cancelled")
    worker = site.node.part("worker --queue analyse")
    worker.suspend()
    try:
        site.route(files)
        site.wait(lambda: site.items(study_of(files)))
        (item_uid,) = site.items(study_of(files))
        assert site.manager.request_cancellation(item_uid, "the wrong patient").status == 202
        site.wait(lambda: newest_job(site)["state"] == "superseded")
    finally:
        worker.resume()
    assert newest_job(site)["why"] == "cancelled by the worklist manager: the wrong patient"
    assert site.manager.state(item_uid) == "CANCELED"


def newest_job(site: Site) -> dict[str, object]:
    return max(site.node.jobs(), key=lambda job: int(job["id"]))
