"""What does a person see? The worklist page, its JSON API, health and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.settings import Settings


def run_worklist(settings: Settings) -> None:
    """Serve the worklist until SIGTERM or SIGINT."""
    from .app import serve

    serve(settings)
