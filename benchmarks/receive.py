"""How many images a second does the node receive, beside DCMTK's storescp and Orthanc, in the same run?

    python -m benchmarks.receive [--images 400] [--repeats 3]

Sends MR slices of 512 x 448 (459 kB) from DCMTK's ``storescu`` over loopback, on one and on four associations at once,
with and without ``TCP_NODELAY`` (an environment variable that DCMTK, and so Orthanc, reads; the node always sets it on
its own side). Every server writes to the same disk. The node answers after fsync and a committed ledger row; the others
leave the bytes to the operating system. The rate counts from the start of the senders to the end of the last one, the
set-up of the associations included; of several repeats, taken in turns, the median is shown.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.dicom_factory import classic, write
from tests.orthanc import free_port, run_orthanc

STORESCU, STORESCP = "/usr/bin/storescu", "/usr/bin/storescp"
WARM_UP_IMAGES = 4


@dataclass(frozen=True)
class Server:
    """A storage SCP that is being measured."""

    name: str
    ae_title: str
    port: int


@contextmanager
def node(folder: Path, environment: dict[str, str]) -> Iterator[Server]:
    port = free_port()
    code = (
        "from node.settings import Settings; from node.receive.receiver import run_receiver; run_receiver(Settings())"
    )
    own = {"CMBNODE_DATA_DIR": str(folder), "CMBNODE_RECEIVER__PORT": str(port), "CMBNODE_RECEIVER__HOST": "127.0.0.1"}
    own["CMBNODE_ARCHIVE__FREE_DISK_MB"] = "0"
    with running([sys.executable, "-c", code], environment | own, port):
        yield Server("cmb-node", "CMBNODE", port)


@contextmanager
def storescp(folder: Path, environment: dict[str, str]) -> Iterator[Server]:
    port = free_port()
    command = [STORESCP, "--quiet", "--fork", "--output-directory", str(folder), "--max-pdu", "131072", str(port)]
    with running(command, environment, port):
        yield Server("DCMTK storescp", "STORESCP", port)


@contextmanager
def orthanc(folder: Path, environment: dict[str, str]) -> Iterator[Server]:
    before = dict(os.environ)
    os.environ.update(environment)  # it is started by a helper that passes its own environment on
    try:
        with run_orthanc(folder) as server:
            yield Server("Orthanc", server.ae_title, server.dicom_port)
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def running(command: list[str], environment: dict[str, str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield
    finally:
        process.terminate()
        process.wait(20)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done = subprocess.run(["/usr/bin/echoscu", "127.0.0.1", str(port)], capture_output=True, check=False)
        if b"Refused" in done.stderr or b"Rejected" in done.stderr or done.returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing answers on port {port}")


SERVERS = (node, storescp, orthanc)


def send(server: Server, folders: list[Path], environment: dict[str, str]) -> float:
    """Send each folder over an association of its own, all at the same time; seconds."""
    command = [STORESCU, "--quiet", "-aec", server.ae_title, "--required", "--scan-directories", "127.0.0.1"]
    started = time.perf_counter()
    senders = [subprocess.Popen([*command, str(server.port), str(folder)], env=environment) for folder in folders]
    failed = [sender.args for sender in senders if sender.wait(600) != 0]
    if failed:
        raise RuntimeError(f"{server.name} did not take everything: {failed}")
    return time.perf_counter() - started


def make_images(folder: Path, images: int, associations: int, name: str) -> list[Path]:
    """Slices of one study, a series an association; other UIDs for every `name`."""
    rng = np.random.default_rng(1)
    volume = rng.integers(0, 4096, (images // associations, 448, 512), dtype=np.uint16)
    folders = []
    for number in range(associations):
        folders.append(folder / f"{name}-{number}")
        write(classic(volume, series_number=number + 1, description=name), folders[-1])
    return folders


def measure(images: int, slow_images: int, repeats: int, work: Path) -> dict[tuple[str, bool, int], float]:
    """Median images per second by server, TCP_NODELAY and number of associations."""
    rates: dict[tuple[str, bool, int], list[float]] = {}
    warm_up = make_images(work, WARM_UP_IMAGES, 1, "warm-up")
    for no_delay, count in ((True, images), (False, slow_images)):
        environment = {**os.environ, "TCP_NODELAY": "1" if no_delay else "0"}
        for associations in (1, 4):
            folders = make_images(work, count, associations, f"{no_delay}-{associations}")
            for _ in range(repeats if no_delay else 1):
                for start in SERVERS:
                    store = Path(tempfile.mkdtemp(dir=work))
                    with start(store, environment) as server:
                        send(server, warm_up, environment)
                        seconds = send(server, folders, environment)
                    shutil.rmtree(store)
                    rates.setdefault((server.name, no_delay, associations), []).append(count / seconds)
    return {key: statistics.median(values) for key, values in rates.items()}


def table(rates: dict[tuple[str, bool, int], float]) -> str:
    lines = ["| receiver | TCP_NODELAY | images/s, 1 association | images/s, 4 associations | relative to storescp |"]
    lines.append("|---|---|---:|---:|---:|")
    for no_delay in (True, False):
        for name in ("cmb-node", "DCMTK storescp", "Orthanc"):
            one, four = rates[name, no_delay, 1], rates[name, no_delay, 4]
            base = [rates["DCMTK storescp", no_delay, associations] for associations in (1, 4)]
            relative = f"{one / base[0]:.2f} / {four / base[1]:.2f}"
            lines.append(f"| {name} | {'yes' if no_delay else 'no'} | {one:.0f} | {four:.0f} | {relative} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400, help="images a measurement")
    parser.add_argument("--slow-images", type=int, default=80, help="images a measurement without TCP_NODELAY")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where files go; default: the system's temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        print(table(measure(options.images, options.slow_images, options.repeats, Path(work))))


if __name__ == "__main__":
    main()
