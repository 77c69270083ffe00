"""An application served as the worklist is served, on a free loopback port."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from node.web.app import server_config

PATIENCE_S = 60.0


@contextmanager
def serving(app: FastAPI) -> Iterator[uvicorn.Server]:
    """Serve `app` until the block ends; gives the running server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(server_config(app))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        try:
            yield server
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


def port_of(server: uvicorn.Server) -> int:
    return int(server.servers[0].sockets[0].getsockname()[1])


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve `app` until the block ends; gives its address."""
    with serving(app) as server:
        yield f"http://127.0.0.1:{port_of(server)}"
