"""What protects every request to the worklist? Security headers, a limit for bodies, allowed host names."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.settings import is_loopback as is_loopback

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-frame-options": b"DENY",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",  # not stricter: a form of this node must carry its Origin
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
}
_NO_STORE = {b"cache-control": b"no-store"}  # keeps patient data out of shared caches and off the disk
LONGEST_BODY = 262_144
"""Largest request body, bytes: more than any form of the page holds."""
DICOMWEB = "/dicomweb"
"""Path of the DICOMweb services, which limit the bodies of their requests themselves."""
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


class SecurityHeaders:
    """ASGI middleware: security headers on every response; ``no-store`` unless the response says otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add headers to the response."""
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
    """ASGI middleware: 413 for a request body larger than :data:`LONGEST_BODY`, except below one path."""

    def __init__(self, app: ASGIApp, except_below: str) -> None:
        self._app, self._except_below = app, except_below

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the bytes that arrive, whatever Content-Length says."""
        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LONGEST_BODY:
                raise HTTPException(413, "The request is too large.")
            return message

        is_limited = scope["type"] == "http" and not scope["path"].startswith(self._except_below)
        await self._app(scope, receive_some if is_limited else receive, send)


def harden(app: FastAPI, listening_on: str, hosts: Sequence[str]) -> None:
    """Add the security headers, the limit for bodies, and the check of the Host header.

    Parameters
    ----------
    app : FastAPI
        The application.
    listening_on : str
        Address the server listens on. On loopback it answers to loopback names only, so that no web page can reach
        it under a name of its own (DNS rebinding).
    hosts : sequence of str
        Further host names to answer to. If empty and not on loopback: any, since the node cannot know its names.
    """
    allowed = [*LOOPBACK, *hosts] if hosts or is_loopback(listening_on) else ["*"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False)
    app.add_middleware(LimitedBody, except_below=f"{DICOMWEB}/")
    app.add_middleware(SecurityHeaders)
