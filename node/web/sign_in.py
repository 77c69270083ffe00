"""How does a person sign in, sign out, and change the password?"""

from __future__ import annotations

import math
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from node.ledger.access_records import AuditAction
from node.roles import SessionKind
from pipeline.errors import InputError

from .audit import audit
from .auth import (
    User,
    Viewer,
    address_of,
    current_user,
    has_passwords,
    must_sign_in,
    new_token,
    session_token,
    set_session_cookie,
    token_hash,
)
from .context import Context, context_of
from .passwords import LONGEST, check_new_password, hash_password, needs_rehash, verify_password

router = APIRouter(default_response_class=HTMLResponse)
Shared = Annotated[Context, Depends(context_of)]
CurrentUser = Annotated[User | None, Depends(current_user)]
Name = Annotated[str, Form(max_length=200)]
Password = Annotated[str, Form(max_length=4 * LONGEST)]

WRONG = "Name or password is wrong."
PAGE = "/sign-in"
_FLOOD_S = 60.0
"""Sign-ins refused for too many attempts are recorded once per minute."""


def sign_in_address(request: Request) -> str:
    """Address of the sign-in page, which leads back to the page of this request."""
    page = request.headers.get("hx-current-url", "") or str(request.url)
    path = "/" + page.partition("://")[2].partition("/")[2]
    return PAGE if path == "/" else f"{PAGE}?{urlencode({'next': path})}"


@router.get(PAGE)
def form(request: Request, shared: Shared, user: CurrentUser, next: str = "/") -> Response:
    """The sign-in page."""
    if user is not None:
        return RedirectResponse(_local(next), 303)
    return _sign_in_page(request, shared, next)


@router.post(PAGE)
def sign_in(request: Request, shared: Shared, name: Name = "", password: Password = "", next: Name = "/") -> Response:
    """Check name and password. A wrong password and an unknown name get the same answer."""
    if not must_sign_in(request):
        return RedirectResponse(_local(next), 303)
    if not has_passwords(request):
        raise HTTPException(403, "Sign-in with a password is switched off on this node.")
    address, name = address_of(request), name.strip().lower()
    if wait := _wait_s(shared, name, address):
        _record_refusal(shared, name, "too many attempts", address, once_within_s=_FLOOD_S)
        return _sign_in_page(request, shared, next, _too_many(wait), name, 429, wait)
    stored = shared.ledger.password_hash(name)
    if not verify_password(stored, password) or stored is None:
        _record_refusal(shared, name, "wrong password", address)
        return _sign_in_page(request, shared, next, WRONG, name, 401)
    _reset_attempts(shared, name, address)
    if needs_rehash(stored):
        shared.ledger.renew_hash(name, hash_password(password))
    return _with_new_session(request, shared, name, RedirectResponse(_local(next), 303))


@router.post("/sign-out")
def sign_out(request: Request, shared: Shared, user: CurrentUser) -> Response:
    """End the session; a user of a proxy is led to where the proxy signs users out."""
    shared.ledger.close_session(token_hash(session_token(request)), address=address_of(request))
    proxy, page = shared.settings.worklist.proxy_sign_in, PAGE
    if user is not None and user.by_proxy and proxy is not None and proxy.sign_out_url is not None:
        audit(request, AuditAction.SIGN_OUT)
        page = proxy.sign_out_url
    response = RedirectResponse(page, 303)
    set_session_cookie(request, response, "")
    return response


@router.get("/account")
def account(request: Request, shared: Shared, _user: Viewer) -> Response:
    """Who is signed in, and the form to change the password."""
    _require_sign_in(request)
    return _account_page(request, shared)


