"""How is the worklist assembled and served?"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any

import pydicom.config
import structlog
import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from node.ledger import Ledger
from node.logs import set_up_logging
from node.processes.alive import beat
from node.processes.process import stop_on_signal
from node.queue import JobQueue
from node.queue import make_app as make_queue
from node.roles import FIRST_ACCOUNT
from node.settings import ConfigError, Settings

from . import actions, administration, audit_page, auth, detector_page, health, metrics, routes, sign_in, study_routes
from .connections import BoundedProtocol
from .context import HERE, Context, context_of, make_templates
from .security import DICOMWEB, harden

BEAT_S = 5.0

_log = structlog.get_logger(__name__)


def create_app(settings: Settings, ledger: Ledger) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    settings : Settings
        Where the ledger, the results and Redis are, and where it will listen.
    ledger : Ledger
        An open ledger, which the caller closes.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        beating = asyncio.create_task(_beat())
        yield
        beating.cancel()

    # No /docs: that page loads scripts from another site. /openapi.json stays.
    app = FastAPI(
        title="cmb-node",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(auth.check_origin)],
    )
    job_queue = JobQueue(make_queue(settings)) if settings.redis_url is not None else None
    app.state.context = Context(
        settings, ledger, job_queue, make_templates(settings, auth.template_values, health.template_values)
    )
    app.mount("/static", _Static(directory=HERE / "static"), name="static")
    for module in (routes, study_routes, actions, audit_page, administration, detector_page):
        app.include_router(module.router, dependencies=[Depends(auth.viewer)])
    for module in (sign_in, health, metrics):
        app.include_router(module.router)
    if settings.dicomweb.clients:
        from .dicomweb import add_dicomweb  # with the receiver's modules, which the pages do not need

        add_dicomweb(app, settings, ledger)
    app.add_exception_handler(HTTPException, _explain)  # type: ignore[arg-type]
    app.add_exception_handler(ClientDisconnect, _drop)
    harden(app, settings.worklist)
    return app


class _Static(StaticFiles):
    """Style sheets, scripts and the viewer: a browser keeps them, and asks each time whether they have changed."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """The file, with leave to keep it."""
        response = super().file_response(*args, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _beat() -> None:
    """Show that the event loop runs."""
    while True:
        beat()
        await asyncio.sleep(BEAT_S)


async def _drop(_request: Request, _error: Exception) -> Response:
    """The client has gone before its request was complete."""
    return Response(status_code=400)


async def _explain(request: Request, error: HTTPException) -> Response:
    """Answer with a page for people and JSON for programs; lead a person who is not signed in to the sign-in page."""
    if isinstance(error, auth.NotSignedInError) and not request.url.path.startswith("/api"):
        where = sign_in.sign_in_address(request)
        if "hx-request" in request.headers:  # htmx follows a redirect within the page; this header leaves the page
            return Response(status_code=401, headers={"HX-Redirect": where})
        return RedirectResponse(where, 303)
    if request.url.path.startswith(("/api", f"{DICOMWEB}/")) or "text/html" not in request.headers.get("accept", ""):
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
    with _listen(part.host, part.port) as listener:
        set_up_logging(settings)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings quote header values
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(settings.ledger_url)
        try:
            ledger.upgrade()
            if part.sign_in and part.proxy_sign_in is None and not ledger.has_accounts():
                _log.warning("there is no account yet, so nobody can sign in", add_the_first=FIRST_ACCOUNT)
            _log.info("worklist ready", host=part.host, port=listener.getsockname()[1])
            with stop_on_signal() as stop:
                _Server(server_config(create_app(settings, ledger)), stop).run(sockets=[listener])
        finally:
            ledger.close()


def server_config(app: FastAPI) -> uvicorn.Config:
    """How the server runs: it logs no addresses, which hold UIDs; whom it trusts is the application's affair."""
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        proxy_headers=False,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror})",
            where="worklist",
            do="stop the program that uses it, or set worklist.host and worklist.port",
        ) from error


class _Server(uvicorn.Server):
    """Uvicorn, stopped in the same way as every other part.

    Parameters
    ----------
    stop : threading.Event
        Ends it when it is set.
    """

    def __init__(self, config: uvicorn.Config, stop: threading.Event) -> None:
        super().__init__(config)
        self._stop = stop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no handlers: uvicorn's raise the signal again after a clean end."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop; uvicorn asks ten times per second."""
        return self._stop.is_set() or await super().on_tick(counter)
