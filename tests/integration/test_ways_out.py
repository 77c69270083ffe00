"""One study, one running node, four ways out: C-STORE, STOW-RS, HL7 and FHIR say the same, each once."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import hl7
import httpx
import pytest
from pydicom import Dataset, dcmread

from node.analyse.correction import open_correction
from node.archive import Archive
from node.deliver import SendResult, open_destination
from node.deliver.scu import Peer, read_outgoing, send
from node.ledger import Correction, Delivery, DeliveryState, JobState, Ledger, LesionVerdict
from node.settings.destinations import StowDestination
from tests.node.deliver.test_fhir import Server
from tests.node.ris import Ris, ris
from tests.node.web_service import web
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.running_node import AE_TITLE, RunningNode, run_node, wait_until

from .killable_node import make_study
from .test_orthanc import KINDS

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Site:
    """A node and everything it sends to, one study later."""

    node: RunningNode
    orthanc: Orthanc
    far_ris: Ris
    ehr: Server
    study: str
    waiting: Delivery  # the message for the RIS, while that was down and all others had what is theirs
    deliveries: list[Delivery]
    lesions: list[dict[str, Any]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The RIS comes up only after everybody else has what is theirs."""
    folder = tmp_path_factory.mktemp("ways")
    ehr, ris_port = Server(), free_port()
    study, images = make_study(folder / "study", "ways out")
    with run_orthanc(folder / "pacs") as orthanc, web(ehr) as service:
        destinations = {
            "vna": {"kind": "stow", "url": dicom_web(orthanc)},
            "ehr": {"kind": "fhir", "url": service.url},
            "ris": {"kind": "hl7", "host": "127.0.0.1", "port": ris_port, "timeout_s": 5},
        }
        quick = {"QUEUE__RETRY_LONGEST_S": "2", "DESTINATIONS": json.dumps(destinations)}
        with run_node(folder / "node", {}, **quick) as node, closing(ledger_of(node)) as ledger:
            log = folder / "node" / "node.out"
            orthanc.upload(*images)
            sent = send(
                [o for path in images if (o := read_outgoing(path))], Peer(AE_TITLE, "127.0.0.1", node.dicom_port)
            )
            assert all(answer.accepted for answer in sent)
            waiting = wait_until(lambda: _all_but_the_ris(ledger), 120, node.process, log)
            with ris(port=ris_port) as far_ris:
                wait_until(lambda: ledger.job(1).state == JobState.DELIVERED, 60, node.process, log)
                document = ledger.findings(1) or {}
                yield Site(node, orthanc, far_ris, ehr, study, waiting, ledger.deliveries(1), document["lesions"])


def dicom_web(orthanc: Orthanc) -> str:
    return f"{str(orthanc.http.base_url).rstrip('/')}/dicom-web"


def ledger_of(node: RunningNode) -> Ledger:
    return Ledger(f"sqlite:///{node.data / 'ledger.sqlite3'}")


def _all_but_the_ris(ledger: Ledger) -> Delivery | None:
    """The delivery to the RIS, once it was tried and everything else was accepted."""
    deliveries = ledger.deliveries(1)
    others = {d.state for d in deliveries if d.destination != "ris"}
    tried = [d for d in deliveries if d.destination == "ris" and d.state == DeliveryState.WAITING and d.attempts]
    return tried[0] if tried and others == {DeliveryState.ACCEPTED} else None


def results(site: Site) -> dict[str, Dataset]:
    """The objects that the node has added to the study, by kind."""
    datasets = [dcmread(io.BytesIO(file)) for file in site.orthanc.instances(site.study)]
    assert site.orthanc.get("/statistics")["CountStudies"] == 1
    found = [ds for ds in datasets if ds.SOPClassUID in KINDS]
    assert Counter(KINDS[ds.SOPClassUID] for ds in found) == {"SEG": 1, "SR": 1, "SC": 1}
    return {KINDS[ds.SOPClassUID]: ds for ds in found}


def values(message: hl7.Message, code: str) -> list[str]:
    return [str(segment(5)) for segment in message.segments("OBX") if str(segment(3)(1)(1)) == code]


