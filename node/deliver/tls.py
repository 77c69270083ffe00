"""How does a connection that the node opens use TLS, and how is it known why it failed?"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from node.settings import ConfigError
from node.settings.connections import TlsSettings
from node.tls.contexts import client_context

from .base import Unreachable


def tls_context(settings: TlsSettings) -> ssl.SSLContext:
    """Make the TLS context that the settings describe, with the certificates as they are now.

    Raises
    ------
    Unreachable
        If a file in the settings does not contain a certificate or key.
    """
    try:
        return client_context(settings)
    except ConfigError as error:
        raise Unreachable(f"{settings.address}: {error}") from error


class TlsFailures:
    """Remembers the first error of the connections of a context; pynetdicom only logs it.

    A peer that refuses the node's certificate says so when the node reads, after its own side of the handshake.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.first: OSError | None = None
        failures = self

        class Connection(ssl.SSLSocket):
            def do_handshake(self, block: bool = False) -> None:
                with failures.noting():
                    super().do_handshake(block)

            def recv(self, *given: Any) -> bytes:
                with failures.noting():
                    return super().recv(*given)

        context.sslsocket_class = Connection

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note an error of TLS that leaves the block."""
        try:
            yield
        except (ssl.SSLError, ConnectionError, TimeoutError) as error:
            self.first = self.first or error
            raise
