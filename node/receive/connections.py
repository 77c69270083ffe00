"""Which peers may connect, and how long? The server socket, its associations, and their limits.

A peer is checked as early as possible: its address and the number of connections before a byte is read, the number of
associations and the AE titles at the A-ASSOCIATE request. Each association has one thread.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from socketserver import TCPServer
from typing import Any, cast

import structlog
from pynetdicom import AE
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from node.archive import IncomingFile
from node.processes.alive import beat
from node.settings import ReceiverSettings
from node.tls.contexts import ServerContext, explain_tls

from .admission import Admission
from .handshake import accept_tls
from .upper_layer import BoundedMessages, BoundedUpperLayer

NEGOTIATION_S = 30.0
"""Longest time from a connection to its complete A-ASSOCIATE request: the ARTIM timer of PS3.8 9.1.5."""
ACCEPT_PAUSE_S = 0.5
"""Pause after a connection could not be accepted."""
_ANSWERS_BYTES = 65_536  # a peer that leaves more bytes of responses unread is dropped
_PLAIN_PEER = "it must use TLS here, or the port without TLS"
_REJECT_LIMIT = (0x02, 0x03, 0x02)  # PS3.8 table 9-21: transient, presentation related, local limit exceeded

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class AssociationHooks:
    """Callbacks of the receiver.

    Parameters
    ----------
    open_incoming : callable
        (association, context id, request) → the file for a data set that is about to arrive.
    store : callable
        (association, context id, request) → the response, called when the data set is complete; it must not raise.
    ended : callable
        (association) → None, called once for every established association: before its release is answered, so that no
        fault of the node can leave it open from then on, or else when it has ended.
    refused : callable
        (reason) → None, called for every connection and association that is refused.
    """

    open_incoming: Callable[[Any, int, C_STORE], IncomingFile]
    store: Callable[[Any, int, C_STORE], C_STORE]
    ended: Callable[[Any], None]
    refused: Callable[[str], None] = lambda _reason: None


class BoundedAssociation(Association):
    """An association that a peer requested, served by one thread from connection to close."""

    dul: BoundedUpperLayer
    dimse: BoundedMessages

    def __init__(self, ae: AE, settings: ReceiverSettings, hooks: AssociationHooks) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.identity = uuid.uuid4().hex
        """Its name in the ledger."""
        self.series: set[str] = set()
        """Series of which it stored instances."""
        self.stored = 0
        self.is_stopping = False
        self.tls: dict[str, str] = {}
        """TLS version and name of the peer's certificate, for the log; empty without TLS."""
        self._hooks = hooks
        self._was_established = self._end_noted = False
        self.dul = BoundedUpperLayer(self, settings)
        self.dimse = BoundedMessages(self, settings, hooks.open_incoming)
        self.acse_timeout = min(NEGOTIATION_S, settings.idle_timeout_s)  # the setters pass them on to the upper layer
        self.network_timeout = settings.idle_timeout_s

    @property
    def peer(self) -> str:
        """Address of the other side."""
        return str(_address(cast(Any, self.requestor.address_info).address))

    @property
    def calling_ae(self) -> str:
        """Calling AE title; empty before the request."""
        return str(self.requestor.ae_title or "").strip()

    def stop(self) -> None:
        """Tell its thread to abort it."""
        self.is_stopping = True

    def run_reactor(self) -> None:
        """Serve the association; the thread's main function."""
        log = _log.bind(peer=self.peer, association=self.identity)
        try:
            self.dul._idle_timer.start()
            self._secure(log)
            while not self.dul.finished:
                self._turn(log)
        except Exception:  # an unexpected error ends this association and no other
            self.is_aborted, self.is_established = True, False
            log.error("association dropped", calling_ae=self.calling_ae, exc_info=True)
        finally:
            self._end(log)

    def _secure(self, log: Any) -> None:
        """Do the TLS handshake if this is a port for TLS; a peer that fails it is not listened to."""
        server = cast(BoundedServer, self._server)
        if server.tls is None:
            return
        layer = cast(AssociationSocket, self.dul.socket)
        deadline = time.monotonic() + cast(float, self.acse_timeout)
        try:
            layer.socket, self.tls = accept_tls(
                cast(socket.socket, layer.socket), server.tls, self.peer, deadline, lambda: self.is_stopping
            )
        except OSError as error:
            why = explain_tls(error, plain=_PLAIN_PEER, own="receiver.tls.certificate")
            log.warning("TLS connection refused", why=why)
            self._hooks.refused("tls")
            self.dul.kill_dul()

    def _turn(self, log: Any) -> None:
        """Do one step of the upper layer and handle its result."""
        if self.is_stopping and not self.is_established and not self._sent_abort:
            self.dul.kill_dul()  # no peer to send an A-ABORT to
            return
        if self.is_stopping and not self._sent_abort:
            self._abort(log, "the node is stopping")
        self.dul.step()
        if self.dul.refusal:
            log.warning("refused", calling_ae=self.calling_ae, why=self.dul.refusal)
            self._hooks.refused("protocol")
            self.dul.refusal = ""
        primitive: Any = self.dul.receive_pdu()
        if isinstance(primitive, A_ASSOCIATE):
            self._negotiate(primitive, log)
        elif isinstance(primitive, A_RELEASE):
            self.is_released, self.is_established = True, False
            self._note_end()
            self.acse.send_release(is_response=True)
        elif isinstance(primitive, A_ABORT | A_P_ABORT):
            self.is_aborted, self.is_established = True, False
        elif self.is_established:
            context_id, request = self.dimse.get_msg()
            if request is not None:
                self._serve(request, cast(int, context_id))
            elif self.dul.idle_timer_expired():
                self._abort(log, "no data within receiver.idle_timeout_s")

    def _serve(self, request: Any, context_id: int) -> None:
        """Serve a request: C-STORE here, the rare ones through pynetdicom's service classes."""
        if isinstance(request, C_STORE):
            self.dimse.send_msg(self._hooks.store(self, context_id, request), context_id)
        else:
            self._serve_request(request, context_id)
        self.dimse.drop_incoming()

    def _negotiate(self, request: A_ASSOCIATE, log: Any) -> None:
        self.requestor.primitive = request
        self.requestor.ae_title = request.calling_ae_title
        server = cast(BoundedServer, self._server)
        admitted = server.admission.admit(self)
        if admitted:
            self.acse.negotiate_association()
        else:
            self.acse.send_reject(*_REJECT_LIMIT)
        facts = {"calling_ae": self.calling_ae, "called_ae": request.called_ae_title}
        if self.is_established:
            self._was_established = True
            log.info("association accepted", contexts=len(self._accepted_cx), **facts, **self.tls)
        else:
            server.admission.dismiss(self)
            log.warning("association rejected", why=cast(A_ASSOCIATE, self.acceptor.primitive).reason_str, **facts)
            self._hooks.refused("rejected" if admitted else "limit")

    def _abort(self, log: Any, why: str) -> None:
        log.warning("association aborted", calling_ae=self.calling_ae, why=why)
        self._abort_blocking()

    def _abort_blocking(self, block: bool = True) -> None:  # noqa: ARG002 - pynetdicom's signature
        """Queue an A-ABORT. pynetdicom's version waits for a second thread, which does not exist here."""
        if not self._sent_abort and not self.is_released:
            self._sent_abort = True
            self.acse.send_abort(0x00)

    def _note_end(self) -> None:
        """Call the hook for the end of an association that was established, once."""
        if self._was_established and not self._end_noted:
            self._end_noted = True
            self._hooks.ended(self)

    def _end(self, log: Any) -> None:
        self.is_established = False
        with suppress(Exception):
            cast(AssociationSocket, self.dul.socket).close()
        self.dimse.drop_incoming()
        try:
            if self._was_established:
                how = "released" if self.is_released else "aborted"
                log.info("association ended", calling_ae=self.calling_ae, how=how, stored=self.stored)
            self._note_end()
        finally:
            cast(BoundedServer, self._server).forget(self)


