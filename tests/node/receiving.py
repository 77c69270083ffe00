"""A running receiver with a real ledger and archive, and a peer that speaks DICOM's upper layer byte by byte."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, N_ACTION_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_ACTION
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from node.archive import Archive
from node.commitment import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from node.ledger import Ledger
from node.receive.receiver import Receiver
from node.settings import Settings
from tests.dicom_factory import classic
from tests.dicom_factory import encode as with_meta

VERIFICATION = "1.2.840.10008.1.1"


@dataclass(frozen=True)
class Node:
    """A receiver on a free loopback port."""

    receiver: Receiver
    ledger: Ledger
    archive: Archive

    @property
    def port(self) -> int:
        return self.receiver.port

    @property
    def tls_port(self) -> int:
        return self.receiver.tls_port

    def files(self, folder: str = "studies") -> list[Path]:
        return sorted(path for path in (self.archive.root / folder).rglob("*") if path.is_file())

    def instances(self) -> int:
        return sum(len(series.places) for series in self.ledger.series_receiving())


@contextmanager
def running_node(folder: Path, *, ae_title: str = "CMBNODE", free_disk_mb: int = 0, **receiver: Any) -> Iterator[Node]:
    """Start a node; every keyword is a setting of ``receiver``."""
    options = {"host": "127.0.0.1", "port": 0, **receiver}
    settings = Settings(data_dir=folder, ae_title=ae_title, receiver=options)  # type: ignore[arg-type]
    ledger = Ledger(settings.ledger_url)
    ledger.upgrade()
    archive = Archive(folder / "archive", free_disk_mb)
    try:
        with Receiver(settings, ledger, archive) as receiver_:
            yield Node(receiver_, ledger, archive)
    finally:
        ledger.close()


def slices(count: int = 3, **options: Any) -> list[Dataset]:
    """A small MR series."""
    rng = np.random.default_rng(7)
    return [with_meta(image) for image in classic(rng.integers(0, 999, (count, 16, 16), dtype=np.uint16), **options)]


@contextmanager
def associated(
    port: int,
    *,
    calling: str = "MODALITY",
    called: str = "CMBNODE",
    contexts: tuple[str, ...] = (MRImageStorage,),
    syntax: UID = ExplicitVRLittleEndian,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Association]:
    """An association of pynetdicom's SCU with the node."""
    ae = AE(ae_title=calling)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    for uid in (VERIFICATION, *contexts):
        ae.add_requested_context(uid, syntax)
    tls_args = None if tls is None else (tls, "127.0.0.1")
    association = ae.associate("127.0.0.1", port, ae_title=called, tls_args=tls_args)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send(port: int, *datasets: Dataset, **options: Any) -> list[Dataset]:
    """C-STORE over one association; the answers."""
    contexts = tuple(dict.fromkeys(str(dataset.SOPClassUID) for dataset in datasets))
    with associated(port, contexts=contexts, **options) as association:
        assert association.is_established
        return [association.send_c_store(dataset) for dataset in datasets]


def statuses(answers: list[Dataset]) -> list[int]:
    """Their statuses."""
    return [int(answer.Status) for answer in answers]


def echoes(port: int, **options: Any) -> bool:
    """Whether the node answers a C-ECHO on a new association."""
    with associated(port, contexts=(), **options) as association:
        return bool(association.is_established and association.send_c_echo().get("Status") == 0)


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether `condition` comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


class Peer:
    """A raw peer: sends any bytes, reads whole PDUs."""

    def __init__(self, port: int, timeout_s: float = 10.0, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s, source_address=(source, 0))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_as_far_as_it_goes(self, data: bytes) -> bool:
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def receive(self) -> tuple[int, bytes] | None:
        """Type and content of the next PDU; None when the node has closed the connection."""
        header = self._exactly(6)
        if header is None:
            return None
        kind, _, length = struct.unpack(">BBL", header)
        content = self._exactly(length)
        return None if content is None else (kind, content)

    def is_cut_off(self) -> bool:
        """Whether the node ends the connection, with or without an A-ABORT, before the timeout."""
        while (pdu := self.receive()) is not None:
            if pdu[0] == 7:
                return True
        return True

    def associate(self, **options: Any) -> int:
        """Ask for an association; the type of the answer (2: accepted, 3: rejected, 7: aborted)."""
        self.send(associate_request(**options))
        answer = self.receive()
        return answer[0] if answer else 0

    def _exactly(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError:
                return None
            if not piece:
                return None
            data += piece
        return data


def associate_request(
    calling: str = "MODALITY",
    called: str = "CMBNODE",
    contexts: tuple[str, ...] = (VERIFICATION, MRImageStorage),
    syntax: str = ExplicitVRLittleEndian,
) -> bytes:
    """An A-ASSOCIATE-RQ PDU with context ids 1, 3, …."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = calling, called
    longest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    longest.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3"
    request.user_information = [longest, implementation]
    proposed = [build_context(uid, syntax) for uid in contexts]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    request.presentation_context_definition_list = proposed
    return A_ASSOCIATE_RQ(request).encode()


def pdu(kind: int, content: bytes) -> bytes:
    """Any PDU."""
    return struct.pack(">BBL", kind, 0, len(content)) + content


def p_data(context_id: int, control: int, fragment: bytes) -> bytes:
    """A P-DATA-TF PDU with one presentation data value."""
    return pdu(4, struct.pack(">LBB", len(fragment) + 2, context_id, control) + fragment)


def echo_command() -> bytes:
    """The command set of a C-ECHO request."""
    request, message = C_ECHO(), C_ECHO_RQ()
    request.MessageID, request.AffectedSOPClassUID = 1, VERIFICATION
    message.primitive_to_message(request)
    return bytes(encode(message.command_set, True, True) or b"")


def store_command(dataset: Dataset, **changes: Any) -> bytes:
    """The command set of a C-STORE request for `dataset`; `changes` go into the command set unchecked."""
    request, message = C_STORE(), C_STORE_RQ()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    request.DataSet = BytesIO(b"x")
    message.primitive_to_message(request)
    for keyword, value in changes.items():
        setattr(message.command_set, keyword, value)
    return bytes(encode(message.command_set, True, True) or b"")


def action_command(sop_class: str = STORAGE_COMMITMENT, action: int = 1) -> bytes:
    """The command set of an N-ACTION request with a data set."""
    request, message = N_ACTION(), N_ACTION_RQ()
    request.MessageID, request.ActionTypeID = 1, action
    request.RequestedSOPClassUID, request.RequestedSOPInstanceUID = sop_class, STORAGE_COMMITMENT_INSTANCE
    request.ActionInformation = BytesIO(b"x")
    message.primitive_to_message(request)
    return bytes(encode(message.command_set, True, True) or b"")


def encoded(dataset: Dataset) -> bytes:
    """A data set in Explicit VR Little Endian."""
    return bytes(encode(dataset, False, True) or b"")


def status_of(answer: tuple[int, bytes] | None) -> int | None:
    """Status of a DIMSE response that came in one P-DATA-TF PDU."""
    if answer is None or answer[0] != 4:
        return None
    at = answer[1].find(struct.pack("<HHL", 0x0000, 0x0900, 2))
    return None if at < 0 else int(struct.unpack_from("<H", answer[1], at + 8)[0])
