"""The commands of the page on a running node: a study arrives by STOW-RS, its results are found and fetched."""

from __future__ import annotations

import io
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread

from node.ledger import Ledger
from tests.dicom_factory import Patient, affine, classic, siemens_swi, write
from tests.heads import BLEEDS, SPACING, small_head
from tests.orthanc import run_orthanc
from tests.running_node import RunningNode, run_node, wait_until

ROOT = Path(__file__).parents[2]
SECTION = (
    (ROOT / "docs" / "connect-a-pacs.md").read_text().partition("\n## DICOMweb to the node\n")[2].split("\n## ")[0]
)
PATIENT = Patient(seed="dicomweb", patient_id="P-2041")

pytestmark = pytest.mark.integration


def blocks(kind: str) -> list[str]:
    """Code blocks of the section."""
    return re.findall(rf"```{kind}\n(.*?)```", SECTION, re.DOTALL)


@dataclass(frozen=True)
class Site:
    """A node set up as the page says, and a folder with a study and the tokens."""

    node: RunningNode
    ledger: Ledger
    folder: Path

    def text(self, block: str) -> str:
        """A block of the page for this node."""
        address = f"http://127.0.0.1:{self.node.http_port}"
        return block.replace("https://cmb.hospital.example", address).replace("STUDY_UID", PATIENT.study_uid)

    def run(self, block: str) -> str:
        """Run the commands of a block; what they print."""
        return shell(self.text(block), self.folder)


def shell(commands: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-ec", commands], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("dicomweb")
    swi, phase = small_head()
    write(
        siemens_swi(swi, phase, swi, patient=PATIENT, matrix=affine(spacing=SPACING)),
        folder / "study",
        names="{n:04d}.dcm",
    )
    (folder / "secrets").mkdir()
    shell(blocks("sh")[0], folder)
    (folder / "node.toml").write_text(blocks("toml")[0])
    settings = {"CONFIG": str(folder / "node.toml"), "SECRETS_DIR": str(folder / "secrets")}
    with run_node(folder / "node", {}, **settings) as node:
        ledger = Ledger(f"sqlite:///{node.data / 'ledger.sqlite3'}")
        try:
            yield Site(node, ledger, folder)
        finally:
            ledger.close()


def test_the_commands_of_the_page_send_and_fetch(site: Site) -> None:
    _, send, fetch = blocks("sh")
    stored = json.loads(site.run(send))
    assert len(stored["00081199"]["Value"]) == len(list((site.folder / "study").iterdir()))
    assert "00081198" not in stored
    log = site.node.data / "node.out"
    (job,) = wait_until(
        lambda: [one for one in site.node.jobs() if one["state"] in ("delivered", "failed")],
        120,
        site.node.process,
        log,
    )
    assert (job["state"], job["counts"]["total"]) == ("delivered", len(BLEEDS))
    assert {one.calling_ae for one in site.ledger.series(PATIENT.study_uid)} == {"MR1"}
    (found,) = json.loads(site.run(fetch))
    assert found["0020000D"]["Value"] == [PATIENT.study_uid]
    assert found["00080061"]["Value"] == ["OT", "SEG", "SR"]
    message = (site.folder / "results").read_bytes()
    assert message.count(b"\r\nContent-Type: application/dicom\r\n\r\n") == 3
    said = log.read_text()
    assert "calling_ae=MR1" in said
    assert all(token.read_text().strip() not in said for token in (site.folder / "secrets").iterdir())


def test_the_script_of_the_page_sends_and_fetches(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the test above the study is there already, so that it changes nothing."""
    monkeypatch.chdir(site.folder)
    names: dict[str, Any] = {}
    exec(site.text(blocks("python")[0]), names)
    results: list[Dataset] = names["results"]
    assert sorted(ds.Modality for ds in results) == ["OT", "SEG", "SR"]
    assert {ds.StudyInstanceUID for ds in results} == {PATIENT.study_uid}
    assert len(site.node.jobs()) == 1


def test_a_pacs_sends_by_stow_and_fetches_the_results(site: Site, tmp_path: Path) -> None:
    """Orthanc with its DICOMweb plugin, as the client."""
    images = classic(np.ones((3, 16, 16), dtype=np.uint16), patient=Patient(seed="another", patient_id="P-7"))
    with run_orthanc(tmp_path / "pacs") as orthanc:
        for name in ("mr1", "viewer"):
            token = (site.folder / "secrets" / f"dicomweb__clients__{name}__token").read_text().strip()
            server = {
                "Url": f"http://127.0.0.1:{site.node.http_port}/dicomweb/",
                "HttpHeaders": {"Authorization": f"Bearer {token}"},
            }
            orthanc.http.put(f"/dicom-web/servers/{name}", json=server).raise_for_status()
        orthanc.upload(*write(images, tmp_path / "images"))
        (study,) = orthanc.get("/studies")
        sent = orthanc.http.post("/dicom-web/servers/mr1/stow", json={"Resources": [study], "Synchronous": True})
        assert sent.status_code == 200, sent.text
        assert len(site.ledger.instances(str(images[0].SeriesInstanceUID))) == 3
        refused = orthanc.http.post("/dicom-web/servers/viewer/stow", json={"Resources": [study], "Synchronous": True})
        assert refused.status_code != 200
        wanted = {"Resources": [{"Study": PATIENT.study_uid}], "Synchronous": True}
        fetched = orthanc.http.post("/dicom-web/servers/viewer/retrieve", json=wanted)
        assert fetched.status_code == 200, fetched.text
        held = [dcmread(io.BytesIO(file), stop_before_pixels=True) for file in orthanc.instances(PATIENT.study_uid)]
        assert sorted(ds.Modality for ds in held) == ["OT", "SEG", "SR"]


def test_images_accepted_before_the_process_was_killed_are_stored_and_the_rest_can_be_sent_again(
    site: Site, tmp_path: Path
) -> None:
    made = classic(np.ones((24, 16, 16), dtype=np.uint16), patient=Patient(seed="killed", patient_id="P-8"))
    images = [dcmread(path) for path in write(made, tmp_path)]
    series = str(images[0].SeriesInstanceUID)
    token = (site.folder / "secrets" / "dicomweb__clients__mr1__token").read_text().strip()
    client = DICOMwebClient(
        f"http://127.0.0.1:{site.node.http_port}/dicomweb", headers={"Authorization": f"Bearer {token}"}
    )
    client.set_http_retry_params(retry=False)
    killed = site.node.part("worklist")
    accepted: list[str] = []

    def send_one_by_one() -> None:
        for image in images:
            client.store_instances([image])
            accepted.append(str(image.SOPInstanceUID))
            if len(accepted) == 5:
                threading.Timer(0.05, killed.kill).start()

    with pytest.raises(requests.ConnectionError):
        send_one_by_one()
    assert 5 <= len(accepted) < len(images)
    stored = {one.sop_instance_uid: one for one in site.ledger.instances(series)}
    assert set(accepted) <= stored.keys()
    assert all((site.node.data / stored[uid].path).is_file() for uid in accepted)
    wait_until(lambda: _answers(site), 60, site.node.process)
    client.store_instances(images)
    assert {str(image.SOPInstanceUID) for image in images} == {
        one.sop_instance_uid for one in site.ledger.instances(series)
    }


def _answers(site: Site) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{site.node.http_port}/healthz", timeout=5).status_code > 0
    except httpx.HTTPError:
        return False
