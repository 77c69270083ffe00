"""A real nginx (Debian's) on free loopback ports: the proxy in front of the worklist."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_for

_MAIN = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{servers}
}}
"""


@contextmanager
def run_nginx(folder: Path, servers: str) -> Iterator[None]:
    """Run nginx with these ``map`` and ``server`` blocks until the block ends.

    Parameters
    ----------
    folder : Path
        Its configuration, log and temporary files.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert program is not None, "nginx is not installed; `make debian` installs it"
    folder.mkdir(parents=True)
    file = folder / "nginx.conf"
    file.write_text(_MAIN.format(folder=folder, servers=servers))
    process = subprocess.Popen([program, "-p", folder, "-e", folder / "error.log", "-c", file])

    def is_up() -> bool:
        assert process.poll() is None, (folder / "error.log").read_text()
        return (folder / "nginx.pid").is_file()  # written after it listens

    try:
        wait_for(is_up)
        yield
    finally:
        process.terminate()
        process.wait(30)
