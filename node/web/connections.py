"""How long may a client take, and how many may be connected? uvicorn limits neither.

Without these limits, clients that send their headers a byte at a time (slowloris), or never read their response, hold
connections for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

REQUEST_S = 20.0
"""A connection is closed if a complete request, body included, has not arrived within this time."""
RESPONSE_S = 300.0
"""A connection is closed if the client has not read the response within this time."""
MOST_CONNECTIONS = 256
"""Further connections are closed at once."""
UPLOAD = "cmbnode.upload"
"""ASGI extension: a function that lifts :data:`REQUEST_S` for this request. Its caller limits each wait itself."""


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP protocol with a time limit for requests and responses, and a limit for open connections."""

    _timer: asyncio.TimerHandle | None = None
    _is_answering = False
    _upload: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first request, or close a connection beyond the limit."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time limit."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Read what has arrived, and set the time limit; uvicorn also calls this after each response."""
        super().handle_events()
        if self.scope is not None:
            cast(dict[str, Any], self.scope).setdefault("extensions", {})[UPLOAD] = self._allow_upload
        self._set_timer()

    def on_response_complete(self) -> None:
        """The client's turn again, also if it has not sent all of its request."""
        super().on_response_complete()
        self._set_timer()

    def _allow_upload(self) -> None:
        self._upload = self.cycle
        self._set_timer()

    def _set_timer(self) -> None:
        """Start a time limit when the client's turn changes: sending a request, reading a response."""
        cycle = self.cycle
        is_answering = cycle is not None and not cycle.more_body and not cycle.response_complete
        is_answering |= self.transport.get_write_buffer_size() > 0
        if cycle is not None and cycle is self._upload and cycle.more_body and not cycle.response_complete:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        if self._timer is not None:
            if is_answering is self._is_answering:
                return
            self._timer.cancel()
        self._is_answering = is_answering
        self._timer = self.loop.call_later(RESPONSE_S if is_answering else REQUEST_S, self.transport.abort)
