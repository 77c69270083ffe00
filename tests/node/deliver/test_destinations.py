"""Ways out of the node, against real storage SCPs."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from node.deliver import SendResult, Unreachable, open_destination
from node.deliver.scu import Peer, associated
from node.settings import DicomDestination
from tests.waiting import wait_for

COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three small objects: two captures and a report."""
    return [
        _write(tmp_path / "a.dcm", SecondaryCaptureImageStorage),
        _write(tmp_path / "b.dcm", COMPREHENSIVE_SR),
        _write(tmp_path / "c.dcm", SecondaryCaptureImageStorage),
    ]


def _write(path: Path, sop_class: str) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientName = sop_class, generate_uid(), "A^B"
    dataset.save_as(path, enforce_file_format=True)
    return path


@contextmanager
def storage_scp(
    store: Callable[[Any], int | Dataset],
    classes: tuple[str, ...] = (SecondaryCaptureImageStorage, COMPREHENSIVE_SR),
    syntaxes: list[str] = UNCOMPRESSED,
    called: str | None = None,
) -> Iterator[int]:
    """A storage SCP on a free loopback port, whose answers `store` decides."""
    entity = AE(ae_title=called or "PACS")
    entity.require_called_aet = called is not None
    for sop_class in classes:
        entity.add_supported_context(sop_class, syntaxes)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield server.server_address[1]
    finally:
        threading.Thread(target=server.shutdown).start()  # takes half a second that nobody needs to wait for


def send(port: int, files: list[Path], timeout_s: float = 5) -> list[SendResult]:
    answers: list[SendResult] = []
    settings = DicomDestination(ae_title="PACS", host="127.0.0.1", port=port, timeout_s=timeout_s)
    open_destination(settings, "CMBNODE").send(files, answers.append)
    return answers


def test_every_object_is_answered_in_the_order_it_was_given(files: list[Path]) -> None:
    seen: list[str] = []
    with storage_scp(lambda event: seen.append(event.request.AffectedSOPInstanceUID) or 0x0000) as port:
        answers = send(port, files)
    assert [answer.path for answer in answers] == files
    assert [(a.accepted, a.status, a.answer) for a in answers] == [(True, 0, "stored")] * 3
    assert len(set(seen)) == 3


def test_a_warning_means_stored_and_keeps_its_text(files: list[Path]) -> None:
    with storage_scp(lambda _event: 0xB000) as port:
        answer = send(port, files[:1])[0]
    assert (answer.accepted, answer.status) == (True, 0xB000)
    assert "Coercion" in answer.answer
    assert "0xB000" in answer.answer


@pytest.mark.parametrize(("status", "words"), [(0xA700, "Out of"), (0xC001, "Understand"), (0x0124, "Not Authori")])
def test_a_refusal_is_not_taken_for_an_acceptance_and_says_why(files: list[Path], status: int, words: str) -> None:
    with storage_scp(lambda _event: status) as port:
        answer = send(port, files[:1])[0]
    assert not answer.accepted
    assert words in answer.answer
    assert f"0x{status:04X}" in answer.answer


def test_the_comment_of_the_far_side_is_kept(files: list[Path]) -> None:
    response = Dataset()
    response.Status, response.ErrorComment = 0xC123, "archive is read-only"
    with storage_scp(lambda _event: response) as port:
        answer = send(port, files[:1])[0]
    assert answer.answer.endswith("archive is read-only")


def test_a_duplicate_is_an_object_the_far_side_has(files: list[Path]) -> None:
    with storage_scp(lambda _event: 0x0111) as port:
        answer = send(port, files[:1])[0]
    assert answer.accepted
    assert "already" in answer.answer


def test_one_refused_kind_does_not_stop_the_others(files: list[Path]) -> None:
    with storage_scp(lambda _event: 0x0000, classes=(SecondaryCaptureImageStorage,)) as port:
        answers = send(port, files)
    assert [answer.accepted for answer in answers] == [True, False, True]
    assert "Comprehensive SR" in answers[1].answer
    assert "Explicit VR Little Endian" in answers[1].answer


def test_a_peer_that_knows_only_implicit_vr_gets_implicit_vr(files: list[Path]) -> None:
    names: list[str] = []

    def store(event: Any) -> int:
        names.append(str(event.dataset.PatientName))
        return 0x0000 if event.context.transfer_syntax == ImplicitVRLittleEndian else 0xC000

    with storage_scp(store, syntaxes=[ImplicitVRLittleEndian]) as port:
        answers = send(port, files)
    assert all(answer.accepted for answer in answers)
    assert names == ["A^B"] * 3


def test_no_shared_kind_at_all_is_said(files: list[Path]) -> None:
    with (
        storage_scp(lambda _event: 0, classes=("1.2.840.10008.5.1.4.1.1.1",)) as port,
        pytest.raises(Unreachable) as why,
    ):
        send(port, files)
    assert "accepts none of the 2 kinds" in str(why.value)


