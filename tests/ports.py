"""Which port may a test give to a server that it starts later?"""

from __future__ import annotations

import itertools
import os
import random
import socket

_FIRST, _EACH, _WORKERS = 10_000, 2_500, 9
"""Below 32768, where Linux begins to give ports to outgoing connections: none of them takes the port first."""

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_OFFSETS = itertools.count(random.SystemRandom().randrange(_EACH))


def free_port() -> int:
    """Return a loopback port that nobody uses, and that no other test of this run was given."""
    for offset in itertools.islice(_OFFSETS, _EACH):
        port = _FIRST + _EACH * _WORKER + offset % _EACH
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
