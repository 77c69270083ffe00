"""Who sends a request, may they, and does it come from this node's own pages? Sessions, roles, origin.

A browser that has signed in holds one random token in a cookie; the ledger knows it by its SHA-256 only. A visitor who
has not signed in gets no cookie.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request, Response

from node.roles import UserRole

from .context import context_of
from .proxy_sign_in import identify, is_from_proxy
from .security import DICOMWEB

POLL = "x-poll"
"""Header of a page that reloads itself: no sign of a person, so the session becomes idle. See also :mod:`.audit`."""

_PROXY_HEADERS = ("x-forwarded-for", "x-forwarded-host", "x-real-ip", "forwarded")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_TOKEN_BYTES = 32


@dataclass(frozen=True)
class User:
    """Who sends the request."""

    name: str
    display_name: str
    role: UserRole
    by_proxy: bool = False  # a trusted proxy has signed the user in

    @property
    def can_correct(self) -> bool:
        """Whether this user may accept, reject and add findings."""
        return self.role.may_act_as(UserRole.READER)

    @property
    def can_administer(self) -> bool:
        """Whether this user may see the audit and the administrator's page."""
        return self.role.may_act_as(UserRole.ADMINISTRATOR)


LOCAL = User("not signed in", "local user", UserRole.ADMINISTRATOR)
"""Everyone, where sign-in is switched off. No account can have this name: it contains spaces."""


class NotSignedInError(HTTPException):
    """The request needs a user and has none."""

    def __init__(self) -> None:
        super().__init__(401, "Sign in first.", {"WWW-Authenticate": "Bearer"})


def must_sign_in(request: Request) -> bool:
    """Whether this request needs a user who has signed in.

    Where sign-in is switched off, a request that a proxy forwarded needs one all the same: it comes from elsewhere.
    """
    is_forwarded = any(name in request.headers for name in _PROXY_HEADERS)
    return context_of(request).settings.worklist.sign_in or is_forwarded


def new_token() -> str:
    """Make a token of 256 random bits."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def token_hash(token: str) -> str:
    """Hash a token for the ledger. A fast hash is enough for a random token."""
    return hashlib.sha256(token.encode()).hexdigest()


def current_user(request: Request) -> User | None:
    """Who sends the request, as a trusted proxy says, or by a program's token or a browser's session.

    :data:`LOCAL` where sign-in is switched off.
    """
    user = (_proxy_user(request) or _token_user(request)) if must_sign_in(request) else LOCAL
    request.state.user = user
    return user


def _proxy_user(request: Request) -> User | None:
    shared = context_of(request)
    found = identify(request, shared, address_of(request))
    return User(found.name, found.display_name, found.role, by_proxy=True) if found is not None else None


def _token_user(request: Request) -> User | None:
    shared = context_of(request)
    token = bearer_token(request) or (session_token(request) if has_passwords(request) else "")
    account = shared.ledger.session_account(
        token_hash(token), shared.settings.worklist.session_idle_s, used=POLL not in request.headers
    )
    return None if account is None else User(account.name, account.display_name or account.name, account.role)


def has_passwords(request: Request) -> bool:
    """Whether users may sign in with a password."""
    proxy = context_of(request).settings.worklist.proxy_sign_in
    return proxy is None or proxy.passwords


def bearer_token(request: Request) -> str:
    """The token that a program shows; empty without one."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


class _RequireRole:
    """Dependency: a user of at least this role."""

    def __init__(self, role: UserRole) -> None:
        self._role = role

    def __call__(self, user: Annotated[User | None, Depends(current_user)]) -> User:
        if user is None:
            raise NotSignedInError
        if not user.role.may_act_as(self._role):
            raise HTTPException(403, f"This requires the role {self._role}; you are signed in as {user.role}.")
        return user


viewer = _RequireRole(UserRole.VIEWER)
"""What every page and the API require before anything else."""

Viewer = Annotated[User, Depends(viewer)]
Reader = Annotated[User, Depends(_RequireRole(UserRole.READER))]
Administrator = Annotated[User, Depends(_RequireRole(UserRole.ADMINISTRATOR))]


async def check_origin(request: Request) -> None:
    """Refuse a request that changes something unless it comes from a page of this node (CSRF).

    Every current browser says in ``Sec-Fetch-Site`` which site made a request, where the node has HTTPS or a loopback
    address; over plain HTTP it still names the page's site in ``Origin``. A page can forge neither header. A program
    that shows its token in ``Authorization`` is exempt: no browser adds that header for another site. A proxy that
    signs users in may add it to every request, so what comes from there is not exempt. DICOMweb is exempt: it knows no
    cookies.
    """
    is_exempt = request.method in _SAFE_METHODS or request.url.path.startswith(f"{DICOMWEB}/")
    proxy = context_of(request).settings.worklist.proxy_sign_in
    is_program = bool(bearer_token(request)) and not (proxy is not None and is_from_proxy(request, proxy))
    if is_exempt or is_program or _is_same_origin(request):
        return
    raise HTTPException(
        403,
        "This request does not come from a page of this node. Reload the page and try again.",
    )


def _is_same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")  # none: the user reloads the page or types its address
    source = request.headers.get("origin") or request.headers.get("referer", "")
    own = urlsplit(context_of(request).settings.worklist.url or "").netloc
    try:
        return urlsplit(source).netloc in {request.headers.get("host", ""), own} - {""}
    except ValueError:
        return False


def address_of(request: Request) -> str:
    """The client's address; behind a trusted proxy, the address that the proxy names."""
    return request.client.host if request.client is not None else ""


def template_values(request: Request) -> dict[str, Any]:
    """Values for every template."""
    user, proxy = getattr(request.state, "user", None), context_of(request).settings.worklist.proxy_sign_in
    signs_out = user is not None and (not user.by_proxy or (proxy is not None and proxy.sign_out_url is not None))
    return {"user": user, "signs_in": must_sign_in(request), "signs_out": signs_out}


def session_token(request: Request) -> str:
    """The token in the browser's cookie; empty without one."""
    return request.cookies.get(cookie_name(_is_secure(request)), "")


def set_session_cookie(request: Request, response: Response, token: str) -> None:
    """Give the browser a token that no script can read and no other site can use; an empty one removes the cookie."""
    secure = _is_secure(request)
    response.set_cookie(
        cookie_name(secure),
        token,
        max_age=None if token else 0,
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def cookie_name(secure: bool) -> str:
    """Name of the cookie. With this prefix a browser accepts it from no other host (RFC 6265bis 4.1.3.2)."""
    return "__Host-cmbnode" if secure else "cmbnode"


def _is_secure(request: Request) -> bool:
    url = context_of(request).settings.worklist.url or ""
    return url.startswith("https:") or request.url.scheme == "https"
