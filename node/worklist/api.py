"""What does a program see? Jobs as JSON, the same documents as `cmbnode jobs --json` and `cmbnode show --json`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from node.ledger.access_records import Action
from node.ledger.records import Filters, JobState
from node.worklist.access import audit
from node.worklist.context import Context, context_of
from node.worklist.documents import job_details, job_documents
from pipeline.errors import InputError

router = APIRouter(prefix="/api")
Shared = Annotated[Context, Depends(context_of)]


@router.get("/jobs")
def jobs(
    request: Request,
    shared: Shared,
    state: Annotated[list[JobState] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> dict[str, Any]:
    """Jobs, the newest first."""
    audit(request, Action.LIST, detail=f"api {request.url.query}".strip())
    filters = Filters(states=tuple(one.value for one in state or ()))
    return {"jobs": job_documents(shared.ledger, shared.ledger.jobs(filters, limit=limit, offset=offset))}


@router.get("/jobs/{number}")
def job(request: Request, number: int, shared: Shared) -> dict[str, Any]:
    """One job with findings, deliveries and history."""
    try:
        document = job_details(shared.ledger, number)
    except InputError as error:
        raise HTTPException(404, str(error)) from error
    audit(request, Action.STUDY, document["study"]["study_instance_uid"], f"api, job {number}")
    return document
