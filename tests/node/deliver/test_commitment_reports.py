"""Storage commitment as SCP: what a sender of images is told, with pynetdicom as the sender."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import CTImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]  # made when imported
from structlog.testing import capture_logs

from node.archive import Archive
from node.commitment import STORAGE_COMMITMENT_INSTANCE
from node.deliver.commitment_reports import CommitmentReporter
from node.ledger import Ledger
from node.settings import Settings
from tests.node.jobs import QUICK
from tests.node.receiving import Node, running_node, send, slices

IMAGES = slices(3)


@dataclass
class Modality:
    """A sender that requests commitment, and takes reports."""

    port: int = 0
    status: int = 0x0000
    reports: list[tuple[int, Dataset]] = field(default_factory=list)

    def take(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        return self.status, None


@contextmanager
def modality() -> Iterator[Modality]:
    made, entity = Modality(), AE(ae_title="MODALITY")
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, made.take)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    made.port = server.server_address[1]
    try:
        yield made
    finally:
        threading.Thread(target=server.shutdown).start()


@pytest.fixture
def sender() -> Iterator[Modality]:
    with modality() as made:
        yield made


def reports_to(sender: Modality) -> list[dict[str, Any]]:
    return [{"ae_title": "MODALITY", "host": "127.0.0.1", "port": sender.port, "timeout_s": 5}]


@pytest.fixture
def node(tmp_path: Path, sender: Modality) -> Iterator[Node]:
    with running_node(tmp_path, commitment=reports_to(sender)) as node:
        yield node


def request(
    node: Node,
    *images: Dataset,
    transaction: str = "",
    action: int = 1,
    instance: str = STORAGE_COMMITMENT_INSTANCE,
    calling: str = "MODALITY",
) -> int:
    """Request commitment to these images; the status of the answer."""
    information = Dataset()
    information.TransactionUID = transaction or generate_uid(prefix=None)
    information.ReferencedSOPSequence = []
    for image in images:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        information.ReferencedSOPSequence.append(item)
    entity = AE(ae_title=calling)
    entity.add_requested_context(StorageCommitmentPushModel)
    association = entity.associate("127.0.0.1", node.port, ae_title="CMBNODE")
    status, _ = association.send_n_action(information, action, StorageCommitmentPushModel, instance)
    association.release()
    return int(status.Status)


def reporter(node: Node, sender: Modality) -> CommitmentReporter:
    settings = Settings(receiver={"commitment": reports_to(sender)})  # type: ignore[arg-type]
    return CommitmentReporter(node.ledger, node.archive, settings.dicom_peers, "CMBNODE", QUICK)


def committed(information: Dataset) -> set[str]:
    return {str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence", ())}


def failed(information: Dataset) -> dict[str, int]:
    return {str(i.ReferencedSOPInstanceUID): int(i.FailureReason) for i in information.get("FailedSOPSequence", ())}


def test_images_that_are_kept_are_committed(node: Node, sender: Modality) -> None:
    send(node.port, *IMAGES)
    assert request(node, *IMAGES, transaction="2.25.7") == 0x0000
    assert node.ledger.due_commitment_reports(datetime.now(UTC)) == ["MODALITY"]
    assert reporter(node, sender).report("MODALITY") == 1
    ((event_type, information),) = sender.reports
    assert (event_type, information.TransactionUID) == (1, "2.25.7")
    assert committed(information) == {image.SOPInstanceUID for image in IMAGES}
    assert "FailedSOPSequence" not in information
    assert node.ledger.due_commitment_reports(datetime.now(UTC) + timedelta(days=9)) == []
    ended = node.ledger.history("commitment", "2.25.7")
    assert [(change.to_state, change.why) for change in ended] == [
        ("requested", "by MODALITY"), ("reported", "3 committed, 0 not"),
    ]  # fmt: skip


def test_each_image_is_answered_honestly(node: Node, sender: Modality) -> None:
    kept, damaged, removed = IMAGES
    never, other_class = slices(2, series_number=2)
    send(node.port, *IMAGES, other_class)
    other_class.SOPClassUID = CTImageStorage
    paths = {row.sop_instance_uid: row.path for row in node.ledger.instances(kept.SeriesInstanceUID)}
    with node.archive.path(paths[damaged.SOPInstanceUID]).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    node.ledger.mark_damaged({removed.SOPInstanceUID: "test"}, "test")
    assert request(node, kept, damaged, removed, never, other_class) == 0
    assert reporter(node, sender).report("MODALITY") == 1
    ((event_type, information),) = sender.reports
    assert event_type == 2
    assert committed(information) == {kept.SOPInstanceUID}
    assert failed(information) == {
        damaged.SOPInstanceUID: 0x0110,
        removed.SOPInstanceUID: 0x0112,
        never.SOPInstanceUID: 0x0112,
        other_class.SOPInstanceUID: 0x0119,
    }


def test_a_sender_that_is_down_is_told_later(node: Node, sender: Modality) -> None:
    send(node.port, *IMAGES)
    request(node, *IMAGES)
    sender.status = 0x0110
    with capture_logs() as log:
        assert reporter(node, sender).report("MODALITY") == 0
    assert any("answers with status 0x0110" in line.get("why", "") for line in log)
    sender.status = 0
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while reporter(node, sender).report("MODALITY") == 0:
        assert datetime.now(UTC) < deadline
    assert [event_type for event_type, _ in sender.reports][-1] == 1


def test_a_report_is_given_up_at_last(node: Node, sender: Modality) -> None:
    request(node, *IMAGES, transaction="2.25.8")
    sender.status = 0x0110
    impatient = QUICK.model_copy(update={"retry_for_s": 0.000_001})
    peers = Settings(receiver={"commitment": reports_to(sender)}).dicom_peers  # type: ignore[arg-type]
    assert CommitmentReporter(node.ledger, node.archive, peers, "CMBNODE", impatient).report("MODALITY") == 0
    assert node.ledger.due_commitment_reports(datetime.now(UTC) + timedelta(days=9)) == []
    assert node.ledger.history("commitment", "2.25.8")[-1].to_state == "given up"


def test_who_cannot_be_reported_to_is_refused(node: Node) -> None:
    with capture_logs() as log:
        assert request(node, *IMAGES, calling="STRANGER") == 0x0124
    (line,) = [line for line in log if line["log_level"] == "warning"]
    assert line["why"] == "the node does not know where to report to STRANGER"
    assert line["do"] == "add it to receiver.commitment"


@pytest.mark.parametrize(
    ("options", "status"),
    [({"action": 2}, 0x0123), ({"instance": "1.2.3"}, 0x0112), ({"transaction": "x" * 65}, 0x0115)],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_requests_against_the_rules_are_refused(node: Node, options: dict[str, Any], status: int) -> None:
    assert request(node, *IMAGES, **options) == status
    assert request(node) == 0x0115  # names nothing


def test_a_repeated_request_is_reported_once(node: Node, sender: Modality) -> None:
    for _ in range(2):
        assert request(node, *IMAGES, transaction="2.25.9") == 0
    assert reporter(node, sender).report("MODALITY") == 1
    assert len(sender.reports) == 1


def test_a_report_that_a_killed_worker_held_is_made_again(ledger: Ledger, clock: Any, tmp_path: Path) -> None:
    assert ledger.add_commitment_request("2.25.1", [("1.2", "1.3")], "MODALITY", "10.0.0.1")
    assert len(ledger.claim_commitment_reports("MODALITY", 600, 10)) == 1
    assert ledger.due_commitment_reports(clock()) == []
    (again,) = ledger.claim_commitment_reports("MODALITY", 600, 10) if clock.forward(601) else ()
    assert (again.attempts, again.references) == (2, (("1.2", "1.3"),))
    reporter = CommitmentReporter(ledger, Archive(tmp_path), {}, "CMBNODE", QUICK)
    assert list(reporter.assess(again).failed.values()) == [0x0112]


def test_the_number_of_open_requests_is_limited(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.ledger.commitment_requests.OPEN_REQUESTS", 2)
    added = [ledger.add_commitment_request(f"2.25.{n}", [("1.2", "1.3")], "MODALITY", "") for n in range(3)]
    assert added == [True, True, False]
    assert ledger.add_commitment_request("2.25.9", [("1.2", "1.3")], "OTHER", "")


def test_who_requests_or_reports_commitment_may_call(tmp_path: Path, sender: Modality) -> None:
    with running_node(tmp_path, commitment=reports_to(sender), calling_ae_titles=("PACS",)) as node:
        assert request(node, *IMAGES) == 0x0000
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": 104, "commit_within_s": 60}
    destinations = {"a": pacs, "b": {**pacs, "commit_ae_title": "ARCHIVE"}, "c": {**pacs, "commit_within_s": None}}
    assert Settings(destinations=destinations).expected_callers == ["PACS", "ARCHIVE"]  # type: ignore[arg-type]


def test_destinations_and_the_pacs_of_priors_can_be_reported_to() -> None:
    pacs = {"ae_title": "PACS", "host": "127.0.0.1", "port": 104}
    settings = Settings(
        destinations={"pacs": pacs},
        priors={"dicom": {**pacs, "ae_title": "ARCHIVE"}},  # type: ignore[arg-type]
        receiver={"commitment": [{**pacs, "ae_title": "MR1"}]},  # type: ignore[arg-type]
    )
    assert set(settings.dicom_peers) == {"PACS", "ARCHIVE", "MR1"}
