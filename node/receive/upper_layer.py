"""How is input from the network read without trusting it? pynetdicom's upper layer with limits, and without polling.

pynetdicom 3.0 trusts the length that a PDU declares (up to 4 GiB), waits for the rest of it without a limit, keeps a
complete message in memory, reads on while earlier messages wait, and runs two threads per association that poll every
millisecond. The two classes here replace its reading side; the state machine of PS3.8 chapter 9, the encoding of PDUs
and the service classes stay pynetdicom's:

* :class:`BoundedUpperLayer` checks the length of a PDU before it reads its content, limits the time until it is
  complete, and runs in its association's own thread, which sleeps in ``poll`` until there is something to read;
* :class:`BoundedMessages` writes a data set to disk while it arrives and stops one that does not end.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any, cast

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_ACTION, N_EVENT_REPORT
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA
from pynetdicom.transport import AssociationSocket

from node.archive import IncomingFile
from node.settings import ReceiverSettings

from .command_sets import CommandError, Request, decode_request, encode_response

TICK_S = 0.25
"""Longest sleep before a thread checks its timers and whether it should stop."""
_HEADER = struct.Struct(">BBL")
_PDV = struct.Struct(">LBB")
_ASSOCIATE_RQ, _P_DATA_TF = 0x01, 0x04
_TLS_HANDSHAKE = 0x16  # content type of a TLS record (RFC 8446 5.1)
_LONGEST_ASSOCIATE = 262_144  # 128 presentation contexts with every known transfer syntax need 150 kB
_LONGEST_OTHER = 1024  # release, abort and reject have 4 bytes
_PDU_SLACK = 1024  # some senders do not count PDV headers in the negotiated length
_COMMAND_LAST = 0x03  # message control header of PS3.8 E.2: command, last fragment
_LONGEST_COMMAND = 16_384
_LONGEST_INFORMATION = 2_097_152  # of N-ACTION and N-EVENT-REPORT: some 15 000 instances
_LINGER_S, _LINGER_BYTES = 0.5, 1_048_576


class ProtocolError(Exception):
    """The peer violated the protocol; the text says how, and quotes nothing of what was sent."""


class _ConnectionLostError(Exception):
    """The connection was closed or lost. Not an OSError, which may come from the node's own disk, too."""


