"""Who looked at what, and who changed what? The audit as a page for administrators."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse

from node.ledger.access_records import AuditAction, AuditEntry, AuditFilters

from . import labels
from .audit import audit
from .auth import Administrator
from .context import Context, context_of
from .list_query import iso_day, midnight

PAGE_SIZE = 200

router = APIRouter(default_response_class=HTMLResponse)
Shared = Annotated[Context, Depends(context_of)]
Text = Annotated[str, Query(max_length=200)]


@dataclass(frozen=True)
class AuditQuery:
    """The filters of the page, as in its address."""

    user: str = ""
    action: str = ""
    study: str = ""
    q: str = ""
    since: str = ""
    until: str = ""

    def address(self, page: int) -> str:
        """Address of a page of this list."""
        parameters = {name: value for name, value in {**asdict(self), "page": page}.items() if value}
        return f"/audit?{urlencode(parameters)}" if parameters else "/audit"


@dataclass(frozen=True)
class AuditLine:
    """One row of the page."""

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
    """The audit, newest first."""
    query = AuditQuery(user.strip().lower(), action, study.strip(), q.strip(), iso_day(since), iso_day(until))
    filters = AuditFilters(
        user_name=query.user,
        action=query.action,
        study_uid=query.study,
        text=query.q,
        since=midnight(query.since),
        until=midnight(query.until, days=1),
    )
    audit(request, AuditAction.AUDIT, detail=query.address(page).partition("?")[2])
    entries = shared.ledger.audit(filters, limit=PAGE_SIZE + 1, offset=page * PAGE_SIZE)
    view = {
        "query": query,
        "lines": tuple(_line(entry) for entry in entries[:PAGE_SIZE]),
        "actions": tuple(action.value for action in AuditAction),
        "newer": query.address(page - 1) if page else None,
        "older": query.address(page + 1) if len(entries) > PAGE_SIZE else None,
    }
    return shared.templates.TemplateResponse(request, "audit.html", view)


def _line(entry: AuditEntry) -> AuditLine:
    return AuditLine(
        at=entry.at,
        user=entry.user_name,
        action=entry.action,
        patient=labels.person_name(entry.patient_name) if entry.study_instance_uid else "",
        patient_id=entry.patient_id,
        study_address=f"/studies/{quote(entry.study_instance_uid)}" if entry.study_instance_uid else "",
        detail=entry.detail,
        address=entry.address,
        refused=entry.action == AuditAction.REFUSAL,
    )
