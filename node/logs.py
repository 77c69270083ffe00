"""What do log lines look like, and where do they go? (standard error; text for people or JSON for collectors)

Lines name UIDs, AE titles and addresses, never a patient. The text of a library's exception may quote a header value,
and pydicom's warnings do. So a line shows only the type of an exception and its place in the code, and its text only if
it is about files, sockets and settings; pydicom's messages are not logged.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

import structlog

from pipeline.errors import CmbError, type_and_place

from .settings import Settings
from .text import printable

_QUIET = ("kombu", "celery", "amqp", "httpx", "uvicorn.access", "alembic")
"""Libraries whose lines below a warning tell an administrator nothing."""
_SILENT = ("pydicom", "py.warnings", "highdicom", "pynetdicom")
"""Loggers whose messages quote values of data elements or what a peer sent; the node's own lines say what happened."""
_TELLING = (CmbError, OSError)
"""Exceptions whose text is about files, sockets and settings, not about data elements."""
_MOST_FRAMES = 12


def set_up_logging(settings: Settings) -> None:
    """Send the log of the node and of its libraries to standard error, in the format of the settings."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        add_time,
        describe_exception,
        keep_to_one_line,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            keep_exc_info=False,
        )
    )
    handler.addFilter(_is_shown)  # not by their levels: pydicom sets its own when it is imported
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _is_shown(record: logging.LogRecord) -> bool:
    return not any(record.name == name or record.name.startswith(f"{name}.") for name in _SILENT)


def add_time(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the time, written as the API writes times: ``2026-11-26T08:15:02.413+00:00``."""
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds")
    return event


def describe_exception(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace an exception by its type, its place and, if it is safe, its text."""
    given = event.pop("exc_info", None)
    if not given:
        return event
    error = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else sys.exc_info()[1]
    if error is not None:
        event["error"] = f"{type(error).__name__}: {error}" if isinstance(error, _TELLING) else type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
        event["at"] = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[::-1])
    return event


def explain(error: BaseException) -> str:
    """Describe an exception for the ledger, a page or an answer: its type, and its place or, if it is safe, its text.

    The text of a library's exception may quote the data element that it failed on, and so a patient's name.

    >>> explain(FileNotFoundError(2, "No such file or directory", "sr.dcm"))
    "FileNotFoundError: [Errno 2] No such file or directory: 'sr.dcm'"
    """
    return f"{type(error).__name__}: {error}" if isinstance(error, _TELLING) else type_and_place(error)


def keep_to_one_line(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace control characters, with which a peer could forge lines or control a terminal."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = printable(value)
    return event
