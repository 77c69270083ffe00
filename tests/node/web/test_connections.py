"""Slow and many clients cannot take the worklist's connections, and an error says nothing about a patient."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from node.logs import set_up_logging
from node.settings import load_settings
from node.web import connections
from tests.waiting import wait_for
from tests.web_server import port_of, serving

LIMIT_S = 0.5
PATIENCE_S = 30.0
LARGE = 20_000_000
"""More bytes than the buffers of both sides hold."""


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    def hello() -> str:
        return "hello"

    @app.get("/large")
    def large() -> str:
        return "x" * LARGE

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(b"x" * 100_000 for _ in range(LARGE // 100_000 + 1))

    @app.post("/")
    def error(patient: str) -> str:
        raise ValueError(f"cannot read {patient}")

    return app


@pytest.fixture
def server(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    for limit in ("REQUEST_S", "RESPONSE_S"):
        monkeypatch.setattr(connections, limit, LIMIT_S)
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 4)
    with serving(app) as server:
        yield server


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    return port_of(server)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def ask(port: int) -> bytes:
    """One whole request and its answer; empty if the connection was closed."""
    with connect(port) as client:
        try:
            client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: client.recv(65_536), b""))
        except ConnectionError:
            return b""


def closes(client: socket.socket, sends: str = "a") -> bool:
    """Whether the server closes the connection while the client waits, or sends one byte after the other."""
    deadline = time.monotonic() + PATIENCE_S
    client.settimeout(LIMIT_S / 5)
    while time.monotonic() < deadline:
        try:
            if client.recv(65_536) == b"":
                return True
        except TimeoutError:
            pass
        except ConnectionError:
            return True
        try:
            client.sendall(sends.encode())
        except OSError:
            return True
    return False


@pytest.mark.parametrize(
    "start",
    [
        b"G",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET",  # the second request on a connection
    ],
)
def test_a_client_that_sends_its_request_byte_by_byte_is_dropped(port: int, start: bytes) -> None:
    with connect(port) as client:
        client.sendall(start)
        assert closes(client)
    wait_for(lambda: b"hello" in ask(port))  # a busy machine may be too slow for the time limit itself


def test_a_client_that_says_nothing_is_dropped(port: int) -> None:
    with connect(port) as client:
        assert closes(client, "")


@pytest.mark.parametrize("path", [b"/large", b"/stream"])
def test_a_client_that_reads_no_response_is_dropped(server: uvicorn.Server, port: int, path: bytes) -> None:
    with connect(port) as client:
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        client.recv(1)
        assert len(server.server_state.connections) == 1
        deadline = time.monotonic() + PATIENCE_S
        while server.server_state.connections:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("path", [b"/large", b"/stream"])
def test_a_client_that_reads_slowly_gets_all_of_its_response(
    port: int, path: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "RESPONSE_S", PATIENCE_S)
    with connect(port) as client:
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        received, start = 0, time.monotonic()
        while time.monotonic() - start < 3 * LIMIT_S:
            time.sleep(0.1)  # it reads nothing for longer than a request may take
        while received < LARGE:
            part = client.recv(65_536)
            assert part
            received += len(part)


def test_open_connections_are_limited_and_free_again(port: int) -> None:
    with connect(port), connect(port), connect(port), connect(port):
        assert ask(port) == b""
    deadline = time.monotonic() + PATIENCE_S
    while b"hello" not in ask(port):
        assert time.monotonic() < deadline


def test_a_request_in_time_keeps_its_connection(port: int) -> None:
    with connect(port) as client:
        for _ in range(5):
            client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = b""
            while not answer.endswith(b'"hello"'):
                part = client.recv(65_536)
                assert part
                answer += part


def test_an_error_names_no_patient_in_the_log_or_the_answer(
    app: FastAPI, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    set_up_logging(load_settings(None, data_dir=tmp_path_factory.mktemp("log")))
    with serving(app) as server, connect(port_of(server)) as client:
        client.sendall(
            b"POST /?patient=Hopper HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    log = capsys.readouterr().err
    assert b" 500 " in answer
    assert "ValueError" in log
    assert "test_connections.py" in log
    assert b"Hopper" not in answer
    assert "Hopper" not in log