@router.post("/account")
def change_password(
    request: Request,
    shared: Shared,
    user: Viewer,
    password: Password = "",
    new_password: Password = "",
    again: Password = "",
) -> Response:
    """Change the password; every other session of this user ends."""
    _require_sign_in(request)
    if user.by_proxy or not has_passwords(request):
        raise HTTPException(403, "You have no password on this node.")
    address = address_of(request)
    if wait := _wait_s(shared, user.name, address):
        return _account_page(request, shared, _too_many(wait), 429)
    if not verify_password(shared.ledger.password_hash(user.name), password):
        _record_refusal(shared, user.name, "wrong password for a password change", address)
        return _account_page(request, shared, "The current password is wrong.", 403)
    _reset_attempts(shared, user.name, address)
    try:
        if new_password != again:
            raise InputError("the two new passwords differ")
        check_new_password(new_password, user.name)
    except InputError as error:
        return _account_page(request, shared, str(error).capitalize() + ".", 422)
    shared.ledger.set_password(user.name, hash_password(new_password), actor=user.name)
    page = _account_page(request, shared, success="The password has been changed. Your other sessions have ended.")
    return _with_new_session(request, shared, user.name, page)


def _wait_s(shared: Context, name: str, address: str) -> float:
    """Count an attempt before the password is checked, so that many at once cannot slip through.

    Returns the seconds to wait, 0 for none. An unknown name counts like a known one.
    """
    part = shared.settings.worklist
    return max(
        shared.ledger.try_after_s(f"address/{address}", part.wrong_per_address, part.wrong_within_s),
        shared.ledger.try_after_s(f"account/{name}", part.wrong_per_account, part.wrong_within_s),
    )


def _reset_attempts(shared: Context, name: str, address: str) -> None:
    """The password was right: the name starts afresh, and this attempt does not count against the address."""
    shared.ledger.clear_attempts(f"account/{name}")
    shared.ledger.take_back_attempt(f"address/{address}")


def _with_new_session(request: Request, shared: Context, name: str, response: Response) -> Response:
    """Open a session with a new token, so that no one who knew the browser's cookie before knows it now."""
    token = new_token()
    shared.ledger.open_session(
        token_hash(token),
        name,
        SessionKind.BROWSER,
        shared.settings.worklist.session_limit_s,
        address=address_of(request),
    )
    set_session_cookie(request, response, token)
    return response


def _record_refusal(shared: Context, name: str, why: str, address: str, *, once_within_s: float = 0.0) -> None:
    """Record a refused sign-in. An unknown name is left out: it is often a password in the wrong field."""
    known = any(account.name == name for account in shared.ledger.accounts())
    who, detail = (name, why) if known else ("?", f"{why}; unknown name")
    shared.ledger.record_access(who, AuditAction.REFUSAL, detail=detail, address=address, once_within_s=once_within_s)


def _require_sign_in(request: Request) -> None:
    if not must_sign_in(request):
        raise HTTPException(404, "Sign-in is switched off on this node.")


def _sign_in_page(
    request: Request,
    shared: Context,
    next_page: str,
    problem: str = "",
    name: str = "",
    status: int = 200,
    wait_s: float = 0.0,
) -> Response:
    part = shared.settings.worklist
    view = {
        "next": _local(next_page),
        "problem": problem,
        "name": name,
        "no_accounts": part.proxy_sign_in is None and not shared.ledger.has_accounts(),
        "has_passwords": has_passwords(request),
        "through": part.url or "",
    }
    headers = {"Retry-After": str(math.ceil(wait_s))} if wait_s else None
    return shared.templates.TemplateResponse(request, "sign_in.html", view, status, headers)


def _account_page(
    request: Request, shared: Context, problem: str = "", status: int = 200, success: str = ""
) -> Response:
    view = {"problem": problem, "success": success, "has_passwords": has_passwords(request)}
    return shared.templates.TemplateResponse(request, "account.html", view, status)


def _local(address: str) -> str:
    """A page of this node; any other address, however it is written, becomes the worklist."""
    plain = address.isprintable() and "\\" not in address and address.startswith("/") and not address.startswith("//")
    return address if plain else "/"


def _too_many(wait_s: float) -> str:
    minutes = math.ceil(wait_s / 60)
    return f"Too many failed attempts. Try again in {'a minute' if minutes <= 1 else f'{minutes} minutes'}."