class BoundedServer(AssociationServer):
    """The listening socket and its associations.

    Parameters
    ----------
    ae : AE
        The node's application entity.
    address : tuple of (str, int)
        Address and port; 0 picks a free port.
    ae_title : str
        The node's AE title.
    contexts : list of PresentationContext
        Presentation contexts that it accepts.
    settings : ReceiverSettings
        Limits, and who may connect.
    hooks : AssociationHooks
        The receiver's.
    admission : Admission
        Counts the connections of all ports.
    tls : ServerContext, optional
        The certificates, if it is a port for TLS.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        ae_title: str,
        contexts: list[PresentationContext],
        *,
        settings: ReceiverSettings,
        hooks: AssociationHooks,
        admission: Admission,
        tls: ServerContext | None = None,
        evt_handlers: list[Any],
    ) -> None:
        self.settings, self.hooks, self.admission, self.tls = settings, hooks, admission, tls
        self._lock = threading.Lock()
        self._connections: set[BoundedAssociation] = set()
        super().__init__(ae, address, ae_title, contexts, evt_handlers=evt_handlers, request_handler=_BoundedHandler)

    @property
    def connections(self) -> tuple[BoundedAssociation, ...]:
        """All connections of this port."""
        with self._lock:
            return tuple(self._connections)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; responses are small and are sent at once (TCP_NODELAY)."""
        try:
            connection, address = super().get_request()
        except OSError as error:  # no file descriptor is free: the peer waits in the backlog
            _log.error("a connection cannot be accepted now", error=error.strerror)
            time.sleep(ACCEPT_PAUSE_S)
            raise
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ANSWERS_BYTES)
        connection.setblocking(False)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - socketserver's signature
        """Check the address of a peer before anything it sends is read."""
        peer = _address(client_address[0])
        if self.settings.peers and not any(peer in network for network in self.settings.peers):
            _log.warning("connection refused", peer=str(peer), why="not in receiver.peers")
            self.hooks.refused("address")
            return False
        if not self.admission.has_room(str(peer)):
            _log.warning("connection refused", peer=str(peer), why="too many connections without an association")
            self.hooks.refused("limit")
            return False
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error that occurred before an association had its thread."""
        _log.error("connection dropped", peer=str(_address(client_address[0])), exc_info=True)
        with suppress(OSError):
            request.close()

    def service_actions(self) -> None:
        """Say that the loop that accepts connections runs; pynetdicom's garbage collection is not needed."""
        with suppress(OSError):  # a full disk must not end the loop
            beat()

    def enter(self, association: BoundedAssociation) -> None:
        """Count a connection."""
        self.admission.enter(association)
        with self._lock:
            self._connections.add(association)

    def forget(self, association: BoundedAssociation) -> None:
        """Uncount a connection that has ended."""
        self.admission.forget(association)
        with self._lock:
            self._connections.discard(association)

    def close(self) -> None:
        """Stop listening."""
        TCPServer.shutdown(self)
        self.server_close()

    def end_associations(self, deadline: float) -> None:
        """Let associations end until then (on the monotonic clock), and abort those that do not."""
        while self.connections and time.monotonic() < deadline:
            time.sleep(0.05)
        left = self.connections
        for association in left:
            association.stop()
        for association in left:
            association.join(timeout=5.0)


