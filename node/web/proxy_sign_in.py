"""Whom has a trusted proxy signed in? Its headers name the user and the groups; from anybody else they are ignored.

The address of the connection decides who is a proxy, never what a header says of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

import structlog
from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from node.ledger.access_records import AuditAction
from node.roles import UserRole
from node.settings.worklist import ProxySignInSettings
from node.text import one_line
from pipeline.errors import InputError

from .context import Context
from .passwords import user_name

_PEER = "cmbnode.peer"
_ONCE_WITHIN_S = 60.0
"""Ignored headers of one address, and refusals of one user, are recorded once per minute."""
_LONGEST_NAME = 200

_log = structlog.get_logger(__name__)


class PeerAddress:
    """ASGI middleware: keeps the address of the connection, which X-Forwarded-For replaces for everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the address."""
        if scope["type"] == "http":
            scope[_PEER] = (scope.get("client") or ("",))[0]
        await self._app(scope, receive, send)


@dataclass(frozen=True)
class ProxyIdentity:
    """A user whom a proxy has signed in."""

    name: str
    display_name: str
    role: UserRole


def is_from_proxy(request: Request, settings: ProxySignInSettings) -> bool:
    """Whether the connection comes from a trusted proxy, and its header names a user."""
    return _names_user(request, settings) and _is_trusted(request, settings)


def _names_user(request: Request, settings: ProxySignInSettings) -> bool:
    return any(request.headers.getlist(settings.user_header))


def identify(request: Request, shared: Context, address: str) -> ProxyIdentity | None:
    """The user whom a trusted proxy names; ``None`` if there is none.

    Parameters
    ----------
    address : str
        The client's address, for the audit.

    Raises
    ------
    HTTPException
        403 if the proxy names a user who may not see the page, or more than one.
    """
    settings = shared.settings.worklist.proxy_sign_in
    if settings is None or not _names_user(request, settings):
        return None
    if not _is_trusted(request, settings):
        peer = request.scope.get(_PEER, "")
        if shared.is_news(("user header", peer), _ONCE_WITHIN_S):
            _log.warning("a user header is ignored: its sender is no trusted proxy", peer=peer)
        return None
    for header in (settings.user_header, settings.name_header, settings.groups_header):
        if len(request.headers.getlist(header)) > 1:
            raise HTTPException(403, f"The proxy sends {header} more than once. It must replace a client's own header.")
    try:
        name = user_name(_value(request, settings.user_header))
    except InputError as error:
        raise _refusal(shared, "?", f"name from the proxy: {error.what}", address) from error
    role = _role(_value(request, settings.groups_header), settings)
    if role is None:
        raise _refusal(shared, name, "none of the groups that the proxy names has a role", address)
    if shared.ledger.is_disabled(name):
        raise _refusal(shared, name, "this user is disabled", address)
    if shared.is_news(("proxy", name, role, address), shared.settings.worklist.session_limit_s):
        shared.ledger.record_access(name, AuditAction.SIGN_IN, detail=f"by the proxy, as {role}", address=address)
    return ProxyIdentity(name, one_line(_value(request, settings.name_header))[:_LONGEST_NAME] or name, role)


def _is_trusted(request: Request, settings: ProxySignInSettings) -> bool:
    try:
        peer = ip_address(request.scope.get(_PEER, ""))
    except ValueError:
        return False
    return any(peer in network for network in settings.addresses)


def _value(request: Request, header: str) -> str:
    """A header as text: proxies write UTF-8."""
    return request.headers.get(header, "").encode("latin-1").decode("utf-8", "replace").strip()


def _role(groups: str, settings: ProxySignInSettings) -> UserRole | None:
    """The highest role of the user's groups."""
    roles = [UserRole(settings.roles[one]) for group in groups.split(",") if (one := group.strip()) in settings.roles]
    if settings.default_role is not None:
        roles.append(UserRole(settings.default_role))
    return max(roles, key=list(UserRole).index, default=None)


def _refusal(shared: Context, name: str, why: str, address: str) -> HTTPException:
    shared.ledger.record_access(name, AuditAction.REFUSAL, detail=why, address=address, once_within_s=_ONCE_WITHIN_S)
    return HTTPException(403, f"You cannot use this page: {why}. Ask an administrator.")
