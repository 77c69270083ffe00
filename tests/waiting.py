"""How does a test wait? For a condition, never for a fixed time."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any


def wait_for(what: Callable[[], Any], limit_s: float = 180, every_s: float = 0.02) -> Any:
    """Wait until `what` gives something true, and give it back; fail if it never does."""
    deadline = time.monotonic() + limit_s
    while not (value := what()):
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {_source(what)}"
        time.sleep(every_s)
    return value


def _source(what: Callable[[], Any]) -> str:
    """What is waited for, so that the one line of a failed run says it."""
    try:
        return " ".join(inspect.getsource(what).split())
    except (OSError, TypeError):  # no source, as with a method of a library in C
        return repr(what)
