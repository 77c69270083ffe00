"""A real rsyslog (Debian's) on a free loopback port, receiving by TLS: an audit repository that others have written."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node.processes.process import listens
from tests.audit_repository import BOM, Event
from tests.certificates import Authority, Identity
from tests.ports import free_port
from tests.waiting import wait_for

_CONFIGURATION = """
global(
  workDirectory="{folder}"
  maxMessageSize="64k"
  defaultNetstreamDriverCAFile="{ca_file}"
  defaultNetstreamDriverCertFile="{own.certificate}"
  defaultNetstreamDriverKeyFile="{own.key}"
  parser.escapeControlCharactersOnReceive="off"
)
module(
  load="imtcp"
  streamDriver.name="ossl"
  streamDriver.mode="1"
  streamDriver.authMode="x509/certvalid"
)
template(name="audit" type="string" string="%pri% %app-name% %msgid% %msg%\\n")
input(type="imtcp" address="127.0.0.1" port="{port}")
action(type="omfile" file="{file}" template="audit")
"""


@dataclass(frozen=True)
class Rsyslog:
    """What rsyslog has written."""

    port: int
    file: Path

    @property
    def lines(self) -> list[bytes]:
        """PRI, application, kind and content of each message."""
        return self.file.read_bytes().splitlines() if self.file.exists() else []

    @property
    def events(self) -> list[Event]:
        return [Event(line.split(b" ", 3)[3].strip().removeprefix(BOM)) for line in self.lines]


@contextmanager
def run_rsyslog(folder: Path, authority: Authority, own: Identity, port: int = 0) -> Iterator[Rsyslog]:
    """Run rsyslog until the block ends; it takes messages from whoever shows a certificate of the authority."""
    program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
    assert program is not None, "rsyslog is not installed; `make debian` installs it"
    folder.mkdir(parents=True, exist_ok=True)
    repository = Rsyslog(port or free_port(), folder / "audit.log")
    values = {"folder": folder, "ca_file": authority.ca_file, "own": own, "file": repository.file}
    file = folder / "rsyslog.conf"
    file.write_text(_CONFIGURATION.format(**values, port=repository.port))
    with (folder / "rsyslog.out").open("wb") as out:
        command = [program, "-n", "-f", str(file), "-i", str(folder / "rsyslog.pid")]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_for(lambda: process.poll() is not None or listens(process.pid, repository.port))
        assert process.poll() is None, (folder / "rsyslog.out").read_text()
        yield repository
    finally:
        process.terminate()
        process.wait(30)
