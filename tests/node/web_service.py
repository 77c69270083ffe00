"""A web service for the tests: answers as told, over real HTTP on a free loopback port."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Request:
    """What a client sent; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes


@dataclass(frozen=True)
class Response:
    """What it gets; a `hold` is waited for before the content goes."""

    status: int = 200
    content: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None


class Web:
    """Where a service listens, and what it was asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api"
        self.requests: list[Request] = []


@contextmanager
def web(answer: Callable[[Request], Response], port: int = 0) -> Iterator[Web]:
    """Serve `answer` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, self.rfile.read(length))
            served.requests.append(request)
            given = answer(request)
            self.send_response(given.status)
            for name, value in {"Content-Type": given.content_type, **given.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(given.content)))
            self.end_headers()
            if given.hold is not None:
                self.wfile.flush()
                given.hold.wait(30)
            self.wfile.write(given.content)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - as http.server wants it

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that hangs up is no news."""

    server = Server(("127.0.0.1", port), Handler)
    served = Web(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
