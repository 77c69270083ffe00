"""How are bytes read from the network without trusting them? pynetdicom's protocol machine, bounded, not polling.

pynetdicom 3.0 believes the length a PDU declares (4 GiB from a stranger), waits for the rest of it for ever, keeps a
whole message in memory, reads on while earlier messages wait, and runs two threads an association that look for work
every millisecond. The two classes here replace its reading side and leave the state machine of PS3.8 chapter 9, the
encoding of answers and the service classes to it:

* :class:`BoundedUpperLayer` checks a PDU's length before it takes a single byte of it, gives it a limited time to be
  complete, and is driven by its association's own thread, which sleeps in ``poll`` until there is something to read;
* :class:`BoundedMessages` writes a data set to disk while it arrives and stops one that does not end.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from node.archive import IncomingFile
from node.command_sets import CommandError, decode_request, encode_response
from node.config import ReceiverSettings

TICK_S = 0.25
"""Longest sleep before a thread looks at its clocks and at a wish to stop."""
_HEADER = struct.Struct(">BBL")
_PDV = struct.Struct(">LBB")
_ASSOCIATE_RQ, _P_DATA_TF = 0x01, 0x04
_LONGEST_ASSOCIATE = 262_144  # 128 presentation contexts with every transfer syntax there is take 150 kB
_LONGEST_OTHER = 1024  # release and abort have 4 bytes, reject too
_PDU_SLACK = 1024  # some senders do not count the headers of PDVs against the negotiated length
_COMMAND_LAST = 0x03  # message control header of PS3.8 E.2: command, last fragment
_LONGEST_COMMAND = 16_384
_LINGER_S, _LINGER_BYTES = 0.5, 1_048_576


class ProtocolError(Exception):
    """The peer broke the rules; the text says which, and holds nothing of what was sent."""


class _ConnectionLostError(Exception):
    """The peer closed the connection, or the network did. Not an OSError: those come from our own disk, too."""


class BoundedUpperLayer(DULServiceProvider):
    """The upper layer of one association that was requested by a peer. Not a running thread: see :meth:`step`."""

    def __init__(self, association: Any, settings: ReceiverSettings) -> None:
        super().__init__(association)
        self._association, self._settings = association, settings
        self._buffer = bytearray(_HEADER.size)
        self.refusal = ""
        """Why the last PDU was refused, for the log."""

    @property
    def finished(self) -> bool:
        """Whether the connection is over."""
        return self._kill_thread

    @property
    def _connection(self) -> socket.socket | None:
        return cast(AssociationSocket, self.socket).socket

    def step(self) -> None:
        """Do one thing: send what is to be sent, or read one PDU; returns after :data:`TICK_S` at the latest."""
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        elif self.event_queue.empty() and not self._process_recv_primitive():
            if self.state_machine.current_state == "Sta13":
                self._linger()
                cast(AssociationSocket, self.socket).close()
            else:
                self._read_if_ready()
        if not self.event_queue.empty():
            self.state_machine.do_action(self.event_queue.get())

    def _read_if_ready(self) -> None:
        connection = self._connection
        if connection is None:
            self.event_queue.put("Evt17")
        elif _wait(connection, TICK_S):
            self._read_pdu_data()
            self._idle_timer.restart()

    def _read_pdu_data(self) -> None:
        """Read one PDU, or find out why not."""
        deadline = time.monotonic() + self._settings.idle_timeout_s
        if self.state_machine.current_state == "Sta2":  # a stranger has until the ARTIM timer to say who it is
            deadline = time.monotonic() + self.artim_timer.remaining
        try:
            self._take_pdu(deadline)
        except ProtocolError as error:
            self.refusal = str(error)
            self.event_queue.put("Evt19")
        except TimeoutError:
            self.refusal = "a PDU was not complete in time"
            self.event_queue.put("Evt18" if self.state_machine.current_state == "Sta2" else "Evt19")
        except _ConnectionLostError:
            self.event_queue.put("Evt17")

    def _take_pdu(self, deadline: float) -> None:
        self._fill(memoryview(self._buffer)[: _HEADER.size], deadline)
        kind, _, length = _HEADER.unpack_from(self._buffer)
        if not 1 <= kind <= 7:
            raise ProtocolError(f"PDU of unknown type {kind:#04x}")
        if length > self._longest(kind):
            raise ProtocolError(f"PDU of type {kind} declares {length} bytes, {self._longest(kind)} are allowed")
        whole = _HEADER.size + length
        if whole > len(self._buffer):
            self._buffer = self._buffer[: _HEADER.size] + bytes(length)
        self._fill(memoryview(self._buffer)[_HEADER.size : whole], deadline)
        if kind == _P_DATA_TF and self.state_machine.current_state == "Sta6":
            # Action DT-2 (PS3.8 table 9-8) without the copies: the state stays the same.
            cast(BoundedMessages, self.assoc.dimse).receive_values(memoryview(self._buffer)[_HEADER.size : whole])
            return
        try:
            pdu, event = self._decode_pdu(self._buffer[:whole])
        except Exception as error:  # pynetdicom's decoders raise whatever strange bytes make them raise
            raise ProtocolError(f"PDU of type {kind} cannot be decoded ({type(error).__name__})") from error
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
                _wait(cast(socket.socket, connection), min(left, TICK_S))
                continue
            except OSError as error:
                raise _ConnectionLostError from error
            if taken == 0:
                raise _ConnectionLostError
            view = view[taken:]

    def _linger(self) -> None:
        """Let the last PDU reach the peer: closing with unread bytes in the buffer would destroy it on its way."""
        connection = self._connection
        if connection is None:
            return
        deadline, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic() < deadline:
                if not _wait(connection, _LINGER_S):
                    return
                taken = len(connection.recv(65_536))
                if taken == 0:
                    return
                left -= taken


class BoundedMessages(DIMSEServiceProvider):
    """Puts the messages of one association together from their pieces (PS3.8 annex E).

    Parameters
    ----------
    association
        The association.
    settings : ReceiverSettings
        Limits.
    open_incoming : callable
        Gives the file for a data set that is about to arrive, from its association, context id and request.
    """

    def __init__(
        self, association: Any, settings: ReceiverSettings, open_incoming: Callable[[Any, int, C_STORE], IncomingFile]
    ) -> None:
        super().__init__(association)
        self._settings, self._open_incoming = settings, open_incoming
        self._command = bytearray()
        self._request: tuple[int, C_STORE] | None = None
        self.incoming: IncomingFile | None = None
        """The data set of the C-STORE request being received or served."""

    def receive_values(self, values: memoryview) -> None:
        """Take the presentation data values of one P-DATA-TF PDU.

        Raises
        ------
        ProtocolError
            They make no message this node takes, or one that does not end.
        """
        while values:
            if len(values) < _PDV.size:
                raise ProtocolError("a cut off presentation data value")
            length, context_id, control = _PDV.unpack_from(values)
            end = length + 4
            if length < 2 or end > len(values):
                raise ProtocolError(f"a presentation data value of {length} bytes in a shorter PDU")
            if not self.msg_queue.empty():
                raise ProtocolError("a message before the one before it was answered")
            fragment = values[_PDV.size : end]
            if control & 1:
                self._take_command(context_id, fragment, last=bool(control & 2))
            else:
                self._take_data(context_id, fragment, last=bool(control & 2))
            values = values[end:]

    def _take_command(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        if self._request is not None:
            raise ProtocolError("a command inside a data set")
        if len(self._command) + len(fragment) > _LONGEST_COMMAND:
            raise ProtocolError(f"a command of more than {_LONGEST_COMMAND} bytes")
        self._command += fragment
        if not last:
            return
        whole, self._command = bytes(self._command), bytearray()
        try:
            request, has_data_set = decode_request(whole)
        except ValueError as error:  # ours, or of pynetdicom's setters
            why = str(error) if isinstance(error, CommandError) else "a command with impossible values"
            raise ProtocolError(why) from error
        if request is None:
            return  # a cancel: nothing here takes long enough
        if context_id not in self.assoc._accepted_cx:
            raise ProtocolError(f"presentation context {context_id} was not accepted")
        if isinstance(request, C_STORE) and has_data_set:
            self._request = context_id, request
            self.incoming = self._open_incoming(self.assoc, context_id, request)
        else:
            self.msg_queue.put((context_id, request))

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send an answer."""
        command = encode_response(primitive)
        if 0 < self.maximum_pdu_size < len(command) + _PDV.size:
            super().send_msg(primitive, context_id)  # a peer that wants it in pieces
            return
        pieces = P_DATA()
        pieces.presentation_data_value_list.append((context_id, bytes([_COMMAND_LAST]) + command))
        self.dul.send_pdu(pieces)

    def _take_data(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        if self._request is None or self.incoming is None:
            raise ProtocolError("a data set without a command")
        if context_id != self._request[0]:
            raise ProtocolError("a data set in another presentation context than its command")
        self.incoming.write(fragment)
        if self.incoming.size > self._settings.max_instance_bytes:
            raise ProtocolError(f"an object of more than {self._settings.max_instance_bytes} bytes")
        if last:
            self.msg_queue.put(self._request)
            self._request = None

    def drop_incoming(self) -> None:
        """Remove what is left of a data set: it was dealt with, or never came to its end."""
        if self.incoming is not None:
            self.incoming.discard()
        self.incoming = None


def _wait(connection: socket.socket, seconds: float) -> bool:
    """Sleep until there is something to read; not ``select``, which fails beyond 1024 open files."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return bool(poller.poll(max(0.0, seconds) * 1000))
