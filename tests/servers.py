"""Real servers for the tests: started on private sockets or free loopback ports, stopped again."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POSTGRES_SETTINGS = {
    "max_connections": "60",
    "deadlock_timeout": "200ms",
}
UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@contextmanager
def postgresql(durable: bool = False, address: str = "") -> Iterator[str]:
    """Run a PostgreSQL cluster of its own; gives the URL of an empty database.

    Unless `durable`, nothing is synced to disk: the tests do not cut the power. With an `address`, everybody in its
    network (/24) can connect there, and the URL leads there.
    """
    folder = Path(tempfile.mkdtemp(prefix="cmb-pg-", dir="/tmp"))  # a socket's path has at most 107 bytes
    user, _ = _postgresql_user()
    if os.geteuid() == 0:
        shutil.chown(folder, user, user)
    chosen = POSTGRES_SETTINGS | ({} if durable else UNSAFE_BUT_FAST)
    chosen |= {"unix_socket_directories": str(folder), "listen_addresses": address}
    try:
        _postgresql_run(
            folder, "initdb", "-D", str(folder / "data"), "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
            "--no-instructions",
        )  # fmt: skip
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.writelines(f"{name} = '{value}'\n" for name, value in chosen.items())
        if address:
            with (folder / "data" / "pg_hba.conf").open("a") as access:
                access.write(f"host all all {address}/24 trust\n")
        postgresql_command(folder, "start")
        try:
            yield f"postgresql://{user}@{address}/postgres" + ("" if address else f"?host={folder}")
        finally:
            postgresql_command(folder, "stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def postgresql_command(folder: Path, what: str, *more: str) -> None:
    """Start or stop the cluster below `folder`: ``postgresql_command(folder, "stop", "-m", "immediate")``."""
    # The log goes to a file: a pipe that the server keeps open would never end.
    log = ("-l", str(folder / "log")) if what == "start" else ()
    _postgresql_run(folder, "pg_ctl", "-D", str(folder / "data"), "-w", "-s", *log, what, *more)


def _postgresql_run(folder: Path, program: str, *arguments: str) -> None:
    command = [*_postgresql_user()[1], str(_postgresql_programs() / program), *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{program}: {done.stdout}")


def _postgresql_user() -> tuple[str, list[str]]:
    """Name the user the server runs as, and how to become it: PostgreSQL refuses root, so Debian's package has one."""
    if os.geteuid() == 0:
        return "postgres", ["runuser", "-u", "postgres", "--"]
    return pwd.getpwuid(os.geteuid()).pw_name, []


def _postgresql_programs() -> Path:
    """Find the folder of the server programs, which Debian keeps off the PATH."""
    found = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    if not found and (on_path := shutil.which("initdb")):
        found = [Path(on_path).resolve().parent]
    if not found:
        raise FileNotFoundError("no PostgreSQL server; install the Debian package postgresql")
    return found[-1]
