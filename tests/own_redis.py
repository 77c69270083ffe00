"""A real Redis for one test, as `cmbnode up` starts it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node.run.redis_server import EmbeddedRedis


@contextmanager
def own_redis(folder: Path) -> Iterator[EmbeddedRedis]:
    """Run a Redis with its data in `folder`; it is stopped at the end."""
    server = EmbeddedRedis(folder)
    server.prepare()
    process = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not server.answers():
            assert process.poll() is None, "redis-server ended"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.02)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)