class _BoundedHandler(RequestHandler):
    """Creates the association of a connection, with limits, which pynetdicom's own handler does not set."""

    def handle(self) -> None:
        """Start the thread that serves the connection."""
        server, association = cast(BoundedServer, self.server), self._create_association()
        server.enter(association)
        try:
            association.start()
        except RuntimeError:  # no more threads
            server.forget(association)
            raise

    def _create_association(self) -> BoundedAssociation:
        server = cast(BoundedServer, self.server)
        association = BoundedAssociation(server.ae, server.settings, server.hooks)
        association._server = server
        association.name = f"association-{association.identity[:8]}"
        association.set_socket(AssociationSocket(association, client_socket=cast(socket.socket, self.request)))
        association.acceptor.maximum_length = server.ae.maximum_pdu_size
        association.acceptor.ae_title = server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = server.ae.implementation_class_uid
        association.acceptor.implementation_version_name = server.ae.implementation_version_name
        association.acceptor.supported_contexts = server.contexts
        association.requestor.address_info = self.remote
        for event, handler in server._handlers.items():
            if event.is_intervention:
                association.bind(event, *cast(Any, handler))
        return association


def _address(host: str) -> IPv4Address | IPv6Address:
    """Return the address of a peer; an IPv4 peer of an IPv6 socket counts as IPv4."""
    address = ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
