"""Which pages are there? The worklist, and those of a study."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse

from node.ledger.access_records import Action
from node.worklist import study_pages
from node.worklist.access import POLL, audit
from node.worklist.asked import Asked
from node.worklist.context import Context, context_of
from node.worklist.views import worklist_page

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


router.include_router(study_pages.router)
