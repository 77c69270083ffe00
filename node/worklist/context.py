"""What do the routes share? Settings, ledger, templates, in one object on the application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from fastapi import Request
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from node.bell import Bell
from node.config import Settings
from node.ledger import Ledger
from node.worklist import words
from node.worklist.text import finalize

HERE = Path(__file__).parent
VERSION = version("cmb-node")


@dataclass(frozen=True)
class Context:
    """What a route needs."""

    settings: Settings
    ledger: Ledger
    bell: Bell | None
    templates: Jinja2Templates

    @property
    def archive(self) -> Path:
        """Folder that result paths in the ledger are relative to."""
        return self.settings.data_dir


def context_of(request: Request) -> Context:
    """The context of the application that serves this request."""
    return cast(Context, request.app.state.context)


def make_templates(settings: Settings, *values: Callable[[Request], dict[str, Any]]) -> Jinja2Templates:
    """Templates with escaping always on, and an error for every name that is not there.

    `values` give, for a request, what every template may ask for.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = words.clock
    environment.globals.update(version=VERSION, ae_title=settings.ae_title, dicom_port=settings.receiver.port)
    return Jinja2Templates(env=environment, context_processors=list(values))
