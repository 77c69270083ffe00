"""What the faults strike: a node, its database, two destinations, a sender, each a real program."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
from pydicom import dcmread

from node.deliver import Unreachable
from node.deliver.scu import Peer, read_outgoing, send
from node.ledger import Ledger
from node.processes.forked import die_with_parent
from tests.classical import classical_routing
from tests.orthanc import Orthanc, run_orthanc
from tests.ports import free_port
from tests.servers import postgresql, postgresql_command

from .proxy import Proxy

ROOT = Path(__file__).parents[2]
SETTINGS = """
data_dir = "{data}"
routing_file = "{routing}"
{database}
[receiver]
host = "127.0.0.1"
port = {port}
[worklist]
port = {page}
[settling]
quiet_s = 1
limit_s = 30
[queue]
lease_s = 5
sweep_s = 0.5
retry_first_s = 0.5
retry_longest_s = 3
[archive]
free_disk_mb = 16
[destinations.archive]
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive}
timeout_s = 10
[destinations.pacs]
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {pacs}
timeout_s = 10
"""


@dataclass
class Program:
    """A server that is started again whenever it ends, as an init system does; unless it is kept down."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    down: bool = False

    def keep_up(self) -> None:
        """Start it if it has ended."""
        if not self.down and (self.process is None or self.process.poll() is not None):
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    self.command, env=self.environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
                    preexec_fn=partial(die_with_parent, os.getpid()),
                )  # fmt: skip

    def signal(self, number: int) -> bool:
        """Send a signal; false if it does not run."""
        if self.process is None or self.process.poll() is not None:
            return False
        self.process.send_signal(number)
        return True


