"""Which pages are there? The worklist, a study, its montage."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse

from node.ledger.access_records import Action
from node.worklist.access import POLL, audit
from node.worklist.asked import Asked
from node.worklist.context import Context, context_of
from node.worklist.montage import montage_png
from node.worklist.study_view import capture_of, study_page
from node.worklist.views import worklist_page

ONE_LOOK_S = 600.0
"""Pictures fetched within so long of looking at their study belong to that look."""

router = APIRouter(default_response_class=HTMLResponse)
Shared = Annotated[Context, Depends(context_of)]


@router.get("/")
def worklist(request: Request, shared: Shared) -> Response:
    """The table of studies, as the address asks for it."""
    view = worklist_page(shared.ledger, Asked.read(request.query_params))
    address = view.asked.address
    audit(request, Action.LIST, detail=address.partition("?")[2])
    answer = shared.templates.TemplateResponse(request, "worklist.html", {"page": view})
    if "hx-request" in request.headers and POLL not in request.headers:
        # While a word is typed the address changes in place, so that Back leaves the list as it was before.
        typing = request.headers.get("hx-trigger-name") == "q" or request.headers.get("hx-trigger") == "filters"
        answer.headers["HX-Replace-Url" if typing else "HX-Push-Url"] = address
    return answer


@router.get("/studies/{uid}")
def study(request: Request, uid: str, shared: Shared) -> Response:
    """One study."""
    view = study_page(shared.ledger, uid, shared.archive)
    if view is None:
        raise HTTPException(404, "This node has no such study.")
    audit(request, Action.STUDY, uid)
    return shared.templates.TemplateResponse(request, "study.html", {"study": view})


@router.get("/studies/{uid}/montage.png", response_class=Response)
def montage(
    request: Request, uid: str, shared: Shared, job: int | None = None, page: Annotated[int, Query(ge=0, le=10_000)] = 0
) -> Response:
    """A page of the capture object of a study's result as PNG; `job` picks an earlier result of the same study."""
    jobs = shared.ledger.jobs_of_study(uid)  # the newest first
    chosen = next((one for one in jobs if job in (None, one.id)), None)
    path = capture_of(shared.ledger, chosen) if chosen is not None else None
    if path is None or not (shared.archive / path).is_file():
        raise HTTPException(404, "There is no picture for this study.")
    try:
        png = montage_png(shared.archive / path, page)
    except IndexError as error:
        raise HTTPException(404, "The picture has no such page.") from error
    audit(request, Action.STUDY, uid, "picture", once_within_s=ONE_LOOK_S)
    # The picture of a job never changes; the browser may keep it, a shared cache may not.
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})
