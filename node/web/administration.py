"""What can an administrator do on the page? Test a destination, try the routing rules, add and disable users."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

import anyio
from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from node.archive import Archive
from node.deliver.check import check_destination
from node.ledger.access_records import AuditAction
from node.ledger.worklist_records import WorklistFilters
from node.logs import explain
from node.roles import UserRole
from node.route.dry_run import DryRun, dry_run
from node.route.rules import load_table
from node.settings.destinations import DestinationSettings
from pipeline.errors import CmbError, InputError
from pipeline.findings import wording

from . import labels
from .administration_view import destination_lines, pull_lines, rules_view, user_lines
from .audit import audit
from .auth import Administrator, User, address_of
from .context import Context, context_of
from .passwords import hash_password, user_name

PAGE = "/administration"
TEST_LIMIT_S = 20.0
"""A test of a destination is answered within this time, whatever the destination does."""
DRY_RUN_LIMIT_S = 30.0
"""A dry run begins no further study after this time."""
STUDIES = (5, 10, 20)
"""How many studies a dry run may try."""
_PASSWORD_BYTES = 12

router = APIRouter(prefix=PAGE, default_response_class=HTMLResponse)
Shared = Annotated[Context, Depends(context_of)]
Text = Annotated[str, Form(max_length=200)]


@dataclass(frozen=True)
class DestinationTest:
    """What became of the test of a destination, in one line."""

    destination: str
    answers: bool
    text: str


@dataclass(frozen=True)
class UserForm:
    """What was entered about a new user; `password` is the new one, shown once."""

    name: str = ""
    display_name: str = ""
    role: UserRole = UserRole.VIEWER
    password: str = ""
    problem: str = ""


@router.get("")
def administration(request: Request, shared: Shared, user: Administrator) -> Response:
    """Destinations, routing rules and users."""
    audit(request, AuditAction.ADMINISTRATION)
    return _page(request, shared, user)


@router.post("/destinations/{name}/test")
async def test_destination(request: Request, name: str, shared: Shared, user: Administrator) -> Response:
    """Ask a destination whether it answers; nothing is sent to it."""
    way = shared.settings.destinations.get(name)
    if way is None:
        raise HTTPException(404, "This node has no such destination.")
    test = DestinationTest(name, False, f"No answer within {TEST_LIMIT_S:g} s.")
    with anyio.move_on_after(TEST_LIMIT_S):
        test = await anyio.to_thread.run_sync(_test, shared, name, way, abandon_on_cancel=True)
    await run_in_threadpool(audit, request, AuditAction.TEST, detail=f"{name}: {test.text}")
    return await run_in_threadpool(_page, request, shared, user, test=test)


def _test(shared: Context, name: str, way: DestinationSettings) -> DestinationTest:
    """Test a destination that is not being tested already; a test that is no longer waited for still counts as one."""
    with shared.one_at_a_time(f"test of {name}") as is_free:
        if not is_free:
            return DestinationTest(name, False, "A test of this destination is already running. Wait a moment.")
        try:
            found = check_destination(way, shared.settings.ae_title)
        except CmbError as error:
            return DestinationTest(name, False, f"{wording.sentence(str(error))}.")
        except Exception as error:  # a fault of the node must not look like an answer
            return DestinationTest(name, False, f"It could not be tested ({explain(error)}).")
    if found.answers:
        return DestinationTest(name, True, f"{found.text} ({found.took_s * 1000:.0f} ms).")
    end = "" if found.text.endswith(("?", ".")) else "."
    return DestinationTest(name, False, f"{found.text}{end} {wording.sentence(found.do)}.")


@router.get("/dry-run")
def try_rules(
    request: Request, shared: Shared, _user: Administrator, studies: Annotated[int, Query(ge=1, le=max(STUDIES))] = 5
) -> Response:
    """What the rules would decide about the studies that came last, and whether that is what was done."""
    with shared.one_at_a_time("dry run") as is_free:
        if not is_free:
            raise HTTPException(409, "A dry run is already running. Try again when it has finished.")
        audit(request, AuditAction.DRY_RUN, detail=f"{studies} studies")
        try:
            tried, left = _try_rules(shared, studies)
        except CmbError as error:
            raise HTTPException(409, f"{wording.sentence(str(error))}.") from error
    view = {"tried": tried, "left": left, "studies": studies, "choices": STUDIES, "person": labels.person_name}
    return shared.templates.TemplateResponse(request, "dry_run.html", view)


def _try_rules(shared: Context, number: int) -> tuple[list[DryRun], int]:
    """Try the rules on the last studies; also returns how many were left out for lack of time."""
    table, settings = load_table(shared.settings), shared.settings
    archive = Archive(settings.data_dir, settings.archive.free_disk_mb)
    rows = shared.ledger.worklist(WorklistFilters(fetched=False), limit=number)
    end = time.monotonic() + DRY_RUN_LIMIT_S
    tried = []
    for row in rows:
        if time.monotonic() > end:
            break
        tried.append(dry_run(shared.ledger, archive, row, table, settings))
    return tried, len(rows) - len(tried)


@router.post("/users")
def add_user(
    request: Request,
    shared: Shared,
    user: Administrator,
    name: Text = "",
    display_name: Text = "",
    role: Annotated[UserRole, Form()] = UserRole.VIEWER,
) -> Response:
    """Add a user with a password that the node makes and shows once."""
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    try:
        name = user_name(name)
        shared.ledger.add_account(
            name, display_name.strip(), role, hash_password(password), actor=user.name, address=address_of(request)
        )
    except InputError as error:
        form = UserForm(name, display_name, role, problem=f"{wording.sentence(error.what)}.")
        return _page(request, shared, user, form=form, status=422)
    return _page(request, shared, user, form=UserForm(name, role=role, password=password))


@router.post("/users/{name}/role")
def set_role(
    request: Request, name: str, shared: Shared, user: Administrator, role: Annotated[UserRole, Form()]
) -> Response:
    """Change a user's role."""
    _refuse_self(name, user)
    try:
        shared.ledger.set_role(name, role, actor=user.name, address=address_of(request))
    except InputError as error:
        raise _conflict(error) from error
    return _to_users(name)


