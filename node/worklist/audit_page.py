"""Who looked, and who changed? The audit as a page for administrators."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date, datetime, time, timedelta
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse

from node.ledger.access_records import Action, AuditEntry, AuditFilters
from node.worklist import words
from node.worklist.access import Administrator, audit
from node.worklist.context import Context, context_of

PAGE_SIZE = 200

router = APIRouter(default_response_class=HTMLResponse)
Shared = Annotated[Context, Depends(context_of)]
Text = Annotated[str, Query(max_length=200)]


@dataclass(frozen=True)
class Asked:
    """What the page is narrowed to, as its address has it."""

    user: str = ""
    action: str = ""
    study: str = ""
    q: str = ""
    since: str = ""
    until: str = ""

    def address(self, page: int) -> str:
        """Address of a page of this list."""
        given = {name: value for name, value in asdict(self).items() if value} | ({"page": page} if page else {})
        return f"/audit?{urlencode(given)}" if given else "/audit"


@dataclass(frozen=True)
class AuditLine:
    """One row, in words."""

    at: datetime
    user: str
    action: str
    patient: str
    patient_id: str
    study_address: str
    detail: str
    address: str
    refused: bool


@router.get("/audit")
def audit_page(
    request: Request,
    shared: Shared,
    _user: Administrator,
    user: Text = "",
    action: Text = "",
    study: Text = "",
    q: Text = "",
    since: Text = "",
    until: Text = "",
    page: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> Response:
    """What was written down, the newest first."""
    asked = Asked(user.strip().lower(), action, study.strip(), q.strip(), _day(since), _day(until))
    filters = AuditFilters(
        user_name=asked.user,
        action=asked.action,
        study_uid=asked.study,
        text=asked.q,
        since=_midnight(asked.since),
        until=_midnight(asked.until, days=1),
    )
    audit(request, Action.AUDIT, detail=asked.address(page).partition("?")[2])
    entries = shared.ledger.audit(filters, limit=PAGE_SIZE + 1, offset=page * PAGE_SIZE)
    view = {
        "asked": asked,
        "lines": tuple(_line(entry) for entry in entries[:PAGE_SIZE]),
        "actions": tuple(action.value for action in Action),
        "newer": asked.address(page - 1) if page else None,
        "older": asked.address(page + 1) if len(entries) > PAGE_SIZE else None,
    }
    return shared.templates.TemplateResponse(request, "audit.html", view)


def _line(entry: AuditEntry) -> AuditLine:
    return AuditLine(
        at=entry.at,
        user=entry.user_name,
        action=entry.action,
        patient=words.person_name(entry.patient_name) if entry.study_instance_uid else "",
        patient_id=entry.patient_id,
        study_address=f"/studies/{quote(entry.study_instance_uid)}" if entry.study_instance_uid else "",
        detail=entry.detail,
        address=entry.address,
        refused=entry.action == Action.REFUSED,
    )


def _day(text: str) -> str:
    """A date as the form sends it; anything else is none."""
    try:
        return date.fromisoformat(text.strip()).isoformat()
    except ValueError:
        return ""


def _midnight(day: str, days: int = 0) -> datetime | None:
    """The beginning of a day in the server's zone, so many days later."""
    if not day:
        return None
    return datetime.combine(date.fromisoformat(day) + timedelta(days=days), time()).astimezone()
