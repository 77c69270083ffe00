"""How are files sent to a DICOM node, and how is it asked whether it answers? (C-STORE and C-ECHO as SCU)."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dul import DULServiceProvider
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when imported

from node.destinations.base import Sent as Sent
from node.destinations.base import Unreachable as Unreachable
from node.destinations.statuses import in_words, is_accepted
from pipeline.errors import InputError

DEFAULT_CALLING_AE_TITLE = "CMBNODE"
KINDS_PER_ASSOCIATION = 64
"""Presentation context IDs are the odd numbers of one byte, so there are 128 (PS3.8 9.3.2.2); a kind may need two."""

_PEER = re.compile(r"(?P<title>[^@\\]{1,16})@(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:\s]+):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class Peer:
    """A DICOM node to talk to."""

    ae_title: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.ae_title}@{host}:{self.port}"


@dataclass(frozen=True)
class Outgoing:
    """A file to send, as its file meta information describes it."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


def parse_peer(text: str) -> Peer:
    """Read ``AET@HOST:PORT``; an IPv6 address stands in brackets.

    Raises
    ------
    InputError
        If it is not of that form, or the port is impossible.
    """
    match = _PEER.fullmatch(text.strip())
    if match is None or not match["title"].strip() or not 1 <= int(match["port"]) <= 65535:
        raise InputError("not a DICOM node", where=repr(text), do="write AET@HOST:PORT, as in ORTHANC@127.0.0.1:4242")
    return Peer(match["title"].strip(), match["host"].strip("[]"), int(match["port"]))


