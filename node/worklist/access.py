"""Who asks, may they, and did they mean to? Sessions, roles, protection against forged requests, the audit.

A browser holds one random token in a cookie from its first page on; signing in gives it a new one. The ledger knows a
token by its SHA-256 only. The token of a form derives from the cookie's (HMAC), so another site can know neither.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.ledger.access_records import Account, Action, Role
from node.worklist.context import context_of

POLL = "x-poll"
"""Header of a page that asks for itself again: no sign of a person, neither for the session nor for the audit."""

_PASSED_ON = ("x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded")
_SAFE = ("GET", "HEAD", "OPTIONS")
_TOKEN_BYTES = 32
_TOKEN_LENGTH = 43  # of so many bytes in URL-safe base64


@dataclass(frozen=True)
class User:
    """Who asks."""

    name: str
    display_name: str
    role: Role

    @property
    def reads(self) -> bool:
        """May accept, reject and add findings."""
        return self.role.may_act_as(Role.READER)

    @property
    def administers(self) -> bool:
        """May see the audit."""
        return self.role.may_act_as(Role.ADMINISTRATOR)


LOCAL = User("local", "local user", Role.ADMINISTRATOR)
"""Everybody, where nobody signs in."""


class NotSignedInError(HTTPException):
    """Nobody is signed in, and somebody has to be."""

    def __init__(self) -> None:
        super().__init__(401, "Sign in first.", {"WWW-Authenticate": "Bearer"})


def must_sign_in(request: Request) -> bool:
    """Say whether this request needs somebody who has signed in.

    Where nothing is set and the node listens on loopback, a request that a proxy passed on still does: behind a proxy
    that nobody told the node of, the whole hospital would be this machine.
    """
    part = context_of(request).settings.worklist
    return part.requires_sign_in or (part.sign_in is None and any(name in request.headers for name in _PASSED_ON))


def new_token() -> str:
    """A token that nobody can guess: 256 random bits."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def token_hash(token: str) -> str:
    """What the ledger keeps of a token. It is random already, so a fast hash does."""
    return hashlib.sha256(token.encode()).hexdigest()


def user_of(account: Account) -> User:
    """The user behind an account."""
    return User(account.name, account.display_name or account.name, account.role)


def current_user(request: Request) -> User | None:
    """Who asks: the holder of a program's token or of a session; everybody is :data:`LOCAL` where nobody signs in."""
    shared = context_of(request)
    user: User | None = LOCAL
    if must_sign_in(request):
        held = _bearer(request.headers) or token_of(request)
        account = shared.ledger.session_account(
            token_hash(held), shared.settings.worklist.session_idle_s, used=POLL not in request.headers
        )
        user = user_of(account) if account is not None else None
    request.state.user = user
    return user


def _bearer(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def token_of(request: Request) -> str:
    """The token of the browser that asks; :class:`Visits` has seen to it that there is one."""
    token: str = request.state.token
    return token


class _AtLeast:
    """Dependency: a user of at least this role."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def __call__(self, user: Annotated[User | None, Depends(current_user)]) -> User:
        if user is None:
            raise NotSignedInError
        if not user.role.may_act_as(self._role):
            raise HTTPException(403, f"This takes the role {self._role}; you are signed in as {user.role}.")
        return user


viewer = _AtLeast(Role.VIEWER)
"""What every page and the API ask for before anything else."""

Viewer = Annotated[User, Depends(viewer)]
Reader = Annotated[User, Depends(_AtLeast(Role.READER))]
Administrator = Annotated[User, Depends(_AtLeast(Role.ADMINISTRATOR))]


def csrf_token(request: Request) -> str:
    """The token that every form of this browser carries, as the field or header that :func:`check_csrf` reads."""
    return hmac.new(token_of(request).encode(), b"form", hashlib.sha256).hexdigest()


async def check_csrf(request: Request) -> None:
    """Refuse a request that changes something unless a page of this node made it.

    The Origin header must name this node, and the field ``csrf_token`` (or header ``X-CSRF-Token``) must be the
    browser's. A program that shows its token is no browser and needs neither.
    """
    if request.method in _SAFE or _bearer(request.headers):
        return
    if not _same_origin(request):
        raise HTTPException(403, "This request came from another site.")
    given = request.headers.get("x-csrf-token") or (await request.form()).get("csrf_token")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), csrf_token(request).encode()):
        raise HTTPException(403, "This page is out of date. Go back, reload it and try again.")


def _same_origin(request: Request) -> bool:
    origin = request.headers.get("origin")
    if origin is None:  # not sent by every browser; then it says so in another way, or the token decides
        return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    own = urlsplit(context_of(request).settings.worklist.url or "").netloc
    return urlsplit(origin).netloc in {request.headers.get("host", ""), own} - {""}


def audit(
    request: Request, action: Action, study_uid: str = "", detail: str = "", *, once_within_s: float = 0.0
) -> None:
    """Write down what the user did; a page that only asks for itself again is not written down.

    `once_within_s`: nothing is written if the same was within so many seconds.
    """
    user: User | None = getattr(request.state, "user", None)
    if POLL in request.headers or user is None:
        return
    context_of(request).ledger.record_access(
        user.name, action, study_uid, detail, address_of(request), once_within_s=once_within_s
    )


def address_of(request: Request) -> str:
    """Where the request came from; behind a trusted proxy, where the proxy got it from."""
    return request.client.host if request.client is not None else ""


def template_values(request: Request) -> dict[str, Any]:
    """What every template may ask for: who is signed in, the token of its forms, whether anyone may look."""
    part = context_of(request).settings.worklist
    return {
        "user": getattr(request.state, "user", None),
        "signs_in": must_sign_in(request),
        "open_to_all": part.open_to_all,
        "csrf_token": csrf_token(request),
    }


class Visits:
    """ASGI middleware: every browser has a token, in a cookie that no script and no other site can use."""

    def __init__(self, app: ASGIApp, secure: bool) -> None:
        self._app, self._secure = app, secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the cookie, or make one and send it with the first page."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        secure = self._secure or request.url.scheme == "https"
        held = request.cookies.get(cookie_name(secure), "")
        request.state.secure = secure
        request.state.token = held if len(held) == _TOKEN_LENGTH else new_token()

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                is_page = headers.get("content-type", "").startswith("text/html")
                if request.state.token != held and (is_page or "location" in headers):
                    headers.append("set-cookie", _cookie(secure, request.state.token))
            await send(message)

        await self._app(scope, receive, send_with_cookie)


def renew_token(request: Request) -> str:
    """Give the browser another token, with the answer to this request; nothing that knew the old one knows it."""
    token: str = new_token()
    request.state.token = token
    return token


def cookie_name(secure: bool) -> str:
    """Name of the cookie. With this prefix a browser refuses it from any other host (RFC 6265bis 4.1.3.2)."""
    return "__Host-cmbnode" if secure else "cmbnode"


def _cookie(secure: bool, token: str) -> str:
    return f"{cookie_name(secure)}={token}; Path=/; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"
