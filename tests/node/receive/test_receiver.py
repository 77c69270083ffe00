"""The storage SCP: what is answered, what is stored, what is entered in the ledger."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless
from sqlalchemy.exc import OperationalError

from node.ledger import Ledger, NewInstance, StorageOutcome
from node.run.retention import remove_old
from node.settings import ConfigError
from tests.dicom_factory import encode
from tests.node.receiving import (
    Node,
    Peer,
    associate_request,
    associated,
    echoes,
    eventually,
    running_node,
    send,
    slices,
    statuses,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path) as node:
        yield node


def test_an_echo_is_answered(shared: Node) -> None:
    assert echoes(shared.port)


def test_the_loop_that_accepts_connections_says_that_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMBNODE_ALIVE_FILE", str(tmp_path / "alive"))
    with running_node(tmp_path):
        assert eventually((tmp_path / "alive").exists)
        (tmp_path / "alive").unlink()
        assert eventually((tmp_path / "alive").exists)


def test_what_was_sent_is_on_disk_and_in_the_ledger(node: Node) -> None:
    images = slices(3, description="SWI_Images")
    assert statuses(send(node.port, *images)) == [0, 0, 0]
    kept = {dcmread(path).SOPInstanceUID: dcmread(path) for path in node.files()}
    for image in images:
        assert kept[image.SOPInstanceUID].PixelData == image.PixelData
        assert kept[image.SOPInstanceUID].file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
    (series,) = node.ledger.series_receiving()
    assert (series.series_instance_uid, series.modality) == (images[0].SeriesInstanceUID, "MR")
    assert sorted(position for _, position, _ in series.places) == [5.0, 7.0, 9.0]
    assert node.files("incoming") == []


def test_the_ledger_knows_the_study_and_who_sent_it(node: Node) -> None:
    (image,) = slices(1)
    send(node.port, image, calling="SCANNER7")
    study = node.ledger.study(image.StudyInstanceUID)
    assert study is not None
    assert (study.patient_name, study.accession_number, study.study_date) == ("Test^Brain", "A1", "20260102")
    (series,) = node.ledger.series(image.StudyInstanceUID)
    assert (series.description, series.series_number, series.calling_ae) == ("SWI_Images", 1, "SCANNER7")


def test_the_same_image_again_is_success_and_stored_once(node: Node) -> None:
    images = slices(2)
    assert statuses(send(node.port, *images)) == [0, 0]
    assert statuses(send(node.port, *images)) == [0, 0]
    assert len(node.files()) == node.instances() == 2
    assert node.files("quarantine") == []


def test_the_same_image_in_another_encoding_is_success_and_stored_once(node: Node) -> None:
    images = slices(2)
    assert statuses(send(node.port, *images)) == [0, 0]
    before = [path.read_bytes() for path in node.files()]
    assert statuses(send(node.port, *(encode(image, "rle") for image in images), syntax=RLELossless)) == [0, 0]
    assert [path.read_bytes() for path in node.files()] == before
    assert node.instances() == 2
    assert node.files("quarantine") == []


def test_other_content_under_the_same_uid_is_kept_aside_and_shown(node: Node) -> None:
    (image,) = slices(1)
    send(node.port, image)
    before = node.files()[0].read_bytes()
    image.PixelData = bytes(len(image.PixelData))
    (answer,) = send(node.port, image)
    assert answer.Status == 0xB000
    assert "other content" in answer.ErrorComment
    assert [path.read_bytes() for path in node.files()] == [before]
    (aside,) = node.ledger.quarantined()
    assert aside.sop_instance_uid == image.SOPInstanceUID
    assert dcmread(node.archive.path(aside.path)).PixelData == image.PixelData
    assert node.ledger.counts().quarantined == 1


def test_the_same_conflicting_image_of_many_senders_is_a_warning_for_each(node: Node) -> None:
    first, other = slices(1)[0], slices(1)[0]
    other.PatientName = "Other^Content"
    assert statuses(send(node.port, first)) == [0]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: statuses(send(node.port, *[other] * 20)), range(8)))
    assert {status for each in answers for status in each} == {0xB000}
    assert len(node.files()) == 1


def test_an_image_that_belongs_to_two_studies_is_kept_aside(node: Node) -> None:
    first, second = slices(2)
    second.StudyInstanceUID = "1.2.3.4"
    assert statuses(send(node.port, first, second)) == [0, 0xB000]
    assert len(node.files()) == 1


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_an_image_without_its_uids_is_not_understood_and_kept_aside(node: Node, keyword: str) -> None:
    (image,) = slices(1)
    delattr(image, keyword)
    (answer,) = send(node.port, image)
    assert answer.Status == 0xC000
    assert answer.ErrorComment == f"{keyword} is missing"
    (aside,) = node.ledger.quarantined()
    assert (aside.why, aside.calling_ae, aside.peer) == (f"{keyword} is missing", "MODALITY", "127.0.0.1")
    assert node.files() == []


def test_under_the_disk_guard_nothing_is_stored_and_the_sender_may_try_again(tmp_path: Path) -> None:
    with running_node(tmp_path, free_disk_mb=10**9) as node:
        assert statuses(send(node.port, *slices(2))) == [0xA700, 0xA700]
        assert node.files() == node.files("incoming") == node.files("quarantine") == []
        assert node.instances() == 0
        assert echoes(node.port)


def test_without_a_free_file_descriptor_an_image_is_refused_for_now(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    image = slices(1)[0]
    with monkeypatch.context() as patch, associated(node.port) as association:
        patch.setattr(tempfile, "mkstemp", fail)
        assert association.send_c_store(image).Status == 0xA700
        patch.undo()
        assert association.send_c_store(image).Status == 0


def test_a_peer_that_cannot_be_accepted_for_want_of_a_file_descriptor_waits(node: Node) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    spare = []
    try:
        with suppress(OSError):  # until none is left
            while True:
                spare.append(os.dup(0))
        os.close(spare.pop())
        with Peer(node.port) as peer:  # takes the last descriptor
            peer.send(associate_request())
            assert not eventually(lambda: node.receiver.connections > 0, seconds=0.7)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            answer = peer.receive()
            assert answer is not None
            assert answer[0] == 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in spare:
            os.close(descriptor)


def test_without_the_ledger_nothing_is_called_stored(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    images = slices(1)

    def away(*_: object) -> None:
        raise OperationalError("insert", {}, Exception("the database is away"))

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record_instance", away)
        (answer,) = send(node.port, *images)
        assert answer.Status == 0xA700
        assert "Test" not in answer.ErrorComment
    assert statuses(send(node.port, *images)) == [0]
    assert len(node.files()) == node.instances() == 1


def test_a_fault_of_the_node_is_not_blamed_on_the_object(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ZeroDivisionError("Test^Brain")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record_instance", fault)
        (answer,) = send(node.port, *slices(1))
    assert (answer.Status, answer.ErrorComment) == (0x0110, "the node could not process the object")
    assert node.files("quarantine") == []


def test_a_port_in_use_is_named(shared: Node, tmp_path: Path) -> None:
    taken = running_node(tmp_path, port=shared.port)
    with pytest.raises(ConfigError, match=rf"port {shared.port}: cannot listen .*receiver\.port"):
        taken.__enter__()


def test_success_is_answered_only_after_file_and_row_are_safe(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def noting(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            result = real(*arguments, **options)
            steps.append(name)
            return result

        return call

    monkeypatch.setattr(node.archive, "store", noting("file", node.archive.store))
    monkeypatch.setattr(node.ledger, "record_instance", noting("row", node.ledger.record_instance))
    with associated(node.port) as association:
        assert association.send_c_store(slices(1)[0]).Status == 0
        steps.append("answer")
    assert steps == ["file", "row", "answer"]


@pytest.mark.parametrize(("originator", "requested"), [("CMBNODE", True), ("WORKSTATION", False), (None, None)])
def test_who_asked_for_an_image_is_noted_if_the_sender_says_so(
    node: Node, monkeypatch: pytest.MonkeyPatch, originator: str | None, requested: bool | None
) -> None:
    records: list[NewInstance] = []
    record_instance = node.ledger.record_instance

    def note(record: NewInstance) -> StorageOutcome:
        records.append(record)
        return record_instance(record)

    monkeypatch.setattr(node.ledger, "record_instance", note)
    with associated(node.port) as association:
        number = None if originator is None else 1
        answer = association.send_c_store(slices(1)[0], originator_aet=originator, originator_id=number)
    assert answer.Status == 0
    assert [record.requested for record in records] == [requested]


def test_many_associations_store_at_the_same_time(node: Node) -> None:
    answers: list[int] = []

    def sender(number: int) -> None:
        answers.extend(statuses(send(node.port, *slices(5, series_number=number))))

    threads = [threading.Thread(target=sender, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0] * 30
    assert len(node.files()) == node.instances() == 30


def test_retention_removes_no_image_that_is_being_received(tmp_path: Path) -> None:
    image = slices(1)[0]
    stored, go_on = threading.Event(), threading.Event()
    with running_node(tmp_path) as node, pytest.MonkeyPatch.context() as patch:
        assert statuses(send(node.port, image)) == [0]
        _finish(node, image)
        record = node.ledger.record_instance

        def slow(instance: NewInstance) -> StorageOutcome:
            stored.set()
            assert go_on.wait(10)
            return record(instance)

        patch.setattr(node.ledger, "record_instance", slow)
        answers: list[Dataset] = []
        sender = threading.Thread(target=lambda: answers.extend(send(node.port, image)))
        sender.start()
        assert stored.wait(10)
        retention = threading.Thread(target=remove_old, args=(node.ledger, node.archive, 0))
        retention.start()
        retention.join(0.3)
        go_on.set()
        sender.join()
        retention.join()
        assert statuses(answers) == [0]
        kept = [one.path for one in node.ledger.instances(image.SeriesInstanceUID) if one.removed_at is None]
        assert kept == [str(path.relative_to(node.archive.root)) for path in node.files()]


def _finish(node: Node, image: Dataset) -> None:
    """Settle the series of an image and route its study: nothing is analysed."""
    assert eventually(lambda: node.ledger.series_receiving()[0].open_associations == 0)
    node.ledger.settle_series(image.SeriesInstanceUID, "")
    study = node.ledger.study(image.StudyInstanceUID)
    node.ledger.mark_routed(study.study_instance_uid, study.revision, why="no SWI")


def test_a_silent_association_is_dropped(tmp_path: Path) -> None:
    with running_node(tmp_path, idle_timeout_s=0.5) as node, Peer(node.port) as peer:
        assert peer.associate() == 2
        started = time.monotonic()
        assert peer.is_cut_off()
        assert time.monotonic() - started < 8


def test_a_stopping_node_lets_an_association_finish(tmp_path: Path) -> None:
    with running_node(tmp_path) as node:
        port, first_and_second = node.port, slices(2)
        with associated(port) as association:
            assert association.send_c_store(first_and_second[0]).Status == 0
            stopping = threading.Thread(target=node.receiver.stop, args=(10.0,))
            stopping.start()
            assert eventually(lambda: not _connects(port))
            assert association.send_c_store(first_and_second[1]).Status == 0
        stopping.join(timeout=8)
        assert not stopping.is_alive()
        assert eventually(lambda: node.ledger.series_receiving()[0].last_ended_released)


def test_a_stopping_node_aborts_who_does_not_finish(tmp_path: Path) -> None:
    with running_node(tmp_path) as node, Peer(node.port) as peer:
        assert peer.associate() == 2
        node.receiver.stop(0.1)
        answer = peer.receive()
        assert answer is not None
        assert answer[0] == 7


def test_a_stopping_node_does_not_wait_for_a_stranger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_node(tmp_path) as node, Peer(node.port) as peer:
        assert eventually(lambda: node.receiver.connections == 1)
        node.receiver.stop(0)
        assert peer.receive() is None
    assert "dropped" not in capsys.readouterr().out


def _connects(port: int) -> bool:
    try:
        Peer(port).socket.close()
    except OSError:
        return False
    return True


def test_the_receiver_needs_neither_torch_nor_simpleitk() -> None:
    code = (
        "import sys, node.receive.receiver; print(sorted({'torch', 'SimpleITK', 'scipy', 'celery'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