def read_outgoing(path: Path) -> Outgoing | None:
    """Read a file's meta information (PS3.10 7.1); ``None`` if it is no DICOM file that C-STORE could send."""
    try:
        meta = dcmread(path, specific_tags=[], stop_before_pixels=True).file_meta
        return Outgoing(path, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
    except (InvalidDicomError, AttributeError, OSError, ValueError):
        return None


def echo(peer: Peer, calling_ae_title: str = DEFAULT_CALLING_AE_TITLE, timeout_s: float = 10.0) -> None:
    """Send a C-ECHO.

    Raises
    ------
    Unreachable
        If there is no association, or no success in the answer.
    """
    entity = _entity(calling_ae_title, timeout_s)
    entity.add_requested_context(Verification)
    with _association(entity, peer, []) as association:
        status = getattr(association.send_c_echo(), "Status", None)
    if status != 0x0000:
        said = "gave no answer to C-ECHO" if status is None else f"answered C-ECHO with 0x{status:04X}"
        raise Unreachable(f"{peer} {said}")


def send(
    files: Sequence[Outgoing],
    peer: Peer,
    calling_ae_title: str = DEFAULT_CALLING_AE_TITLE,
    timeout_s: float = 30.0,
    on_sent: Callable[[Sent], None] | None = None,
) -> list[Sent]:
    """C-STORE files as they are, each in its own transfer syntax; one answer a file, in the order sent.

    A file whose kind the peer does not take is refused here, by name, and the others still go.

    Raises
    ------
    Unreachable
        If no association could be opened.
    """
    answers: list[Sent] = []
    for contexts, batch in _batches(files):
        entity = _entity(calling_ae_title, timeout_s)
        for sop_class, syntax in contexts:
            entity.add_requested_context(sop_class, syntax)
            if syntax == ExplicitVRLittleEndian and (sop_class, ImplicitVRLittleEndian) not in contexts:
                entity.add_requested_context(sop_class, ImplicitVRLittleEndian)  # every SCP has that one
        with _association(entity, peer, batch) as association:
            for number, outgoing in enumerate(batch):
                answer = _store(association, outgoing, message_id=number % 65535 + 1)
                answers.append(answer)
                if on_sent is not None:
                    on_sent(answer)
    return answers


def _batches(files: Sequence[Outgoing]) -> Iterator[tuple[list[tuple[str, str]], list[Outgoing]]]:
    """Split files by (SOP class, transfer syntax), as many kinds as one association can propose; their order stays."""
    kinds = list(dict.fromkeys((outgoing.sop_class_uid, outgoing.transfer_syntax_uid) for outgoing in files))
    for start in range(0, len(kinds), KINDS_PER_ASSOCIATION):
        chosen = kinds[start : start + KINDS_PER_ASSOCIATION]
        yield chosen, [o for o in files if (o.sop_class_uid, o.transfer_syntax_uid) in chosen]


def _store(association: Any, outgoing: Outgoing, message_id: int) -> Sent:
    if not association.is_established:
        return Sent(outgoing.path, False, None, "the association was lost before it could be sent")
    kind = f"{UID(outgoing.sop_class_uid).name} in {UID(outgoing.transfer_syntax_uid).name}"
    try:
        response = association.send_c_store(dcmread(outgoing.path), message_id)
    except ValueError:  # pynetdicom's way to say that no accepted presentation context fits
        return Sent(outgoing.path, False, None, f"the peer takes no {kind}")
    except RuntimeError:  # its way to say that the association ended just now
        return Sent(outgoing.path, False, None, "the association was lost before it could be sent")
    except (InvalidDicomError, AttributeError, OSError) as error:
        return Sent(outgoing.path, False, None, f"not sent: {error}")
    status = getattr(response, "Status", None)
    if status is None:
        return Sent(outgoing.path, False, None, "no answer, or the connection was lost while it was sent")
    return Sent(
        outgoing.path,
        is_accepted(status),
        status,
        in_words(status, str(getattr(response, "ErrorComment", None) or "").strip()),
    )


def _entity(calling_ae_title: str, timeout_s: float) -> Any:
    entity = AE(ae_title=calling_ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    return entity


def _associate(entity: Any, peer: Peer, batch: Sequence[Outgoing]) -> Any:
    association = entity.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        evt_handlers=[(evt.EVT_CONN_OPEN, _tune, [entity.network_timeout])],
    )
    if association.is_established:
        _leave_answers(association)
        return association
    if association.is_rejected:
        answer = association.acceptor.primitive
        why = f"refused the association ({answer.reason_str})" if answer is not None else "refused the association"
    elif batch and association.acceptor.primitive is not None and not association.accepted_contexts:
        why = f"takes none of the {len({(o.sop_class_uid, o.transfer_syntax_uid) for o in batch})} kinds of object"
    else:
        why = "does not answer; is the host up and the port right?"
    raise Unreachable(f"{peer} {why}")


def _leave_answers(association: Any) -> None:
    """Keep pynetdicom's own loop from taking the answer that a sender waits for.

    The sender asks the loop to pause, and sees it pausing; but a loop that had just been let go still looks for a
    message once. On a busy machine the answer is there by then and is thrown away, and the sender times out.
    """
    take = association.dimse.get_msg

    def get_msg(block: bool = False) -> Any:
        asked_to_pause = not association._reactor_checkpoint.is_set()
        return (None, None) if asked_to_pause and not block else take(block)

    association.dimse.get_msg = get_msg


def _tune(event: Any, timeout_s: float) -> None:
    """Send small PDUs at once (Nagle's algorithm costs 40 ms an instance on some peers), and never wait long to send.

    pynetdicom sends without a limit, so a peer that stops reading would hold its thread for ever.
    """
    connection = event.assoc.dul.socket.socket
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


@contextmanager
def _association(entity: Any, peer: Peer, batch: Sequence[Outgoing]) -> Iterator[Any]:
    """An association that is released afterwards, whatever happened; only Ctrl-C aborts it."""
    try:
        association = _associate(entity, peer, batch)
        try:
            yield association
        except Exception:
            _release(association)
            raise
        _release(association)
    except KeyboardInterrupt:
        _abandon(entity)
        raise


@contextmanager
def associated(peer: Peer, sop_classes: Sequence[str], calling_ae_title: str, timeout_s: float) -> Iterator[Any]:
    """An association for services other than storage, released afterwards.

    Raises
    ------
    Unreachable
        If there is none.
    """
    entity = _entity(calling_ae_title, timeout_s)
    for sop_class in sop_classes:
        entity.add_requested_context(sop_class)
    with _association(entity, peer, []) as association:
        yield association


def _release(association: Any) -> None:
    if association.is_established:
        association.release()


def _abandon(entity: Any) -> None:
    """End the threads of an entity: they are no daemons, and Python would wait for them for ever at its end."""
    entity.shutdown()
    for thread in threading.enumerate():  # an association that was interrupted while it was negotiated
        if isinstance(thread, DULServiceProvider) and thread.assoc.ae is entity:
            thread.kill_dul()
