"""How do the node's log lines look, and where do they go? (standard error; text for people or JSON for collectors)

Lines name UIDs, AE titles and addresses, never a patient. Our own calls keep to that; two things would not: the text of
a library's exception may quote the value it stumbled over, and pydicom's warnings always do. So of an exception only
its type and its place in the code are shown, with the text only for those that speak of files, sockets and settings.
pydicom's warnings are silent.
"""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path

import structlog

from node.config import Settings
from pipeline.errors import CmbError

_QUIET = ("kombu", "celery", "amqp", "httpx", "uvicorn.access", "alembic")
"""Libraries whose own lines below a warning say nothing to an administrator."""
_QUOTING = ("pydicom", "py.warnings", "highdicom")
"""Loggers whose warnings quote values of data elements."""
_SILENT = ("pynetdicom",)
"""It logs exceptions by their text, and everything that a stranger sends; the node's own lines say what happened."""
_TELLING = (CmbError, OSError)
"""Exceptions whose text speaks of files, sockets and settings, not of data elements."""
_MOST_FRAMES = 12


def set_up_logging(settings: Settings) -> None:
    """Send the log of the node and of its libraries to standard error, in the format of the settings."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
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
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            keep_exc_info=False,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _QUOTING:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def describe_exception(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace an exception by its type, its place and, if it is safe to show, its text."""
    given = event.pop("exc_info", None)
    if not given:
        return event
    error = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else sys.exc_info()[1]
    if error is not None:
        event["error"] = f"{type(error).__name__}: {error}" if isinstance(error, _TELLING) else type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
        event["at"] = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[::-1])
    return event


def keep_to_one_line(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace control characters, which a peer could use to forge lines or to steer a terminal."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "".join(letter if letter.isprintable() else "�" for letter in value)
    return event
