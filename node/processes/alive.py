"""Does this process still do its work? It touches a file of its own; a health check asks how old the file is.

Whoever starts a process names its file in ``CMBNODE_ALIVE_FILE``: ``cmbnode up`` for each of its parts, the container
image for its one command. Each loop that does work calls :func:`beat` as it goes round.
``python -m node.processes.alive`` is the health check of a container; it imports nothing but the standard library,
since it runs every half minute.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

ALIVE_FILE = "CMBNODE_ALIVE_FILE"
SILENCE_LIMIT_S = 60.0
"""A process whose file is older than this hangs."""
ALSO: list[Callable[[], None]] = []
"""What else :func:`beat` does: a part of the node also says in the data folder that it works (:mod:`.parts`)."""


def beat() -> None:
    """Touch the file that the environment names, if it names one."""
    for each in ALSO:
        each()
    if name := os.environ.get(ALIVE_FILE):
        try:
            Path(name).touch()
        except FileNotFoundError:  # the first time
            Path(name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            Path(name).touch()


def judge() -> str | None:
    """Say what is wrong with the process whose file the environment names; ``None``: nothing."""
    name = os.environ.get(ALIVE_FILE)
    if not name:
        return f"{ALIVE_FILE} is not set"
    try:
        age_s = time.time() - Path(name).stat().st_mtime
    except FileNotFoundError:
        return f"{name}: not there; the process has not begun its work"
    return None if age_s < SILENCE_LIMIT_S else f"{name}: last touched {age_s:.0f} s ago"


if __name__ == "__main__":
    sys.exit(judge())
