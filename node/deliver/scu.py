"""How does the node send files to another DICOM node, and test the connection? (C-STORE and C-ECHO as SCU)"""

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
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dul import DULServiceProvider
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when imported

from node.logs import explain
from node.settings.connections import DicomPeerSettings, TlsSettings, bracketed
from node.tls.contexts import explain_tls
from pipeline.errors import InputError

from .base import SendResult as SendResult
from .base import Unreachable as Unreachable
from .storage_status import in_words, is_accepted
from .tls import TlsFailures, tls_context

DEFAULT_CALLING_AE_TITLE = "CMBNODE"
KINDS_PER_ASSOCIATION = 64
"""There are 128 presentation context IDs (odd numbers of one byte, PS3.8 9.3.2.2), and a kind may need two."""

_PEER = re.compile(r"(?P<title>[^@\\]{1,16})@(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:\s]+):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class Peer:
    """Another DICOM node."""

    ae_title: str
    host: str
    port: int
    tls: TlsSettings | None = None
    """Certificates, if it is called by TLS."""

    @classmethod
    def of(cls, settings: DicomPeerSettings) -> Peer:
        """The peer that the settings describe."""
        return cls(settings.ae_title, settings.host, settings.port, settings if settings.tls else None)

    def __str__(self) -> str:
        return f"{self.ae_title}@{bracketed(self.host)}:{self.port}"


@dataclass(frozen=True)
class OutgoingFile:
    """A file to send, with its file meta information."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


def parse_peer(text: str) -> Peer:
    """Parse ``AET@HOST:PORT``; an IPv6 address is in brackets.

    Raises
    ------
    InputError
        If it has another form, or the port is out of range.
    """
    match = _PEER.fullmatch(text.strip())
    if match is None or not match["title"].strip() or not 1 <= int(match["port"]) <= 65535:
        raise InputError("not a DICOM node", where=repr(text), do="write AET@HOST:PORT, as in ORTHANC@127.0.0.1:4242")
    return Peer(match["title"].strip(), match["host"].strip("[]"), int(match["port"]))


def read_outgoing(path: Path) -> OutgoingFile | None:
    """Read the file meta information (PS3.10 7.1); ``None`` if C-STORE could not send the file."""
    try:
        meta = dcmread(path, specific_tags=[], stop_before_pixels=True).file_meta
        return OutgoingFile(path, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
    except Exception:  # pydicom raises many types on damaged files
        return None


def echo(peer: Peer, calling_ae_title: str = DEFAULT_CALLING_AE_TITLE, timeout_s: float = 10.0) -> None:
    """Send a C-ECHO.

    Raises
    ------
    Unreachable
        If there is no association, or the answer is not success.
    """
    entity = _entity(calling_ae_title, timeout_s)
    entity.add_requested_context(Verification)
    with _association(entity, peer, []) as association:
        status = getattr(association.send_c_echo(), "Status", None)
    if status != 0x0000:
        said = "gave no answer to C-ECHO" if status is None else f"answered C-ECHO with 0x{status:04X}"
        raise Unreachable(f"{peer} {said}")


def send(
    files: Sequence[OutgoingFile],
    peer: Peer,
    calling_ae_title: str = DEFAULT_CALLING_AE_TITLE,
    timeout_s: float = 30.0,
    on_sent: Callable[[SendResult], None] | None = None,
) -> list[SendResult]:
    """C-STORE files as they are, each in its own transfer syntax; one answer per file, in the order sent.

    A file of a kind that the peer does not accept is refused here, and the others are still sent.

    Raises
    ------
    Unreachable
        If no association could be opened.
    """
    answers: list[SendResult] = []
    for contexts, batch in _batches(files):
        entity = _entity(calling_ae_title, timeout_s)
        for sop_class, syntax in contexts:
            entity.add_requested_context(sop_class, syntax)
            if syntax == ExplicitVRLittleEndian and (sop_class, ImplicitVRLittleEndian) not in contexts:
                entity.add_requested_context(sop_class, ImplicitVRLittleEndian)  # every SCP supports it
        with _association(entity, peer, batch) as association:
            for number, outgoing in enumerate(batch):
                answer = _store(association, outgoing, message_id=number % 65535 + 1)
                answers.append(answer)
                if on_sent is not None:
                    on_sent(answer)
    return answers


def _batches(files: Sequence[OutgoingFile]) -> Iterator[tuple[list[tuple[str, str]], list[OutgoingFile]]]:
    """Split files by (SOP class, transfer syntax) into what one association can propose; their order is kept."""
    kinds = list(dict.fromkeys((outgoing.sop_class_uid, outgoing.transfer_syntax_uid) for outgoing in files))
    for start in range(0, len(kinds), KINDS_PER_ASSOCIATION):
        chosen = kinds[start : start + KINDS_PER_ASSOCIATION]
        yield chosen, [o for o in files if (o.sop_class_uid, o.transfer_syntax_uid) in chosen]


def _store(association: Any, outgoing: OutgoingFile, message_id: int) -> SendResult:
    if not association.is_established:
        return SendResult(outgoing.path, False, None, "the association was lost before it could be sent")
    kind = f"{UID(outgoing.sop_class_uid).name} in {UID(outgoing.transfer_syntax_uid).name}"
    try:
        response = association.send_c_store(dcmread(outgoing.path), message_id)
    except RuntimeError:  # raised by pynetdicom when the association has just ended
        return SendResult(outgoing.path, False, None, "the association was lost before it could be sent")
    except Exception as error:  # pydicom raises many types on damaged files
        if str(error).startswith("No presentation context"):  # pynetdicom's: none that the peer accepted fits
            return SendResult(outgoing.path, False, None, f"the peer does not accept {kind}")
        return SendResult(outgoing.path, False, None, f"the node cannot send this file ({explain(error)})")
    status = getattr(response, "Status", None)
    if status is None:
        return SendResult(outgoing.path, False, None, "no answer, or the connection was lost while it was sent")
    return SendResult(
        outgoing.path,
        is_accepted(status),
        status,
        in_words(status, str(getattr(response, "ErrorComment", None) or "").strip()),
    )


def _entity(calling_ae_title: str, timeout_s: float) -> Any:
    entity = AE(ae_title=calling_ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    return entity


def _associate(
    entity: Any, peer: Peer, batch: Sequence[OutgoingFile], handlers: Sequence[Any] = (), roles: Sequence[Any] = ()
) -> Any:
    context = tls_context(peer.tls) if peer.tls is not None else None
    failures = TlsFailures(context) if context is not None else None
    connected = threading.Event()
    try:
        association = entity.associate(
            peer.host,
            peer.port,
            ae_title=peer.ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, _tune, [entity.network_timeout, connected]), *handlers],
            ext_neg=list(roles),
            tls_args=None if context is None else (context, peer.host),
        )
    except socket.gaierror as error:
        raise Unreachable(
            f"{peer}: the host name {peer.host} cannot be resolved ({error.strerror}); check its spelling and the DNS"
        ) from error
    if association.is_established:
        _leave_answers(association)
        _keep_paused(association)
        return association
    _hang_up(association)
    answer = association.acceptor.primitive
    if association.is_rejected:
        why = f"refused the association ({answer.reason_str})" if answer is not None else "refused the association"
    elif batch and answer is not None and not association.accepted_contexts:
        why = f"accepts none of the {len({(o.sop_class_uid, o.transfer_syntax_uid) for o in batch})} kinds of object"
    elif answer is not None and not association.accepted_contexts:
        names = ", ".join(UID(context.abstract_syntax).name for context in association.requestor.requested_contexts)
        why = f"does not offer {names}"
    elif failures is not None and failures.first is not None:
        why = f"cannot be reached by TLS: {explain_tls(failures.first)}"
    elif connected.is_set() and answer is None:
        expects = "" if peer.tls is not None else "; does this port expect TLS (tls = true)?"
        why = f"does not answer the association request, but closes the connection or stays silent{expects}"
    else:
        why = "does not answer; is the host up and the port right?"
    raise Unreachable(f"{peer} {why}")


def _leave_answers(association: Any) -> None:
    """Keep pynetdicom's own loop from reading the answer that the sender waits for.

    The sender asks the loop to pause and sees it pausing; but a loop that has just resumed still reads one message. On
    a busy machine that is the answer, it is dropped, and the sender times out.
    """
    take = association.dimse.get_msg

    def get_msg(block: bool = False) -> Any:
        asked_to_pause = not association._reactor_checkpoint.is_set()
        return (None, None) if asked_to_pause and not block else take(block)

    association.dimse.get_msg = get_msg


def _keep_paused(association: Any) -> None:
    """Keep a report of the peer from undoing the pause that a release waits for.

    pynetdicom serves N-EVENT-REPORT in a thread of its own, and marks the loop as running when it has been served. If
    the loop has paused meanwhile, the release would wait for ever. A pause noted too early does no harm: see
    :func:`_leave_answers`.
    """
    serve = association._serve_request

    def serve_request(message: Any, context_id: int) -> None:
        serve(message, context_id)
        if not association._reactor_checkpoint.is_set():
            association._is_paused = True

    association._serve_request = serve_request


def _tune(event: Any, timeout_s: float, connected: threading.Event) -> None:
    """Send small PDUs at once (Nagle's algorithm costs 40 ms per instance with some peers), and limit every wait.

    pynetdicom sends, and reads the rest of a PDU, without a limit: a peer that stops in the middle would block its
    thread for ever, and abort() waits for that thread.
    """
    connected.set()
    connection = event.assoc.dul.socket.socket
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, limit)


@contextmanager
def _association(
    entity: Any, peer: Peer, batch: Sequence[OutgoingFile], handlers: Sequence[Any] = (), roles: Sequence[Any] = ()
) -> Iterator[Any]:
    """An association that is released afterwards, also after an error; only Ctrl-C aborts it."""
    try:
        association = _associate(entity, peer, batch, handlers, roles)
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
def associated(
    peer: Peer,
    sop_classes: Sequence[str],
    calling_ae_title: str,
    timeout_s: float,
    *,
    handlers: Sequence[Any] = (),
    roles: Sequence[Any] = (),
    storage: Sequence[tuple[str, str]] = (),
) -> Iterator[Any]:
    """Open an association for services other than storage, released afterwards.

    Parameters
    ----------
    handlers : sequence of tuple
        pynetdicom's event handlers for requests of the peer.
    roles : sequence
        Role selections (PS3.7 D.3.3.4) of :func:`pynetdicom.build_role`.
    storage : sequence of (str, str)
        SOP class and transfer syntax of the objects that the peer may send on the association (C-GET).

    Raises
    ------
    Unreachable
        If no association could be opened.
    """
    entity = _entity(calling_ae_title, timeout_s)
    for sop_class in sop_classes:
        entity.add_requested_context(sop_class)
    for sop_class, syntax in storage:
        entity.add_requested_context(sop_class, syntax)
    with _association(entity, peer, [], handlers, roles) as association:
        yield association


def _release(association: Any) -> None:
    if association.is_established:
        association.release()
    _hang_up(association)


def _hang_up(association: Any) -> None:
    """Close the connection where pynetdicom has not: an answer that it cannot decode may end its thread first."""
    if association.dul.socket is not None:
        association.dul.socket.close()


def _abandon(entity: Any) -> None:
    """End the threads of an entity: they are not daemons, and Python would wait for them at its exit."""
    entity.shutdown()
    for thread in threading.enumerate():  # an association that was interrupted during negotiation
        if isinstance(thread, DULServiceProvider) and thread.assoc.ae is entity:
            thread.kill_dul()