class BoundedUpperLayer(DULServiceProvider):
    """The upper layer of one association that a peer requested. It is no thread: :meth:`step` is called in a loop."""

    def __init__(self, association: Any, settings: ReceiverSettings) -> None:
        super().__init__(association)
        self._association, self._settings = association, settings
        self._buffer = bytearray(_HEADER.size)
        self.refusal = ""
        """Why the last PDU was refused, for the log."""

    @property
    def finished(self) -> bool:
        """Whether the connection has ended."""
        return self._kill_thread

    @property
    def _connection(self) -> socket.socket | None:
        return cast(AssociationSocket, self.socket).socket

    def step(self) -> None:
        """Send what is queued, or read one PDU; return after :data:`TICK_S` at the latest."""
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        elif self.event_queue.empty() and not self._process_recv_primitive():
            if self.state_machine.current_state == "Sta13":
                if self._connection is not None:
                    linger(self._connection)
                cast(AssociationSocket, self.socket).close()
            else:
                self._read_if_ready()
        if not self.event_queue.empty():
            self.state_machine.do_action(self.event_queue.get())

    def _read_if_ready(self) -> None:
        connection = self._connection
        if connection is None:
            self.event_queue.put("Evt17")
        elif wait_to_read(connection, TICK_S):
            self._read_pdu_data()
            self._idle_timer.restart()

    def _read_pdu_data(self) -> None:
        """Read one PDU, or queue the event that says why not."""
        deadline = time.monotonic() + self._settings.idle_timeout_s
        if self.state_machine.current_state == "Sta2":  # until the ARTIM timer expires
            deadline = time.monotonic() + self.artim_timer.remaining
        try:
            self._read_pdu(deadline)
        except ProtocolError as error:
            self.refusal = str(error)
            self.event_queue.put("Evt19")
        except TimeoutError:
            self.refusal = "a PDU was not complete in time"
            self.event_queue.put("Evt18" if self.state_machine.current_state == "Sta2" else "Evt19")
        except _ConnectionLostError:
            self.event_queue.put("Evt17")

    def _read_pdu(self, deadline: float) -> None:
        self._fill(memoryview(self._buffer)[: _HEADER.size], deadline)
        kind, _, length = _HEADER.unpack_from(self._buffer)
        if kind == _TLS_HANDSHAKE:
            raise ProtocolError("the peer uses TLS, and this port is for DICOM without TLS (receiver.tls)")
        if not 1 <= kind <= 7:
            raise ProtocolError(f"PDU of unknown type {kind:#04x}")
        if length > self._longest(kind):
            raise ProtocolError(f"PDU of type {kind} declares {length} bytes, {self._longest(kind)} are allowed")
        end = _HEADER.size + length
        if end > len(self._buffer):
            self._buffer = self._buffer[: _HEADER.size] + bytes(length)
        self._fill(memoryview(self._buffer)[_HEADER.size : end], deadline)
        if kind == _P_DATA_TF and self.state_machine.current_state == "Sta6":
            # Action DT-2 (PS3.8 table 9-8) without the copies: the state stays the same.
            cast(BoundedMessages, self.assoc.dimse).receive_values(memoryview(self._buffer)[_HEADER.size : end])
            return
        try:
            pdu, event = self._decode_pdu(self._buffer[:end])
            primitive = pdu.to_primitive()  # as the state machine will; impossible values show here
        except Exception as error:  # pynetdicom's decoders raise many types on malformed PDUs
            raise ProtocolError(f"PDU of type {kind} cannot be decoded ({type(error).__name__})") from error
        if kind == _ASSOCIATE_RQ:
            _require_syntaxes(cast(A_ASSOCIATE, primitive))
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _longest(self, kind: int) -> int:
        if kind == _P_DATA_TF:
            return self._settings.max_pdu_bytes + _PDU_SLACK
        return _LONGEST_ASSOCIATE if kind == _ASSOCIATE_RQ else _LONGEST_OTHER

    def _fill(self, view: memoryview, deadline: float) -> None:
        connection = self._connection
        while view:
            try:
                taken = connection.recv_into(view) if connection is not None else 0
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or self._association.is_stopping:
                    raise TimeoutError from None
                wait_to_read(cast(socket.socket, connection), min(left, TICK_S))
                continue
            except OSError as error:
                raise _ConnectionLostError from error
            if taken == 0:
                raise _ConnectionLostError
            view = view[taken:]


def _require_syntaxes(request: A_ASSOCIATE) -> None:
    """Each context names its abstract and a transfer syntax (PS3.8 9.3.2.2); negotiation relies on it."""
    for context in request.presentation_context_definition_list:
        if not context.abstract_syntax or not context.transfer_syntax:
            what = "abstract syntax" if not context.abstract_syntax else "transfer syntax"
            raise ProtocolError(f"presentation context {context.context_id} names no {what}")


