"""The whole node as its users run it: `cmbnode up` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from node.ledger import Ledger
from node.settings import Settings
from node.web.documents import job_documents

from .classical import classical_routing
from .ports import free_port

AE_TITLE = "CMBNODE"


@dataclass(frozen=True)
class RunningNode:
    """A node that is up: its ports, its data folder, its process, and its ledger as somebody else reads it."""

    data: Path
    dicom_port: int
    http_port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    ledger: Ledger

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `cmbnode WORDS` with the node's settings."""
        return subprocess.run(
            [sys.executable, "-m", "node.cli", *words],
            env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def jobs(self) -> list[dict[str, Any]]:
        """Return what `cmbnode jobs --json` prints, without starting an interpreter each time it is asked."""
        return job_documents(self.ledger, self.ledger.jobs(limit=50))

    def part(self, name: str) -> psutil.Process:
        """Return the process of one part, such as ``receiver`` or ``worker --queue analyse``."""
        for child in psutil.Process(self.process.pid).children():
            if " ".join(child.cmdline()).strip() == f"cmbnode {name}":
                return child
        raise LookupError(name)


@contextmanager
def run_node(
    data: Path, destinations: dict[str, tuple[str, int]], dicom_port: int | None = None, **settings: str
) -> Iterator[RunningNode]:
    """Run the node until the block ends.

    Parameters
    ----------
    data : Path
        Its data folder; a log ``node.out`` is written beside what the node keeps there.
    destinations : dict
        Name to (AE title, loopback port).
    dicom_port : int, optional
        Where it listens; a free port if not given.
    **settings
        Further settings, as in the environment: ``SETTLING__QUIET_S="0.5"``.
    """
    data.mkdir(parents=True, exist_ok=True)
    dicom_port, http_port = dicom_port or free_port(), free_port()
    named = {
        "DATA_DIR": str(data),
        "AE_TITLE": AE_TITLE,
        "RECEIVER__HOST": "127.0.0.1",
        "RECEIVER__PORT": str(dicom_port),
        "WORKLIST__PORT": str(http_port),
        "WORKLIST__SIGN_IN": "false",
        "ARCHIVE__FREE_DISK_MB": "0",
        "ROUTING_FILE": str(classical_routing(data)),
        "SETTLING__QUIET_S": "1",
        "QUEUE__SWEEP_S": "0.3",
        "QUEUE__LEASE_S": "60",  # on a busy machine a heartbeat can be seconds late
        "QUEUE__RETRY_FIRST_S": "1",
        "DESTINATIONS": json.dumps(
            {name: {"ae_title": ae, "host": "127.0.0.1", "port": port} for name, (ae, port) in destinations.items()}
        ),
    } | settings
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CMBNODE_")}
    environment |= {f"CMBNODE_{name}": value for name, value in named.items()}
    with (data / "node.out").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "node.cli", "up"], env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: b"is ready after" in (data / "node.out").read_bytes(), 120, process, data / "node.out")
        with closing(Ledger(Settings(data_dir=data).ledger_url)) as ledger:
            yield RunningNode(data, dicom_port, http_port, environment, process, ledger)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(
    condition: Callable[[], Any],
    limit_s: float,
    process: subprocess.Popen[bytes] | None = None,
    log: Path | None = None,
) -> Any:
    """Wait until `condition` gives something true, and return that; fail with the end of `log` if it never does."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        if found := condition():
            return found
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-4000:] if log else ""
    raise AssertionError(f"not within {limit_s:.0f} s\n{tail}")
