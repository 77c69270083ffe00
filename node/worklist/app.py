"""How is the worklist put together and served?"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus

import structlog
import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from node.bell import Bell
from node.bell import make_app as make_bell
from node.config import ConfigError, Settings, WorklistSettings
from node.ledger import Ledger
from node.logs import set_up_logging
from node.worklist import access, api, audit_page, health, pages, sign_in
from node.worklist.context import HERE, Context, context_of, make_templates
from node.worklist.security import harden

_log = structlog.get_logger(__name__)


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
    app = FastAPI(
        title="cmb-node",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(access.check_csrf)],
    )
    bell = Bell(make_bell(settings)) if settings.redis_url is not None else None
    app.state.context = Context(settings, opened, bell, make_templates(settings, access.template_values))
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    for routes in (pages, api, audit_page):
        app.include_router(routes.router, dependencies=[Depends(access.viewer)])
    for routes in (sign_in, health):
        app.include_router(routes.router)
    app.add_exception_handler(HTTPException, _explain)  # type: ignore[arg-type]
    app.add_middleware(access.Visits, secure=(settings.worklist.url or "").startswith("https:"))
    harden(app, settings.worklist.host, settings.worklist.hosts)
    return app


async def _explain(request: Request, error: HTTPException) -> Response:
    """A page for people, JSON for programs; and who is not signed in comes to the page where one does."""
    if isinstance(error, access.NotSignedInError) and not request.url.path.startswith("/api"):
        where = sign_in.sign_in_address(request)
        if "hx-request" in request.headers:  # htmx follows a redirect within the page; this header makes it leave
            return Response(status_code=401, headers={"HX-Redirect": where})
        return RedirectResponse(where, 303)
    if request.url.path.startswith("/api") or "text/html" not in request.headers.get("accept", ""):
        return await http_exception_handler(request, error)
    view = {"title": HTTPStatus(error.status_code).phrase, "text": error.detail}
    return context_of(request).templates.TemplateResponse(request, "error.html", view, error.status_code)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises
    ------
    ConfigError
        If the address cannot be listened on.
    """
    part = settings.worklist
    with _listen(part.host, part.port) as listening:
        set_up_logging(settings)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(settings.ledger_url)
        try:
            ledger.upgrade()
            _warn(part, ledger)
            _log.info("worklist ready", host=part.host, port=listening.getsockname()[1])
            _Server(server_config(create_app(settings, ledger), part)).run(sockets=[listening])
        finally:
            ledger.close()


def server_config(app: FastAPI, part: WorklistSettings) -> uvicorn.Config:
    """How the server runs: it logs no address (one holds a Study Instance UID) and believes the named proxies only."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        forwarded_allow_ips=["127.0.0.1", "::1", *map(str, part.proxies)],
    )


def _warn(part: WorklistSettings, ledger: Ledger) -> None:
    """Say what an administrator has to know about who may look."""
    if part.open_to_all:
        _log.warning("sign-in is switched off: everyone who reaches the worklist sees patients' names")
    elif part.requires_sign_in and not ledger.has_accounts():
        _log.warning("nobody can sign in yet; add the first: cmbnode users add NAME --role administrator")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror})",
            where="worklist",
            do="stop what uses it, or set worklist.host and worklist.port",
        ) from error


class _Server(uvicorn.Server):
    """Uvicorn, but being asked to stop is no failure: it raises the signal again after a clean end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and SIGINT; the handlers of before come back afterwards."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
