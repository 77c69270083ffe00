"""What can be done about a study from its page, besides reading it? Retry, send again, make it more or less urgent."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from node.ledger import Job, Priority
from node.ledger.access_records import AuditAction
from pipeline.errors import InputError
from pipeline.findings import wording

from .audit import audit
from .auth import Reader
from .context import Context
from .study_routes import Form, Shared, job_of

router = APIRouter(prefix="/studies/{uid}")


@router.post("/retry")
def retry(request: Request, uid: str, shared: Shared, user: Reader, form: Form) -> Response:
    """Try the failed job again, from where it failed."""

    def again(job: Job) -> Job:
        return shared.ledger.retry(job.id, user.name)

    return _act(request, uid, shared, str(form.get("job", "")), again, AuditAction.RETRY)


@router.post("/send")
def send(request: Request, uid: str, shared: Shared, user: Reader, form: Form) -> Response:
    """Send the result to its destinations again, now."""

    def again(job: Job) -> Job:
        return shared.ledger.send_again(job.id, user.name)

    return _act(request, uid, shared, str(form.get("job", "")), again, AuditAction.SEND)


@router.post("/priority")
def priority(request: Request, uid: str, shared: Shared, user: Reader, form: Form) -> Response:
    """Change the priority of what has not been done yet."""
    try:
        wanted = Priority[str(form.get("priority", "")).upper()]
    except KeyError as error:
        raise HTTPException(422, "priority: unknown value") from error

    def change(job: Job) -> Job:
        return shared.ledger.set_priority(job.id, wanted, user.name)

    return _act(request, uid, shared, str(form.get("job", "")), change, AuditAction.PRIORITY)


def _act(
    request: Request, uid: str, shared: Context, number: str, act: Callable[[Job], Job], action: AuditAction
) -> Response:
    """Do something with a job of the study, have it noted and signalled, and show the study."""
    job = job_of(shared, uid, int(number) if number.isdecimal() and len(number) < 10 else 0)
    try:
        job = act(job)
    except InputError as error:
        raise HTTPException(409, wording.sentence(str(error)) + ".") from error
    audit(request, action, uid, f"job {job.id}")
    shared.signal(job)
    return RedirectResponse(f"/studies/{quote(uid)}", 303)
