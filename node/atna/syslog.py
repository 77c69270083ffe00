"""How does a message reach the audit repository? By syslog (RFC 5424), over TLS, TCP or UDP (RFC 5425, 6587, 5426).

Syslog knows no acknowledgement. So every batch has a connection of its own, which the node ends as TLS and TCP end one,
and waits until the repository has ended it too: it has then read everything before. A repository that is killed or
hangs, or refuses the node's certificate, does not end it like that, and the batch is sent again.
"""

from __future__ import annotations

import os
import re
import select
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from node.settings.audit_repository import AuditRepositorySettings
from node.text import one_line
from node.tls.contexts import client_context, explain_tls

from .message import Outcome

PLAIN = 'set transport = "tcp", or use its port for TLS'
OWN = "audit_repository.certificate"
REFUSAL_S = 0.5
"""How long a repository may take to refuse the node's certificate for the log to say so, in seconds."""
LONGEST_DATAGRAM = 65_507
"""What a UDP datagram holds."""
_FACILITY = 10  # security and authorization messages
_SEVERITIES = {Outcome.SUCCESS: 5, Outcome.MINOR_FAILURE: 4, Outcome.SERIOUS_FAILURE: 3}
_BOM = b"\xef\xbb\xbf"


class NotReceivedError(Exception):
    """The repository cannot be reached, or did not confirm that it has read everything; the text says why."""


@dataclass(frozen=True)
class SyslogMessage:
    """A message for the repository.

    Parameters
    ----------
    content : bytes
        XML.
    """

    content: bytes
    outcome: Outcome = Outcome.SUCCESS

    def to_bytes(self, now: datetime, host_name: str) -> bytes:
        """The message as RFC 5424 and PS3.15 A.6 have it."""
        at = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        host = re.sub(r"[^\x21-\x7e]", "", host_name)[:255] or "-"
        head = f"<{_FACILITY * 8 + _SEVERITIES[self.outcome]}>1 {at} {host} cmb-node {os.getpid()} DICOM+RFC3881 - "
        return head.encode() + _BOM + self.content


@dataclass(frozen=True)
class SyslogRepository:
    """An audit repository."""

    settings: AuditRepositorySettings

    def send(self, messages: Sequence[SyslogMessage]) -> None:
        """Send messages, in order.

        Raises
        ------
        NotReceivedError
            If it is not certain that all of them arrived.
        ConfigError
            If the certificates of the settings cannot be used.
        """
        now, host = datetime.now(UTC), socket.gethostname()
        ready = [message.to_bytes(now, host) for message in messages]
        if self.settings.transport == "udp":
            self._send_datagrams(ready)
            return
        with self._connect() as connection:
            connection.sendall(b"".join(b"%d %b" % (len(one), one) for one in ready))  # RFC 5425 4.3
            _end(connection)

    def check(self) -> str:
        """See whether the repository answers, without sending anything; raises as :meth:`send` does."""
        if self.settings.transport == "udp":
            self._send_datagrams([])
            return "has an address; nothing more can be known by UDP"
        with self._connect() as connection:
            _end(connection)
        return "answers"

    def _send_datagrams(self, messages: Sequence[bytes]) -> None:
        settings = self.settings
        try:
            found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as sender:
                sender.settimeout(settings.timeout_s)
                sender.connect(address)
                for message in messages:
                    sender.send(message[:LONGEST_DATAGRAM])
        except OSError as error:
            raise NotReceivedError(_explain(error)) from error

    @contextmanager
    def _connect(self) -> Iterator[socket.socket]:
        settings = self.settings
        context = client_context(settings) if settings.transport == "tls" else None
        try:
            with socket.create_connection((settings.host, settings.port), settings.timeout_s) as plain:
                if context is None:
                    yield plain
                    return
                with _secure(context, plain, settings.host) as secure:
                    _hear_refusal(secure)
                    yield secure
        except OSError as error:
            raise NotReceivedError(_explain(error)) from error


def _secure(context: ssl.SSLContext, plain: socket.socket, host: str) -> ssl.SSLSocket:
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except OSError as error:
        raise NotReceivedError(f"no TLS connection: {explain_tls(error, plain=PLAIN, own=OWN)}") from error


def _hear_refusal(connection: ssl.SSLSocket) -> None:
    """Wait for the session tickets, or for the alert that the node's certificate is refused.

    In TLS 1.3 the handshake has ended for the client when the server begins to check. Once the node has written, a
    refusal is often only a reset connection, which does not say why. A server that sends no tickets costs the wait.
    """
    timeout_s = connection.gettimeout()
    if connection.version() == "TLSv1.3" and select.select([connection], [], [], REFUSAL_S)[0]:
        connection.setblocking(False)
        try:
            if connection.recv(1) == b"":
                raise ConnectionResetError
        except ssl.SSLWantReadError:
            pass
        finally:
            connection.settimeout(timeout_s)


def _end(connection: socket.socket) -> None:
    """End a connection, and wait until the other side has read everything and ends it too."""
    if isinstance(connection, ssl.SSLSocket):
        try:
            connection.unwrap()  # sends close_notify and waits for the answer, as RFC 5425 4.4 wants it
        except ssl.SSLEOFError:  # it ends the connection without an answer
            return
    else:
        connection.shutdown(socket.SHUT_WR)
    while connection.recv(4096):
        pass


def _explain(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "does not answer in time, or does not end the connection"
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
        return "ended the connection before it had read everything"
    if isinstance(error, ssl.SSLError):
        return f"no TLS connection: {explain_tls(error, plain=PLAIN, own=OWN)}"
    return one_line(f"cannot be reached ({error.strerror or error})")
