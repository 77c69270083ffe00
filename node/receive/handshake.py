"""How does a connection to the TLS port become secure? A handshake within a time limit, and the peer's name checked."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable

from node.tls.contexts import ServerContext, check_peer_address, common_names

from .upper_layer import TICK_S, linger


def accept_tls(
    connection: socket.socket, tls: ServerContext, peer: str, deadline: float, is_stopping: Callable[[], bool]
) -> tuple[ssl.SSLSocket, dict[str, str]]:
    """Do the handshake of a connection that does not block.

    Parameters
    ----------
    peer : str
        Address of the other side.
    deadline : float
        Time on the monotonic clock by which it must be done.

    Returns
    -------
    connection : ssl.SSLSocket
        The secure connection, which takes the place of the other.
    facts : dict
        TLS version and the Common Name of the peer's certificate, for the log.

    Raises
    ------
    OSError
        There is no secure connection; :func:`node.tls.contexts.explain_tls` says why.
    """
    secure = tls.current().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    try:
        _handshake(secure, deadline, is_stopping)
        certificate = secure.getpeercert() or {}
        if tls.settings.check_name:
            check_peer_address(certificate, peer)
    except OSError:
        linger(secure)  # until the peer has read the alert that says why
        secure.close()
        raise
    facts = {"tls": secure.version() or ""}
    return secure, facts | ({"certificate": ", ".join(common_names(certificate))} if certificate else {})


def _handshake(connection: ssl.SSLSocket, deadline: float, is_stopping: Callable[[], bool]) -> None:
    while True:
        try:
            connection.do_handshake()
            return
        except ssl.SSLWantReadError:
            event = select.POLLIN
        except ssl.SSLWantWriteError:
            event = select.POLLOUT
        poller = select.poll()
        poller.register(connection, event)
        while not poller.poll(TICK_S * 1000):
            if is_stopping() or time.monotonic() > deadline:
                raise TimeoutError
