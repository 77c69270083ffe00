"""What does every answer of the worklist carry so that a hostile name or page can do nothing?"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.config import is_loopback as is_loopback

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",  # not less: a form of ours must carry its Origin
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
}
_NO_STORE = {b"cache-control": b"no-store"}  # patient data stays out of shared caches and the disk
LONGEST_BODY = 262_144
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


class SecurityHeaders:
    """ASGI middleware: security headers on every answer; ``no-store`` unless the answer says otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add headers to what comes back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                wanted = {**_NO_STORE, **_HEADERS}
                message["headers"] = [*message["headers"], *((n, v) for n, v in wanted.items() if n not in given)]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class LimitedBody:
    """ASGI middleware: 413 for a request that sends more than a form of ours can hold."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the bytes that come in, whatever their number is said to be."""
        taken = 0

        async def receive_some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LONGEST_BODY:
                raise HTTPException(413, "More was sent than a form of this page can hold.")
            return message

        await self._app(scope, receive_some if scope["type"] == "http" else receive, send)


def harden(app: FastAPI, listening_on: str, hosts: Sequence[str]) -> None:
    """Add the headers and the check of the Host header.

    Parameters
    ----------
    app : FastAPI
        The application.
    listening_on : str
        Address the server listens on. On loopback only loopback names are answered, so that no web page can reach
        it under a name of its own (DNS rebinding).
    hosts : sequence of str
        Further host names to answer to. Empty, and not on loopback: any, for the node cannot know its names.
    """
    allowed = [*LOOPBACK, *hosts] if hosts or is_loopback(listening_on) else ["*"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False)
    app.add_middleware(LimitedBody)
    app.add_middleware(SecurityHeaders)