@router.post("/users/{name}/disable")
def disable(request: Request, name: str, shared: Shared, user: Administrator) -> Response:
    """Disable a user; the user's sessions and tokens end."""
    return _set_disabled(request, name, shared, user, disabled=True)


@router.post("/users/{name}/enable")
def enable(request: Request, name: str, shared: Shared, user: Administrator) -> Response:
    """Enable a user again."""
    return _set_disabled(request, name, shared, user, disabled=False)


def _set_disabled(request: Request, name: str, shared: Context, user: User, *, disabled: bool) -> Response:
    _refuse_self(name, user)
    try:
        shared.ledger.disable_account(name, actor=user.name, disabled=disabled, address=address_of(request))
    except InputError as error:
        raise _conflict(error) from error
    return _to_users(name)


def _refuse_self(name: str, user: User) -> None:
    if name == user.name:
        raise HTTPException(409, "You cannot change your own role or disable yourself. Ask another administrator.")


def _conflict(error: InputError) -> HTTPException:
    return HTTPException(409, f"{wording.sentence(str(error))}.")


def _to_users(name: str) -> Response:
    return RedirectResponse(f"{PAGE}#user-{quote(name)}", 303)


def _page(
    request: Request,
    shared: Context,
    user: User,
    *,
    test: DestinationTest | None = None,
    form: UserForm | None = None,
    status: int = 200,
) -> Response:
    view = {
        "destinations": destination_lines(shared.settings, shared.ledger),
        "pulls": pull_lines(shared.settings, shared.ledger),
        "rules": rules_view(shared.settings),
        "proxy": shared.settings.worklist.proxy_sign_in,
        "users": user_lines(shared.ledger, user.name),
        "roles": tuple(UserRole),
        "choices": STUDIES,
        "test": test,
        "form": form or UserForm(),
    }
    return shared.templates.TemplateResponse(request, "administration.html", view, status)