class BoundedMessages(DIMSEServiceProvider):
    """Assembles the messages of one association from their fragments (PS3.8 annex E).

    Parameters
    ----------
    association
        The association.
    settings : ReceiverSettings
        Limits.
    open_incoming : callable
        (association, context id, request) → the file for a data set that is about to arrive.
    """

    def __init__(
        self, association: Any, settings: ReceiverSettings, open_incoming: Callable[[Any, int, C_STORE], IncomingFile]
    ) -> None:
        super().__init__(association)
        self._settings, self._open_incoming = settings, open_incoming
        self._command = bytearray()
        self._request: tuple[int, Request] | None = None  # whose data set is being received
        self._data = bytearray()
        self.incoming: IncomingFile | None = None
        """The data set of the C-STORE request being received or served."""

    def receive_values(self, values: memoryview) -> None:
        """Process the presentation data values of one P-DATA-TF PDU.

        Raises
        ------
        ProtocolError
            They do not form a message that the node accepts.
        """
        while values:
            if len(values) < _PDV.size:
                raise ProtocolError("truncated presentation data value")
            length, context_id, control = _PDV.unpack_from(values)
            end = length + 4
            if length < 2 or end > len(values):
                raise ProtocolError(f"presentation data value of {length} bytes in a shorter PDU")
            if not self.msg_queue.empty():
                raise ProtocolError("a message before the previous one was answered")
            fragment = values[_PDV.size : end]
            if control & 1:
                self._add_command(context_id, fragment, last=bool(control & 2))
            else:
                self._add_data(context_id, fragment, last=bool(control & 2))
            values = values[end:]

    def _add_command(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        if self._request is not None:
            raise ProtocolError("a command within a data set")
        if len(self._command) + len(fragment) > _LONGEST_COMMAND:
            raise ProtocolError(f"command set of more than {_LONGEST_COMMAND} bytes")
        self._command += fragment
        if not last:
            return
        command, self._command = bytes(self._command), bytearray()
        try:
            request, has_data_set = decode_request(command)
        except ValueError as error:  # from here, or from pynetdicom's setters
            why = str(error) if isinstance(error, CommandError) else "impossible value in the command set"
            raise ProtocolError(why) from error
        if request is None:
            return  # C-CANCEL: no service here takes long enough
        if context_id not in self.assoc._accepted_cx:
            raise ProtocolError(f"presentation context {context_id} was not accepted")
        if not has_data_set:
            self.msg_queue.put((context_id, request))
            return
        self._request = context_id, request
        if isinstance(request, C_STORE):
            self.incoming = self._open_incoming(self.assoc, context_id, request)

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a response."""
        if not isinstance(primitive, C_STORE | C_ECHO):
            super().send_msg(primitive, context_id)
            return
        command = encode_response(primitive)
        if 0 < self.maximum_pdu_size < len(command) + _PDV.size:
            super().send_msg(primitive, context_id)  # the peer accepts only smaller fragments
            return
        pieces = P_DATA()
        pieces.presentation_data_value_list.append((context_id, bytes([_COMMAND_LAST]) + command))
        self.dul.send_pdu(pieces)

    def _add_data(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        if self._request is None:
            raise ProtocolError("data set without a command")
        if context_id != self._request[0]:
            raise ProtocolError("data set in another presentation context than its command")
        if self.incoming is not None:
            self.incoming.write(fragment)
            if self.incoming.size > self._settings.max_instance_bytes:
                raise ProtocolError(f"object of more than {self._settings.max_instance_bytes} bytes")
        else:
            self._data += fragment
            if len(self._data) > _LONGEST_INFORMATION:
                raise ProtocolError(f"action or event information of more than {_LONGEST_INFORMATION} bytes")
        if last:
            self._end_data(self._request[1])
            self.msg_queue.put(self._request)
            self._request = None

    def _end_data(self, request: Request) -> None:
        """Hand the data set of a request that is not an object to the request."""
        data, self._data = BytesIO(bytes(self._data)), bytearray()
        if isinstance(request, N_ACTION):
            request.ActionInformation = data
        elif isinstance(request, N_EVENT_REPORT):
            request.EventInformation = data

    def drop_incoming(self) -> None:
        """Remove what is left of a data set that was processed or never completed."""
        if self.incoming is not None:
            self.incoming.discard()
        self.incoming = None


def wait_to_read(connection: socket.socket, seconds: float) -> bool:
    """Wait until there is something to read; not with ``select``, which fails beyond 1024 open files."""
    if isinstance(connection, ssl.SSLSocket) and connection.pending():  # deciphered already
        return True
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return bool(poller.poll(max(0.0, seconds) * 1000))


def linger(connection: socket.socket) -> None:
    """Let the last bytes sent reach the peer: closing a socket with unread input would discard them."""
    deadline, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while left > 0 and time.monotonic() < deadline:
            if not wait_to_read(connection, _LINGER_S):
                return
            taken = len(connection.recv(65_536))
            if taken == 0:
                return
            left -= taken