class Site:
    """A running site.

    Parameters
    ----------
    folder : Path
        Logs, studies, and the destinations' storage.
    data : Path
        The node's data folder; on a disk of its own if the campaign fills it.
    database : str
        ``sqlite`` or ``postgresql``.
    """

    def __init__(self, folder: Path, data: Path, database: str, stack: ExitStack) -> None:
        self.folder, self.data, self.database = folder, data, database
        self.port, self.inbox = free_port(), folder / "inbox"
        self.inbox.mkdir()
        self.clock = folder / "clock"
        self.turn_clock(0)
        self.url = stack.enter_context(postgresql(durable=True)) if database == "postgresql" else ""
        self.ledger_url = self.url.replace("postgresql:", "postgresql+psycopg:") or f"sqlite:///{data}/ledger.sqlite3"
        archive_port, self._pacs_ports = free_port(), (free_port(), free_port())
        self.archive = Program(
            ["/usr/bin/storescp", "-od", str(self.inbox), "-aet", "ARCHIVE", str(archive_port)],
            dict(os.environ), folder / "storescp.log",
        )  # fmt: skip
        config = folder / "node.toml"
        config.write_text(
            SETTINGS.format(
                data=data, routing=classical_routing(folder), port=self.port, page=free_port(), archive=archive_port,
                pacs=self._pacs_ports[0], database=f'database_url = "{self.ledger_url}"' if self.url else "",
            )
        )  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CMBNODE_")} | {"OMP_NUM_THREADS": "1"}
        environment |= {"LD_PRELOAD": str(_clock_library(folder)), "CHAOS_CLOCK": str(self.clock)}
        command = [sys.executable, "-m", "node.cli", "up", "--config", str(config)]
        self.node = Program(command, environment, folder / "node.log")
        self.proxy = Proxy(self.port)
        self._stack, self._over = stack, threading.Event()
        self._pacs: ExitStack | None = None
        self.pacs: Orthanc | None = None
        stack.callback(self._end)
        self.start_pacs()
        threading.Thread(target=self._keep_up, daemon=True).start()

    def _keep_up(self) -> None:
        while not self._over.wait(0.5):
            self.node.keep_up()
            self.archive.keep_up()

    def _end(self) -> None:
        self._over.set()
        self.node.down = self.archive.down = True
        family = self.family()
        for program in (self.node, self.archive):
            program.signal(signal.SIGCONT)
            program.signal(signal.SIGTERM)
        for program in (self.node, self.archive):
            with suppress(subprocess.TimeoutExpired):
                if program.process is not None:
                    program.process.wait(30)
        for member in [*family, *(psutil.Process(p.process.pid) for p in (self.archive,) if p.signal(0) and p.process)]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self.stop_pacs()
        self.proxy.close()

    def family(self) -> list[psutil.Process]:
        """All processes of the node."""
        if self.node.process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.node.process.pid)
            return [top, *top.children(recursive=True)]
        return []

    def part(self, *words: str) -> psutil.Process | None:
        """The process of one part: ``part("worker", "analyse")``."""
        for member in self.family()[1:]:
            with suppress(psutil.NoSuchProcess):
                command = member.cmdline()
                if all(any(word in piece for piece in command) for word in words):
                    return member
        return None

    def start_pacs(self) -> None:
        """Start Orthanc, on what it stored before."""
        self._pacs = ExitStack()
        self.pacs = self._pacs.enter_context(run_orthanc(self.folder / "orthanc", ports=self._pacs_ports))

    def stop_pacs(self) -> None:
        """Stop Orthanc; what it stored stays."""
        if self._pacs is not None:
            self._pacs.close()
            self._pacs = self.pacs = None

    def turn_clock(self, seconds: int) -> None:
        """Let every process of the node see a time that is off by so much."""
        with self.clock.open("r+b" if self.clock.exists() else "w+b") as file:
            file.write(struct.pack("l", seconds))  # in place: the processes have it mapped

    @contextmanager
    def database_away(self) -> Iterator[None]:
        """Nobody can write to the ledger inside the block (SQLite), or the server is down (PostgreSQL)."""
        if self.url:
            folder = Path(parse_qs(urlsplit(self.url).query)["host"][0])
            postgresql_command(folder, "stop", "-m", "immediate")
            try:
                yield
            finally:
                postgresql_command(folder, "start")
        else:
            with contextlib.closing(sqlite3.connect(self.data / "ledger.sqlite3", timeout=10)) as connection:
                connection.execute("BEGIN EXCLUSIVE")
                yield

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        ledger = Ledger(self.ledger_url)
        try:
            yield ledger
        finally:
            ledger.close()

    def send(self, paths: list[Path], limit_s: float = 600) -> float | None:
        """Send a study as a PACS does: what was not accepted again, until all was; seconds, or none if it never was."""
        started = time.monotonic()
        left = [outgoing for path in paths if (outgoing := read_outgoing(path)) is not None]
        while left and time.monotonic() - started < limit_s:
            accepted: set[Path] = set()
            try:
                answers = send(left, Peer("CMBNODE", "127.0.0.1", self.proxy.port), "MODALITY", timeout_s=8)
                accepted = {sent.path for sent in answers if sent.accepted}
            except (Unreachable, OSError):
                pass
            left = [outgoing for outgoing in left if outgoing.path not in accepted]
            if left:
                time.sleep(0.5)
        return None if left else time.monotonic() - started

    def arrived(self) -> dict[str, dict[str, set[str]]]:
        """By destination and study: the SOP Instance UIDs that are there."""
        stored: dict[str, dict[str, set[str]]] = {"archive": {}, "pacs": {}}
        for path in self.inbox.iterdir():
            header = dcmread(path, specific_tags=["StudyInstanceUID", "SOPInstanceUID"])
            stored["archive"].setdefault(str(header.StudyInstanceUID), set()).add(str(header.SOPInstanceUID))
        assert self.pacs is not None
        for study in self.pacs.get("/studies", expand=""):
            uid = study["MainDicomTags"]["StudyInstanceUID"]
            query = {"Level": "Instance", "Expand": True, "Query": {"StudyInstanceUID": uid}}
            found = self.pacs.http.post("/tools/find", json=query).json()
            stored["pacs"][uid] = {instance["MainDicomTags"]["SOPInstanceUID"] for instance in found}
        return stored


def _clock_library(folder: Path) -> Path:
    library = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@contextmanager
def running_site(folder: Path, database: str, disk: Path | None = None) -> Iterator[Site]:
    """Run a site below `folder`; `disk` is a small file system for the node's data, if there is one."""
    data = (disk or folder) / "data"
    data.mkdir(mode=0o700)
    with ExitStack() as stack:
        yield Site(folder, data, database, stack)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """A file system of its own in memory; none where this process may not mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
