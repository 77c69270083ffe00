"""Which addresses are there besides those of a study? The worklist, and the JSON API.

The API answers with the same documents as ``cmbnode jobs --json`` and ``cmbnode show --json``.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse

from node.ledger.access_records import AuditAction
from node.ledger.records import JobState
from node.ledger.worklist_records import WorklistFilters
from pipeline.errors import InputError

from .audit import audit
from .auth import POLL
from .context import Context, context_of
from .documents import job_details, job_documents
from .list_query import ListQuery
from .worklist_view import worklist_page

router = APIRouter()
Shared = Annotated[Context, Depends(context_of)]


@router.get("/", response_class=HTMLResponse)
def worklist(request: Request, shared: Shared) -> Response:
    """The table of studies, filtered and sorted as the address says."""
    view = worklist_page(shared.ledger, ListQuery.read(request.query_params))
    address, is_poll = view.query.address, POLL in request.headers
    audit(request, AuditAction.LIST, detail=address.partition("?")[2], repeats=is_poll)
    answer = shared.templates.TemplateResponse(request, "worklist.html", {"page": view})
    if "hx-request" in request.headers and not is_poll:
        # While the user types, the address changes in place: Back leads to the list as it was before.
        typing = request.headers.get("hx-trigger-name") == "q" or request.headers.get("hx-trigger") == "filters"
        answer.headers["HX-Replace-Url" if typing else "HX-Push-Url"] = address
    return answer


@router.get("/api/jobs")
def jobs(
    request: Request,
    shared: Shared,
    state: Annotated[list[JobState] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> dict[str, Any]:
    """Jobs, newest first."""
    audit(request, AuditAction.LIST, detail=f"api {request.url.query}".strip())
    filters = WorklistFilters(states=tuple(one.value for one in state or ()))
    return {"jobs": job_documents(shared.ledger, shared.ledger.jobs(filters, limit=limit, offset=offset))}


@router.get("/api/jobs/{number}")
def job(request: Request, number: int, shared: Shared) -> dict[str, Any]:
    """One job with its findings, deliveries and history."""
    try:
        document = job_details(shared.ledger, number)
    except InputError as error:
        raise HTTPException(404, str(error)) from error
    audit(request, AuditAction.STUDY, document["study"]["study_instance_uid"], f"api, job {number}")
    return document
