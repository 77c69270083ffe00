"""Sending over a line that breaks anywhere: it ends and hangs up, and nothing is called stored that did not arrive."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, evt

from node.deliver import Unreachable
from node.deliver.scu import OutgoingFile, Peer, read_outgoing, send

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # pynetdicom's own
TIMEOUT_S = 1.0
LIMIT_S = 30.0
"""Several waits of `TIMEOUT_S`, one after the other, on a busy machine."""
BREAKS = ("stall", "close", "reset", "half-close", "flip", "insert", "drop", "repeat")
ALTERING = ("flip", "insert", "drop", "repeat")
"""They change what arrives, which only a checksum of the line could tell."""


@dataclass(frozen=True)
class Fault:
    """What happens to a line once so many bytes have passed."""

    kind: str
    answers: bool
    """Whether it befalls the answers of the PACS, or what is sent to it."""
    after: int


@dataclass(frozen=True)
class Line:
    """One TCP connection through a relay that lets a fault happen."""

    fault: Fault
    near: socket.socket
    far: socket.socket
    over: threading.Event

    def carry(self, source: socket.socket, sink: socket.socket, *, answers: bool) -> None:
        passed, due = 0, answers == self.fault.answers
        with suppress(OSError):
            while data := source.recv(4096):
                if due and passed + len(data) > self.fault.after:
                    due = False
                    sink.sendall(data[: self.fault.after - passed])
                    data = self.broken(data[self.fault.after - passed :], sink)
                passed += len(data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def broken(self, rest: bytes, sink: socket.socket) -> bytes:
        kind, rng = self.fault.kind, random.Random(self.fault.after)
        if kind == "stall":
            self.over.wait(2 * LIMIT_S)
        elif kind in ("close", "reset"):
            for end in (self.near, self.far):
                if kind == "reset":
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RD)  # wakes the thread of the other direction, which keeps it open
                end.close()
        elif kind == "half-close":
            sink.shutdown(socket.SHUT_WR)
        return {
            "flip": bytes([rest[0] ^ 1 << rng.randrange(8)]) + rest[1:],
            "insert": rng.randbytes(rng.randrange(1, 40)) + rest,
            "drop": rest[rng.randrange(1, 20) :],
            "repeat": rest + rest,
        }.get(kind, b"")


@contextmanager
def relay(port: int, fault: Fault) -> Iterator[int]:
    """Relay connections to `port`; each has the fault. Yields the port to call."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                line = Line(fault, near, socket.create_connection(("127.0.0.1", port)), over)
                for source, sink, answers in ((line.near, line.far, False), (line.far, line.near, True)):
                    threading.Thread(target=line.carry, args=(source, sink), kwargs={"answers": answers}).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def pacs(stored: set[str]) -> Iterator[int]:
    def store(event: Any) -> int:
        stored.add(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    entity = AE(ae_title="PACS")
    entity.add_supported_context(SecondaryCaptureImageStorage)
    entity.maximum_associations = 100
    entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = 5
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield server.server_address[1]
    finally:
        threading.Thread(target=server.shutdown).start()


@pytest.fixture
def files(tmp_path: Path) -> list[OutgoingFile]:
    found = []
    for number in range(3):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
        dataset.PatientName, dataset.PixelData = "A^B", bytes(2000)
        dataset.BitsAllocated = 8
        dataset.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
        found.append(read_outgoing(tmp_path / f"{number}.dcm"))
    return [file for file in found if file is not None]


def faults(seed: int, count: int) -> list[Fault]:
    """Faults from the request for an association to its release, more of them near the beginning."""
    rng = random.Random(seed)
    chosen = []
    for number in range(count):
        answers = rng.random() < 0.6
        chosen.append(Fault(BREAKS[number % len(BREAKS)], answers, int(10 ** rng.uniform(0, 2.7 if answers else 3.9))))
    return chosen


def test_whatever_breaks_on_the_line_sending_ends_hangs_up_and_claims_nothing_that_did_not_arrive(
    files: list[OutgoingFile],
) -> None:
    stored: set[str] = set()

    def attempt(fault: Fault) -> tuple[float, list[str], list[Any]]:
        began = time.monotonic()
        with relay(port, fault) as near:
            try:
                answers = send(files, Peer("PACS", "127.0.0.1", near), timeout_s=TIMEOUT_S)
            except Unreachable:
                answers = []
            took_s = time.monotonic() - began
            left = [
                c
                for c in psutil.Process().net_connections()
                if c.raddr and c.raddr.port == near and c.status == "ESTABLISHED"
            ]
        accepted = [dcmread(sent.path).SOPInstanceUID for sent in answers if sent.accepted]
        return took_s, accepted, left

    with pacs(stored) as port, ThreadPoolExecutor(12) as pool:
        tried = [(fault, pool.submit(attempt, fault)) for fault in faults(11, 96)]
        for fault, future in tried:
            took_s, accepted, left = future.result(timeout=4 * LIMIT_S)
            assert took_s < LIMIT_S, fault
            assert not left, fault
            assert fault.kind in ALTERING or stored.issuperset(accepted), fault
    assert stored
