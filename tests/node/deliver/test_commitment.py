"""Storage commitment as SCU, with pynetdicom as the PACS: the report comes on the same association, or on a new one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]  # made when imported
from structlog.testing import capture_logs

from node.commitment import STORAGE_COMMITMENT_INSTANCE, CommitmentReport, decode_request, encode_report
from node.deliver import open_destination
from node.deliver.commitment import open_commitment
from node.deliver.delivery import DeliveryRunner
from node.ledger import Job, Ledger
from node.settings import DicomDestination
from tests.node.jobs import QUICK, finish, open_job
from tests.node.receiving import Node, running_node
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


class CommittingPacs:
    """A storage and storage commitment SCP.

    Parameters
    ----------
    report_to : int, optional
        The port to report to, on an association of its own; without it on that of the request.
    """

    def __init__(
        self, report_to: int | None = None, keeps: int = 100, status: int = 0x0000, offers: bool = True
    ) -> None:
        self.report_to, self.keeps, self.status = report_to, keeps, status
        self.requests: list[Dataset] = []
        self.answers: list[Any] = []
        self.unanswered: Any = None
        self.entity = AE(ae_title="PACS")
        self.entity.add_supported_context(SecondaryCaptureImageStorage)
        if offers:
            self.entity.add_supported_context(StorageCommitmentPushModel)
        handlers: list[Any] = [(evt.EVT_C_STORE, lambda _event: 0x0000), (evt.EVT_N_ACTION, self._action)]
        handlers += [(evt.EVT_PDU_SENT, self._sent)]
        self.server = self.entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)

    @property
    def settings(self) -> DicomDestination:
        port = self.server.server_address[1]
        return DicomDestination(ae_title="PACS", host="127.0.0.1", port=port, timeout_s=5, commit_within_s=60)

    def _action(self, event: Any) -> tuple[int, None]:
        self.requests.append(event.action_information)
        self.unanswered = event.assoc
        return self.status, None

    def _sent(self, event: Any) -> None:
        """Report when the answer to the request is on its way (EVT_DIMSE_SENT comes before that)."""
        if event.assoc is self.unanswered and type(event.pdu).__name__ == "P_DATA_TF" and self.status == 0:
            self.unanswered = None
            where = event.assoc if self.report_to is None else None
            threading.Thread(target=self.report, args=(self.requests[-1], where)).start()

    def report(self, action: Dataset, association: Any = None) -> None:
        request = decode_request(action)
        kept, lost = request.references[: self.keeps], request.references[self.keeps :]
        report = CommitmentReport(request.transaction_uid, kept, dict.fromkeys(lost, 0x0112))
        if association is not None:
            self._send(association, report)
            return
        caller = AE(ae_title="PACS")
        caller.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        own = caller.associate("127.0.0.1", self.report_to or 0, ae_title="CMBNODE", ext_neg=[role])
        assert own.is_established
        assert own.accepted_contexts[0].as_scp
        self._send(own, report)
        own.release()

    def _send(self, association: Any, report: CommitmentReport) -> None:
        where = StorageCommitmentPushModel, STORAGE_COMMITMENT_INSTANCE
        status, _ = association.send_n_event_report(encode_report(report), report.event_type, *where)
        self.answers.append(status.get("Status"))


@contextmanager
def committing_pacs(**options: Any) -> Iterator[CommittingPacs]:
    pacs = CommittingPacs(**options)
    try:
        yield pacs
    finally:
        threading.Thread(target=pacs.server.shutdown).start()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path) as node:
        yield node


def deliver(node: Node, settings: DicomDestination) -> Job:
    """Deliver the results of a job, and request commitment."""
    job = finish(node.ledger, node.archive, open_job(node.ledger, node.archive))
    runner(node, settings).deliver()
    return job


def runner(node: Node, settings: DicomDestination) -> DeliveryRunner:
    destination, commitment = open_destination(settings, "CMBNODE"), open_commitment(settings, "CMBNODE")
    return DeliveryRunner(node.ledger, node.archive, QUICK, "pacs", destination, "deliver@test", commitment)


def states(ledger: Ledger, job: Job) -> list[str]:
    return sorted(delivery.state.value for delivery in ledger.deliveries(job.id))


def test_a_report_on_the_same_association_is_recorded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.deliver.commitment.SAME_ASSOCIATION_S", 30.0)  # a busy machine may take longer than it
    with committing_pacs() as pacs:
        job = deliver(node, pacs.settings)
        wait_for(lambda: pacs.answers, 10)
    assert pacs.answers == [0x0000]
    assert states(node.ledger, job) == ["committed"] * 3
    (request,) = pacs.requests
    named = {(str(i.ReferencedSOPClassUID), str(i.ReferencedSOPInstanceUID)) for i in request.ReferencedSOPSequence}
    assert named == {(r.sop_class_uid, r.sop_instance_uid) for r in node.ledger.results(job.id)}


def test_a_report_on_a_new_association_is_taken_by_the_receiver(node: Node) -> None:
    with committing_pacs(report_to=node.port) as pacs, capture_logs() as log:
        job = deliver(node, pacs.settings)
        wait_for(lambda: pacs.answers, 10)
    assert pacs.answers == [0x0000]
    assert states(node.ledger, job) == ["committed"] * 3
    (line,) = [line for line in log if line["event"] == "commitment reported"]
    assert (line["committed"], line["not_committed"], line["known"], line["calling_ae"]) == (3, 0, True, "PACS")


def test_what_the_pacs_lost_is_sent_again(node: Node) -> None:
    with committing_pacs(report_to=node.port, keeps=2) as pacs:
        job = deliver(node, pacs.settings)
        wait_for(lambda: pacs.answers, 10)
        assert states(node.ledger, job) == ["committed", "committed", "waiting"]
        (waiting,) = [d for d in node.ledger.deliveries(job.id) if d.state == "waiting"]
        assert waiting.answer == "stored, but not committed: it does not have this object"
        pacs.answers.clear()
        runner(node, pacs.settings).deliver()
        wait_for(lambda: pacs.answers, 10)
    assert states(node.ledger, job) == ["committed"] * 3


def test_a_report_that_nobody_asked_for_is_refused(node: Node) -> None:
    with committing_pacs(report_to=node.port) as pacs:
        deliver(node, pacs.settings)
        wait_for(lambda: pacs.answers, 10)
        pacs.requests[0].TransactionUID = "2.25.99"
        pacs.report(pacs.requests[0])
    assert pacs.answers == [0x0000, 0x0114]


@pytest.mark.parametrize(("attribute", "value"), [("TransactionUID", ""), ("ReferencedSOPSequence", [Dataset()])])
def test_a_report_that_says_too_little_is_refused(node: Node, attribute: str, value: Any) -> None:
    caller = AE(ae_title="PACS")
    caller.add_requested_context(StorageCommitmentPushModel)
    association = caller.associate("127.0.0.1", node.port, ae_title="CMBNODE")
    report = Dataset()
    report.TransactionUID = "2.25.1"
    setattr(report, attribute, value)
    where = StorageCommitmentPushModel, STORAGE_COMMITMENT_INSTANCE
    assert association.send_n_event_report(report, 1, *where)[0].Status == 0x0115
    assert association.send_n_event_report(None, 1, *where)[0].Status == 0x0115
    assert association.send_n_event_report(report, 1, where[0], "1.2.3")[0].Status == 0x0112
    association.release()


def test_a_pacs_that_refuses_is_asked_again(node: Node) -> None:
    with committing_pacs(status=0x0213) as pacs:
        job = deliver(node, pacs.settings)
        assert states(node.ledger, job) == ["accepted"] * 3
        assert {d.answer for d in node.ledger.deliveries(job.id)} == {
            f"stored; not committed yet: {pacs.settings.address} refuses storage commitment with status 0x0213"
        }
        pacs.status = 0
        wait_for(lambda: node.ledger.due_destinations(_now(node)), 10)
        runner(node, pacs.settings).deliver()
        wait_for(lambda: pacs.answers, 10)
    assert states(node.ledger, job) == ["committed"] * 3


def _now(node: Node) -> Any:
    return node.ledger._clock()


def test_a_pacs_without_the_service_is_named(node: Node) -> None:
    with committing_pacs(offers=False) as pacs:
        job = deliver(node, pacs.settings)
        assert {d.answer for d in node.ledger.deliveries(job.id)} == {
            f"stored; not committed yet: {pacs.settings.address} does not offer Storage Commitment Push Model SOP Class"
        }


def test_another_system_may_be_the_one_that_commits(node: Node) -> None:
    with committing_pacs() as storage, committing_pacs() as commitment:
        port = commitment.server.server_address[1]
        job = deliver(node, storage.settings.model_copy(update={"commit_ae_title": "ARCHIVE", "commit_port": port}))
        wait_for(lambda: commitment.answers, 10)
        assert storage.requests == []
    assert states(node.ledger, job) == ["committed"] * 3


def test_nothing_is_requested_unless_it_is_set(node: Node) -> None:
    with committing_pacs() as pacs:
        settings = pacs.settings.model_copy(update={"commit_within_s": None})
        assert open_commitment(settings, "CMBNODE") is None
        job = deliver(node, settings)
    assert pacs.requests == []
    assert states(node.ledger, job) == ["accepted"] * 3
