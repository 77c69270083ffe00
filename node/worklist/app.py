"""How is the worklist put together and served?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from node.bell import Bell
from node.bell import make_app as make_bell
from node.config import Settings
from node.ledger import Ledger
from node.logs import set_up_logging
from node.worklist import api, health, pages
from node.worklist.context import HERE, Context, context_of, make_templates
from node.worklist.security import harden


def create_app(settings: Settings, ledger: Ledger | None = None) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    settings : Settings
        Where the ledger, the results and Redis are, and where it will listen.
    ledger : Ledger, optional
        An open ledger, which stays the caller's; none: one is opened, and closed at the end.
    """
    own = ledger is None
    opened = Ledger(settings.ledger_url) if ledger is None else ledger

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        if own:
            opened.close()

    # No /docs: that page loads its scripts from elsewhere. /openapi.json stays.
    app = FastAPI(title="cmb-node", lifespan=lifespan, docs_url=None, redoc_url=None)
    bell = Bell(make_bell(settings)) if settings.redis_url is not None else None
    app.state.context = Context(settings, opened, bell, make_templates(settings))
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    for routes in (pages, api, health):
        app.include_router(routes.router)
    app.add_exception_handler(HTTPException, _explain)  # type: ignore[arg-type]
    harden(app, settings.worklist.host, settings.worklist.hosts)
    return app


async def _explain(request: Request, error: HTTPException) -> Response:
    """A page for people, JSON for programs."""
    if request.url.path.startswith("/api") or "text/html" not in request.headers.get("accept", ""):
        return await http_exception_handler(request, error)
    view = {"title": HTTPStatus(error.status_code).phrase, "text": error.detail}
    return context_of(request).templates.TemplateResponse(request, "error.html", view, error.status_code)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    set_up_logging(settings)
    ledger = Ledger(settings.ledger_url)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    ledger.upgrade()
    try:
        uvicorn.run(
            create_app(settings, ledger),
            host=settings.worklist.host,
            port=settings.worklist.port,
            log_config=None,
            access_log=False,  # an address holds a Study Instance UID
            server_header=False,
            timeout_graceful_shutdown=5,
        )
    finally:
        ledger.close()
