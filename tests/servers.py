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
    "listen_addresses": "",  # a socket in its own folder is all it opens
    "max_connections": "60",
    "deadlock_timeout": "200ms",
}
UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@contextmanager
def postgresql(durable: bool = False) -> Iterator[str]:
    """Run a PostgreSQL cluster of its own; gives the URL of an empty database.

    Unless `durable`, nothing is synced to disk: the tests do not cut the power.
    """
    programs = _postgresql_programs()
    folder = Path(tempfile.mkdtemp(prefix="cmb-pg-", dir="/tmp"))  # a socket's path has at most 107 bytes
    as_user: list[str] = []
    user = pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root; Debian's package makes this user
        user = "postgres"
        shutil.chown(folder, user, user)
        as_user = ["runuser", "-u", user, "--"]

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(programs / program), *arguments]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stdout}")

    data = folder / "data"
    log = folder / "log"
    try:
        run(
            "initdb", "-D", str(data), "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"
        )
        chosen = POSTGRES_SETTINGS | ({} if durable else UNSAFE_BUT_FAST)
        options = " ".join(f"-c {name}={value!r}" for name, value in chosen.items())
        # The log goes to a file: a pipe that the server keeps open would never end.
        run("pg_ctl", "-D", str(data), "-w", "-s", "-l", str(log), "-o", f"{options} -k {folder}", "start")
        try:
            yield f"postgresql://{user}@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", str(data), "-w", "-s", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _postgresql_programs() -> Path:
    """Find the folder of the server programs, which Debian keeps off the PATH."""
    found = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    if not found and (on_path := shutil.which("initdb")):
        found = [Path(on_path).resolve().parent]
    if not found:
        raise FileNotFoundError("no PostgreSQL server; install the Debian package postgresql")
    return found[-1]
