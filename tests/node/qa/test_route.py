"""The phantom of site QA takes the route of a study, without destinations, priors or a line in the worklist."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.archive import Archive
from node.deliver.scu import Unreachable, read_outgoing, send
from node.ledger import Ledger, Priority, WorklistFilters
from node.ledger.records import QA_PATIENT_ID
from node.qa.run import own_receiver
from node.receive.receiver import Receiver
from node.route.routing import route_study
from node.route.rules import load_table
from node.route.settling import settle
from node.settings import ConfigError, load_settings
from node.web.list_query import ListQuery
from node.web.worklist_view import worklist_page
from tests.certificates import Authority
from tests.classical import classical_routing
from tests.dicom_factory import Patient, classic, siemens_swi, write
from tests.ports import free_port

PACS = {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}}
RECEIVER = {"port": 11112}


@pytest.mark.parametrize(
    ("given", "peer", "calling"),
    [
        ({}, "CMBNODE@127.0.0.1:11112", "CMBNODE"),
        ({"receiver": {**RECEIVER, "allow_anyone": True}}, "CMBNODE@127.0.0.1:11112", "CMBNODE"),
        ({"receiver": {**RECEIVER, "calling_ae_titles": ["MR1", "MR2"]}}, "CMBNODE@127.0.0.1:11112", "MR1"),
        ({"qa": {"host": "receiver", "calling_ae_title": "QA"}}, "CMBNODE@receiver:11112", "QA"),
    ],
)
def test_the_phantom_is_sent_to_where_the_node_listens(
    given: dict[str, Any], peer: str, calling: str, tmp_path: Path
) -> None:
    to, caller = own_receiver(load_settings(data_dir=tmp_path, **given))
    assert (str(to), caller, to.tls) == (peer, calling, None)


def test_a_destination_of_qa_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"qa\.destinations: there is no destination 'research'"):
        load_settings(data_dir=tmp_path, destinations=PACS, qa={"destinations": ["research"]})


def test_a_receiver_with_tls_only_takes_the_phantom_with_its_own_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    tls = {"port": free_port(), "only": True, "ca_file": authority.ca_file, **authority.issue("node").settings}
    settings = load_settings(data_dir=tmp_path / "data", receiver={"tls": tls}, archive={"free_disk_mb": 0})
    (path,) = write(classic(np.full((1, 8, 8), 300, dtype=np.uint16)), tmp_path)
    outgoing = read_outgoing(path)
    assert outgoing is not None
    ledger = Ledger(settings.ledger_url)
    ledger.upgrade()
    with Receiver(settings, ledger, Archive(settings.data_dir)):
        peer, calling = own_receiver(settings)
        assert [answer.accepted for answer in send([outgoing], peer, calling)] == [True]
        with pytest.raises(Unreachable):
            send([outgoing], type(peer)(peer.ae_title, peer.host, peer.port), calling)
    ledger.close()


def routed(tmp_path: Path, **qa: Any) -> Ledger:
    """Receive and route two studies, of a patient and of the phantom, with a PACS as destination."""
    given = {"priors": {"dicom": PACS["pacs"]}, "destinations": PACS, "qa": qa, "archive": {"free_disk_mb": 0}}
    settings = load_settings(
        data_dir=tmp_path / "data",
        routing_file=classical_routing(tmp_path),
        receiver={"port": free_port()},
        settling={"quiet_s": 0},
        **given,
    )
    ledger, archive = Ledger(settings.ledger_url), Archive(settings.data_dir)
    ledger.upgrade()
    swi = np.full((9, 8, 8), 300, dtype=np.uint16)
    with Receiver(settings, ledger, archive):
        peer, calling = own_receiver(settings)
        for patient in (Patient(seed="a", patient_id="P-1"), Patient(seed="b", patient_id=QA_PATIENT_ID)):
            paths = write(siemens_swi(swi, np.zeros(swi.shape), swi, patient=patient), tmp_path / patient.seed)
            files = [one for path in paths if (one := read_outgoing(path)) is not None]
            assert all(answer.accepted for answer in send(files, peer, calling))
    settle(ledger, datetime.now(UTC) + timedelta(hours=1), settings.settling)
    for row in ledger.worklist():
        route_study(ledger, archive, row.study.study_instance_uid, load_table(settings), settings)
    return ledger


@pytest.mark.slow
@pytest.mark.parametrize(("qa", "sent_to"), [({}, ()), ({"destinations": ["pacs"]}, ("pacs",))])
def test_a_phantom_is_analysed_last_and_its_results_stay_in_the_node_unless_a_destination_is_named(
    qa: dict[str, Any], sent_to: tuple[str, ...], tmp_path: Path
) -> None:
    ledger = routed(tmp_path, **qa)
    (phantom,) = ledger.worklist(WorklistFilters(phantoms=True))
    assert phantom.job is not None
    assert (phantom.job.priority, phantom.job.destinations) == (Priority.LOW, sent_to)
    assert ledger.prior_request(phantom.study.study_instance_uid) is None  # the PACS is not asked about it
    (patient,) = ledger.worklist(WorklistFilters(phantoms=False))
    assert ledger.prior_request(patient.study.study_instance_uid) is not None

    ordinary = worklist_page(ledger)
    assert [line.patient_id for line in ordinary.lines] == ["P-1"]
    assert sum(ledger.count_states().values()) == 1
    searched = worklist_page(ledger, ListQuery(q="cmbnode-qa"))
    assert [(line.patient_id, line.phantom) for line in searched.lines] == [(QA_PATIENT_ID, True)]
    ledger.close()
