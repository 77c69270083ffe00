"""What protects every request to the worklist? Security headers, a limit for bodies, allowed host names."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from node.settings import WorklistSettings
from node.settings import is_loopback as is_loopback

from .proxy_sign_in import PeerAddress

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
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
    """ASGI middleware: security headers on every response; ``no-store`` unless the response says otherwise.

    Parameters
    ----------
    form_target : str
        Origin that forms may lead to besides this node; empty: none.
    """

    def __init__(self, app: ASGIApp, form_target: str = "") -> None:
        self._app = app
        policy = _POLICY.replace("form-action 'self'", f"form-action 'self' {form_target}".rstrip())
        self._headers = {**_NO_STORE, **_HEADERS, b"content-security-policy": policy.encode()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add headers to the response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                missing = ((name, value) for name, value in self._headers.items() if name not in given)
                message["headers"] = [*message["headers"], *missing]
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


def harden(app: FastAPI, settings: WorklistSettings) -> None:
    """Add the security headers, the limit for bodies, the check of the Host header, and whom proxies speak for.

    On loopback the server answers to loopback names and `hosts` only, so that no web page can reach it under a name of
    its own (DNS rebinding). Elsewhere without `hosts`: to any, since the node cannot know its names.
    """
    allowed = [*LOOPBACK, *settings.hosts] if settings.hosts or is_loopback(settings.host) else ["*"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False)
    app.add_middleware(LimitedBody, except_below=f"{DICOMWEB}/")
    app.add_middleware(SecurityHeaders, form_target=_sign_out_origin(settings))
    trusted = ["127.0.0.1", "::1", *map(str, settings.all_proxies)]
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=trusted)
    app.add_middleware(PeerAddress)  # outermost: before X-Forwarded-For is read


def _sign_out_origin(settings: WorklistSettings) -> str:
    """Where the form *Sign out* may lead besides this node: browsers refuse to follow a form's redirect elsewhere."""
    url = urlsplit((settings.proxy_sign_in and settings.proxy_sign_in.sign_out_url) or "")
    return f"{url.scheme}://{url.netloc}" if url.netloc else ""
