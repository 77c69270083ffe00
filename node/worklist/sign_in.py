"""How does a person sign in, out, and change the password?"""

from __future__ import annotations

import math
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from node.ledger.access_records import Action, SessionKind
from node.passwords import LONGEST, check_new_password, hash_password, outdated, verify_password
from node.worklist.access import (
    User,
    Viewer,
    address_of,
    current_user,
    must_sign_in,
    renew_token,
    token_hash,
    token_of,
)
from node.worklist.context import Context, context_of
from node.worklist.limits import WrongPasswords
from pipeline.errors import InputError

router = APIRouter(default_response_class=HTMLResponse)
Shared = Annotated[Context, Depends(context_of)]
Asking = Annotated[User | None, Depends(current_user)]
Name = Annotated[str, Form(max_length=200)]
Password = Annotated[str, Form(max_length=4 * LONGEST)]

WRONG = "Name or password is wrong."
PAGE = "/sign-in"


def sign_in_address(request: Request) -> str:
    """Where to sign in, so as to come back to what was asked for."""
    asked = request.headers.get("hx-current-url", "") or str(request.url)
    path = "/" + asked.partition("://")[2].partition("/")[2]
    return PAGE if path == "/" else f"{PAGE}?{urlencode({'next': path})}"


@router.get(PAGE)
def form(request: Request, shared: Shared, user: Asking, next: str = "/") -> Response:
    """The form."""
    if user is not None:
        return RedirectResponse(_local(next), 303)
    return _form(request, shared, next)


@router.post(PAGE)
def sign_in(request: Request, shared: Shared, name: Name = "", password: Password = "", next: Name = "/") -> Response:
    """Check name and password; the answer to a wrong one is the same whether the name exists or not."""
    if not must_sign_in(request):
        return RedirectResponse(_local(next), 303)
    address, limits = address_of(request), WrongPasswords(shared.ledger, shared.settings.worklist)
    asked = name.strip().lower()
    if wait := limits.wait_s(asked, address):
        _refused(shared, asked, "too many attempts", address)
        return _form(request, shared, next, f"Too many wrong attempts. Try again {_in(wait)}.", asked, 429, wait)
    kept = shared.ledger.password_hash(asked)
    if not verify_password(kept, password) or kept is None:
        _refused(shared, asked, "wrong password", address)
        return _form(request, shared, next, WRONG, asked, 401)
    limits.was_right(asked, address)
    if outdated(kept):
        shared.ledger.renew_hash(asked, hash_password(password))
    _begin(request, shared, asked)
    return RedirectResponse(_local(next), 303)


@router.post("/sign-out")
def sign_out(request: Request, shared: Shared, _user: Asking) -> Response:
    """End the session."""
    shared.ledger.close_session(token_hash(token_of(request)), address=address_of(request))
    renew_token(request)
    return RedirectResponse(PAGE, 303)


@router.get("/account")
def account(request: Request, shared: Shared, user: Viewer) -> Response:
    """Who is signed in, and the form for another password."""
    _only_where_people_sign_in(request)
    return _account(request, shared, user)


@router.post("/account")
def change_password(
    request: Request,
    shared: Shared,
    user: Viewer,
    password: Password = "",
    new_password: Password = "",
    again: Password = "",
) -> Response:
    """Set another password; every other session of that person ends."""
    _only_where_people_sign_in(request)
    address, limits = address_of(request), WrongPasswords(shared.ledger, shared.settings.worklist)
    if wait := limits.wait_s(user.name, address):
        return _account(request, shared, user, f"Too many wrong attempts. Try again {_in(wait)}.", 429)
    if not verify_password(shared.ledger.password_hash(user.name), password):
        _refused(shared, user.name, "wrong password to change it", address)
        return _account(request, shared, user, "The present password is wrong.", 403)
    limits.was_right(user.name, address)
    try:
        if new_password != again:
            raise InputError("the new password and its repetition differ")
        check_new_password(new_password, user.name)
    except InputError as error:
        return _account(request, shared, user, str(error).capitalize() + ".", 422)
    shared.ledger.set_password(user.name, hash_password(new_password), actor=user.name)
    _begin(request, shared, user.name)
    return _account(request, shared, user, done="The password is changed. Other sessions of yours have ended.")


def _begin(request: Request, shared: Context, name: str) -> None:
    """Open a session under a token that nobody has seen before."""
    shared.ledger.open_session(
        token_hash(renew_token(request)),
        name,
        SessionKind.BROWSER,
        shared.settings.worklist.session_limit_s,
        address=address_of(request),
    )


def _refused(shared: Context, name: str, why: str, address: str) -> None:
    """Write down a refusal. A name that nobody has is not kept: it is often a password, typed too early."""
    known = any(account.name == name for account in shared.ledger.accounts())
    within = 60.0 if why == "too many attempts" else 0.0  # a flood is one row a minute
    who, what = (name, why) if known else ("?", f"{why}; unknown name")
    shared.ledger.record_access(who, Action.REFUSED, detail=what, address=address, once_within_s=within)


def _only_where_people_sign_in(request: Request) -> None:
    if not must_sign_in(request):
        raise HTTPException(404, "Nobody signs in on this node.")


def _form(
    request: Request,
    shared: Context,
    next_page: str,
    problem: str = "",
    name: str = "",
    status: int = 200,
    wait_s: float = 0.0,
) -> Response:
    view = {"next": _local(next_page), "problem": problem, "name": name, "nobody": not shared.ledger.has_accounts()}
    headers = {"Retry-After": str(math.ceil(wait_s))} if wait_s else None
    return shared.templates.TemplateResponse(request, "sign_in.html", view, status, headers)


def _account(
    request: Request, shared: Context, _user: User, problem: str = "", status: int = 200, done: str = ""
) -> Response:
    view = {"problem": problem, "done": done}
    return shared.templates.TemplateResponse(request, "account.html", view, status)


def _local(address: str) -> str:
    """A page of this node; any other address, however it is written, becomes the worklist."""
    plain = address.isprintable() and "\\" not in address and address.startswith("/") and not address.startswith("//")
    return address if plain else "/"


def _in(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return "in a minute" if minutes <= 1 else f"in {minutes} minutes"
