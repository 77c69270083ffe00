"""What do the routes share? Settings, ledger and templates, in one object on the application."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from fastapi import Request
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from node.ledger import Job, JobState, Ledger
from node.queue import JobQueue, QueueAwayError
from node.settings import Settings
from node.text import printable

from . import labels

MOST_LOOKS = 10_000
HERE = Path(__file__).parent
VERSION = version("cmb-node")


@dataclass(frozen=True)
class Context:
    """What a route needs.

    `looks` is the audit's memory: when each session last recorded each look. `under_way` is what
    :meth:`one_at_a_time` guards.
    """

    settings: Settings
    ledger: Ledger
    job_queue: JobQueue | None
    templates: Jinja2Templates
    looks: dict[tuple[str, ...], float] = field(default_factory=dict)
    under_way: dict[str, threading.Lock] = field(default_factory=dict)

    @property
    def archive(self) -> Path:
        """The folder that the ledger's result paths are relative to."""
        return self.settings.data_dir

    def is_news(self, what: tuple[str, ...], within_s: float) -> bool:
        """Whether this was not noted in the last `within_s` seconds; if so, note it."""
        now = time.monotonic()
        if now - self.looks.get(what, -within_s) < within_s:
            return False
        if len(self.looks) >= MOST_LOOKS:
            self.looks.clear()
        self.looks[what] = now
        return True

    @contextmanager
    def one_at_a_time(self, what: str) -> Iterator[bool]:
        """Whether nobody else does this now, in this process; while the block runs, nobody else does."""
        lock = self.under_way.setdefault(what, threading.Lock())
        is_free = lock.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                lock.release()

    def signal(self, job: Job) -> None:
        """Tell the workers what a person has set going. If Redis is away, the sweep tells them later."""
        if self.job_queue is None:
            return
        with suppress(QueueAwayError):
            if job.state is JobState.QUEUED:
                self.job_queue.analyse(job.id, job.priority)
            elif job.state is JobState.DELIVERING:
                for destination in job.destinations:
                    self.job_queue.deliver(destination)


def context_of(request: Request) -> Context:
    """The context of the application that serves this request."""
    return cast(Context, request.app.state.context)


def make_templates(settings: Settings, *values: Callable[[Request], dict[str, Any]]) -> Jinja2Templates:
    """Load the templates: they always escape, and an unknown name is an error.

    `values` return, for a request, the values that every template gets.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = labels.clock
    environment.globals.update(version=VERSION, ae_title=settings.ae_title, dicom_port=settings.receiver.port)
    return Jinja2Templates(env=environment, context_processors=list(values))


def _printable(value: object) -> object:
    """Every text that a template puts out; what is markup already stays."""
    return printable(value) if type(value) is str else value