def test_a_wrong_called_title_is_named_as_the_reason(files: list[Path]) -> None:
    with storage_scp(lambda _event: 0, called="OTHER") as port, pytest.raises(Unreachable) as why:
        send(port, files)
    assert "Called AE title not recognised" in str(why.value)


def test_nobody_there_is_unreachable_and_names_the_address(files: list[Path]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused
        port = held.getsockname()[1]
        with pytest.raises(Unreachable, match=f"PACS@127.0.0.1:{port}"):
            send(port, files)


def test_a_peer_that_takes_the_connection_and_says_nothing_is_given_up(files: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable):
        send(silent.getsockname()[1], files, timeout_s=0.5)


def test_a_peer_that_falls_silent_while_storing_is_given_up(files: list[Path]) -> None:
    def hang_up(event: Any) -> int:
        event.assoc.abort()
        return 0x0000

    with storage_scp(hang_up) as port:
        answers = send(port, files)
    assert [answer.accepted for answer in answers] == [False] * 3
    assert "no answer" in answers[0].answer
    assert "lost" in answers[2].answer


def test_a_vanished_result_file_is_reported_and_the_others_go(files: list[Path]) -> None:
    files[1].unlink()
    with storage_scp(lambda _event: 0x0000) as port:
        answers = {answer.path: answer for answer in send(port, files)}
    assert [answers[path].accepted for path in files] == [True, False, True]
    assert "can no longer read this result" in answers[files[1]].answer


def test_ctrl_c_ends_a_command_whose_peer_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        peer = f"MUTE@127.0.0.1:{mute.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "node.cli", "echo", peer],
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # a job in the background inherits "ignored"
        )
        try:
            connection, _ = mute.accept()
            connection.recv(1)  # it asks for an association now
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 130
        finally:
            process.kill()
            process.wait()
            connection.close()


class _SlowToGoOn(threading.Event):
    """Whoever waits for it goes on late, as on a busy machine."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        there = super().wait(timeout)
        self.let_go.set()
        time.sleep(0.3)
        self.let_go.clear()
        return there


def test_an_answer_that_comes_while_pynetdicom_s_loop_goes_on_is_not_lost() -> None:
    entity = AE()
    entity.add_supported_context(Verification)
    scp = entity.start_server(("127.0.0.1", 0), block=False)
    try:
        peer = Peer("ANY", "127.0.0.1", scp.server_address[1])
        with associated(peer, [Verification], "CMBNODE", 3) as association:
            send_msg = association.dimse.send_msg

            def send_and_pause(*arguments: Any) -> None:
                send_msg(*arguments)
                time.sleep(0.6)  # the answer is there before the sender looks for it

            association.dimse.send_msg = send_and_pause
            association._reactor_checkpoint = slow = _SlowToGoOn()
            slow.set()
            assert slow.let_go.wait(5)
            assert association.send_c_echo().get("Status") == 0x0000
    finally:
        scp.shutdown()


class _Overtaken(threading.Event):
    """A checkpoint at which a report has just been served when the sender has asked the loop to pause."""

    def __init__(self, served: Callable[[], None]) -> None:
        super().__init__()
        self.served = served

    def clear(self) -> None:
        super().clear()
        time.sleep(0.1)  # the loop pauses
        self.served()


def test_a_report_that_comes_while_the_association_is_released_does_not_hold_it_up() -> None:
    entity = AE()
    entity.add_supported_context(StorageCommitmentPushModel)
    scp = entity.start_server(("127.0.0.1", 0), block=False)
    may_answer = threading.Event()
    serving: list[threading.Thread] = []

    def on_report(_event: Any) -> tuple[int, None]:
        serving.append(threading.current_thread())
        may_answer.wait(10)
        return 0x0000, None

    def serve() -> None:
        may_answer.set()
        serving[0].join(10)

    try:
        peer = Peer("ANY", "127.0.0.1", scp.server_address[1])
        handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
        with associated(peer, [StorageCommitmentPushModel], "CMBNODE", 3, handlers=handlers) as association:
            report = Dataset()
            report.TransactionUID = generate_uid()
            sent = report, 1, StorageCommitmentPushModel, UID("1.2.840.10008.1.20.1.1")
            threading.Thread(target=scp.active_associations[0].send_n_event_report, args=sent).start()
            wait_for(lambda: serving, 10)
            association._reactor_checkpoint = overtaken = _Overtaken(serve)
            overtaken.set()
            release = threading.Thread(target=association.release, daemon=True)
            release.start()
            release.join(10)
            held_up = release.is_alive()
            association._is_paused = True  # lets a release that is held up go on, and the test end
            assert not held_up
    finally:
        scp.shutdown()