def test_each_destination_was_sent_what_it_takes_and_took_it(site: Site) -> None:
    told = Counter((d.destination, d.state.value) for d in site.deliveries)
    objects = {d.result.kind for d in site.deliveries if d.destination == "vna"}
    assert {"sr", "seg", "capture"} <= objects
    assert told == {("vna", "accepted"): len(objects), ("ehr", "accepted"): 1, ("ris", "accepted"): 1}
    assert {d.result.kind for d in site.deliveries if d.destination != "vna"} == {"report"}


def test_while_the_ris_was_down_its_message_waited_and_then_arrived_once(site: Site) -> None:
    assert "cannot be reached" in site.waiting.answer
    assert [d.answer for d in site.deliveries if d.destination == "ris"] == ["AA (accepted)"]
    assert len(site.far_ris.messages) == 1


def test_report_message_and_resources_say_the_same(site: Site) -> None:
    assert site.lesions, "the study has bleeds"
    (message,) = site.far_ris.messages
    assert values(message, "TOTAL") == [str(len(site.lesions))]
    assert len(values(message, "LESION")) == len(site.lesions)
    dicom = results(site)
    assert values(message, "SR_UID") == [dicom["SR"].SOPInstanceUID]
    assert len(dicom["SEG"].SegmentSequence) == len(site.lesions)
    totals = [r["valueInteger"] for r in site.ehr.resources.values() if "valueInteger" in r]
    assert totals == [len(site.lesions)]


def test_the_message_is_about_this_patient_and_preliminary(site: Site) -> None:
    (message,) = site.far_ris.messages
    assert message.extract_field("PID", 1, 3, 1, 1) == "P-ways out"
    assert message.extract_field("OBR", 1, 25) == "P"
    assert values(message, "110180") == [site.study]


def test_a_result_that_is_stored_again_is_there_once(site: Site) -> None:
    paths = sorted((site.node.data / "outbox" / "1").glob("*.dcm"))
    answers: list[SendResult] = []
    vna = StowDestination(kind="stow", url=dicom_web(site.orthanc))
    open_destination(vna, AE_TITLE).send(paths, answers.append)
    assert [answer.accepted for answer in answers] == [True] * len(paths)
    assert results(site).keys() == {"SEG", "SR", "SC"}
    assert open_destination(vna, AE_TITLE).check() == "answers QIDO-RS"


def test_the_worklist_and_the_metrics_know_every_destination(site: Site) -> None:
    base = f"http://127.0.0.1:{site.node.http_port}"
    metrics = httpx.get(f"{base}/metrics", trust_env=False, timeout=30).text
    for name in ("vna", "ehr", "ris"):
        assert f'cmbnode_deliveries_waiting{{destination="{name}"}} 0.0' in metrics
    page = httpx.get(f"{base}/studies/{site.study}", trust_env=False, timeout=30).text
    assert "Findings (RIS)" in page
    assert b"mllp://127.0.0.1" in (site.node.data / "node.out").read_bytes()


def test_a_verified_result_is_final_and_takes_the_place_of_the_first(site: Site) -> None:
    first, *others = [str(lesion["tracking_uid"]) for lesion in site.lesions]
    verdicts = (LesionVerdict(first, accepted=False), *(LesionVerdict(uid, accepted=True) for uid in others))
    correction = Correction("Reader^Rita", "Hospital", verdicts, added=(), comment="")
    with closing(ledger_of(site.node)) as ledger:
        job = open_correction(ledger, Archive(site.node.data), 1, correction, "test")
        wait_until(lambda: ledger.job(job.id).state == JobState.DELIVERED, 120, site.node.process)
    machine, verified = site.far_ris.messages
    assert (machine.extract_field("OBR", 1, 25), verified.extract_field("OBR", 1, 25)) == ("P", "F")
    assert machine.extract_field("OBR", 1, 3) == verified.extract_field("OBR", 1, 3)
    assert values(verified, "TOTAL") == [str(len(others))]
    assert "Verified by Rita Reader, Hospital" in values(verified, "VERIFIED")[0]
    assert [r["status"] for r in site.ehr.resources.values() if r["resourceType"] == "DiagnosticReport"] == ["final"]
