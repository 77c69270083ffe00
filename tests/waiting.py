"""How does a test wait? For a condition, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_for(what: Callable[[], Any], limit_s: float = 90, every_s: float = 0.02) -> Any:
    """Wait until `what` gives something true, and give it back; fail if it never does."""
    deadline = time.monotonic() + limit_s
    while not (value := what()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(every_s)
    return value
