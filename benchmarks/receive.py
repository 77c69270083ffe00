"""How many images a second does the node receive, beside DCMTK's storescp and Orthanc, in the same run?

    python -m benchmarks.receive [--images 400] [--repeats 3]

Sends MR slices of 512 x 448 (459 kB) from DCMTK's ``storescu`` over loopback, with ``TCP_NODELAY``, on one, four and
sixteen associations at once, plain and with TLS 1.3. Every server writes to the same disk. The node answers after fsync
and a committed ledger row; the others leave the bytes to the operating system.

The bare loop writes the same bytes as durably as the node, without a network: file, flush, rename, flush of the folder,
one committed row; from as many threads as there are associations. The serial limit is that of a receiver that receives
like ``storescp`` and then writes like the bare loop, one after the other: 1 / (1/storescp + 1/bare loop).

The rate counts from the start of the senders to the end of the last one, the set-up of the associations included; of
several repeats, taken in turns, the median is shown. Processor time is that of the node's processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from tests.certificates import Authority, Identity
from tests.dicom_factory import classic, write
from tests.orthanc import run_orthanc
from tests.ports import free_port

STORESCU, STORESCP = "/usr/bin/storescu", "/usr/bin/storescp"
ASSOCIATIONS = (1, 4, 16)
WARM_UP_IMAGES = 4
NODE, DCMTK, ORTHANC, BARE = "cmb-node", "DCMTK storescp", "Orthanc", "bare loop"
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


@dataclass(frozen=True)
class Tls:
    """Certificates of one side, and the authority of both."""

    identity: Identity
    ca_file: Path

    @property
    def dcmtk(self) -> list[str]:
        """Options of DCMTK's tools."""
        return ["+tls", str(self.identity.key), str(self.identity.certificate), "+cf", str(self.ca_file)]


@dataclass(frozen=True)
class Server:
    """A storage SCP that is being measured."""

    name: str
    ae_title: str
    port: int
    process: psutil.Process | None = None


@contextmanager
def node(folder: Path, tls: Tls | None) -> Iterator[Server]:
    port, other = free_port(), free_port()
    code = (
        "from node.settings import Settings; from node.receive.receiver import run_receiver; run_receiver(Settings())"
    )
    own = {"DATA_DIR": str(folder), "ARCHIVE__FREE_DISK_MB": "0", "RECEIVER__HOST": "127.0.0.1"}
    own["RECEIVER__MAX_ASSOCIATIONS"] = "32"
    own["RECEIVER__PORT"] = str(port if tls is None else other)
    if tls is not None:
        own["RECEIVER__TLS__PORT"], own["RECEIVER__TLS__CA_FILE"] = str(port), str(tls.ca_file)
        own["RECEIVER__TLS__CERTIFICATE"] = str(tls.identity.certificate)
        own["RECEIVER__TLS__CERTIFICATE_KEY"] = str(tls.identity.key)
    environment = ENVIRONMENT | {f"CMBNODE_{name}": value for name, value in own.items()}
    with running([sys.executable, "-c", code], port, environment) as process:
        yield Server(NODE, "CMBNODE", port, process)


@contextmanager
def storescp(folder: Path, tls: Tls | None) -> Iterator[Server]:
    port = free_port()
    command = [STORESCP, "--quiet", "--fork", "--output-directory", str(folder), "--max-pdu", "131072"]
    with running([*command, *(tls.dcmtk if tls else ()), str(port)], port, ENVIRONMENT) as process:
        yield Server(DCMTK, "STORESCP", port, process)


@contextmanager
def orthanc(folder: Path, tls: Tls | None) -> Iterator[Server]:
    more: dict[str, object] = {"ConcurrentJobs": 2}
    if tls is not None:
        more = {"DicomTlsEnabled": True, "DicomTlsPrivateKey": str(tls.identity.key)}
        more |= {"DicomTlsCertificate": str(tls.identity.certificate), "DicomTlsTrustedCertificates": str(tls.ca_file)}
    os.environ["TCP_NODELAY"] = "1"  # it is started by a helper that passes this process's environment on
    with run_orthanc(folder, **more) as server:
        yield Server(ORTHANC, server.ae_title, server.dicom_port)


@contextmanager
def running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[psutil.Process]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        watched = psutil.Process(process.pid)
        deadline = time.monotonic() + 30
        while not any(c.laddr.port == port for c in watched.net_connections("tcp") if c.status == psutil.CONN_LISTEN):
            if time.monotonic() > deadline:
                raise RuntimeError(f"nothing listens on port {port}")
            time.sleep(0.05)
        yield watched
    finally:
        process.terminate()
        process.wait(20)


SERVERS: tuple[Callable[[Path, Tls | None], AbstractContextManager[Server]], ...] = (node, storescp, orthanc)


def send(server: Server, folders: list[Path], tls: Tls | None) -> float:
    """Send each folder over an association of its own, all at the same time; seconds."""
    return send_shared([(server, folder) for folder in folders], tls)


def send_shared(work: list[tuple[Server, Path]], tls: Tls | None) -> float:
    """Send folders to their servers as :func:`send` does."""
    command = [STORESCU, "--quiet", "--required", "--scan-directories", *(tls.dcmtk if tls else ())]
    started = time.perf_counter()
    senders = [
        (server, subprocess.Popen([*command, "-aec", server.ae_title, "127.0.0.1", str(server.port), str(folder)],
                                  env=ENVIRONMENT))
        for server, folder in work
    ]  # fmt: skip
    failed = [(server.name, sender.args) for server, sender in senders if sender.wait(600) != 0]
    if failed:
        raise RuntimeError(f"not everything was taken: {failed}")
    return time.perf_counter() - started


def bare_loop(folder: Path, images: list[bytes], writers: int) -> float:
    """Write the images as durably as the node, from as many threads; seconds."""
    database = sqlite3.connect(folder / "rows.sqlite", check_same_thread=False, isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE rows (name TEXT)"):
        database.execute(statement)
    turn = threading.Lock()

    def store(number: int) -> None:
        part, whole = folder / f"{number}.part", folder / f"{number}.dcm"
        with part.open("wb", buffering=0) as file:
            file.write(images[number])
            os.fsync(file.fileno())
        part.rename(whole)
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        with turn:
            database.execute("INSERT INTO rows VALUES (?)", (whole.name,))

    started = time.perf_counter()
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(store, range(len(images))))
    seconds = time.perf_counter() - started
    database.close()
    return seconds


def make_images(folder: Path, images: int, associations: int, name: str) -> list[Path]:
    """Slices of one study, a series an association; other UIDs for every `name`."""
    rng = np.random.default_rng(1)
    volume = rng.integers(0, 4096, (images // associations, 448, 512), dtype=np.uint16)
    folders = []
    for number in range(associations):
        folders.append(folder / f"{name}-{number}")
        write(classic(volume, series_number=number + 1, description=name), folders[-1])
    return folders


@dataclass(frozen=True)
class Rates:
    """Images per second, and seconds of the node's processes per image, of every repeat."""

    images: dict[tuple[str, bool, int], list[float]]
    cpu: dict[tuple[bool, int], list[float]]

    def rate(self, name: str, tls: bool, associations: int) -> float:
        """The median; that of the bare loop does not depend on TLS."""
        return statistics.median(self.images[name, tls and name != BARE, associations])

    def limit(self, tls: bool, associations: int) -> float:
        """The serial limit."""
        return 1 / sum(1 / self.rate(name, tls, associations) for name in (DCMTK, BARE))


def measure(images: int, repeats: int, work: Path, tls: Tls) -> Rates:
    """Measure every receiver in turn, `repeats` times."""
    found = Rates({}, {})
    warm_up = make_images(work, WARM_UP_IMAGES, 1, "warm-up")
    for associations in ASSOCIATIONS:
        folders = make_images(work, images, associations, str(associations))
        contents = [path.read_bytes() for folder in folders for path in sorted(folder.iterdir())]
        for _ in range(repeats):
            for secure in (None, tls):
                for start in SERVERS:
                    _measure_one(found, start, secure, warm_up, folders, Path(tempfile.mkdtemp(dir=work)))
            store = Path(tempfile.mkdtemp(dir=work))
            rate = len(contents) / bare_loop(store, contents, associations)
            found.images.setdefault((BARE, False, associations), []).append(rate)
            shutil.rmtree(store)
    return found


def _measure_one(
    found: Rates,
    start: Callable[[Path, Tls | None], AbstractContextManager[Server]],
    tls: Tls | None,
    warm_up: list[Path],
    folders: list[Path],
    store: Path,
) -> None:
    count = sum(len(list(folder.iterdir())) for folder in folders)
    with start(store, tls) as server:
        send(server, warm_up, tls)
        before = cpu_seconds(server)
        seconds = send(server, folders, tls)
        used = cpu_seconds(server) - before
    shutil.rmtree(store)
    found.images.setdefault((server.name, tls is not None, len(folders)), []).append(count / seconds)
    if server.name == NODE:
        found.cpu.setdefault((tls is not None, len(folders)), []).append(used / count)


def cpu_seconds(server: Server) -> float:
    """Seconds that its processes have used."""
    if server.process is None:
        return 0.0
    processes = [server.process, *server.process.children(recursive=True)]
    return sum(sum(p.cpu_times()[:2]) for p in processes)


def table(rates: Rates) -> str:
    head = " | ".join(f"{n} association{'s' if n > 1 else ''}" for n in ASSOCIATIONS)
    lines = [f"| images/s | {head} |", "|---|" + "---:|" * len(ASSOCIATIONS)]

    def row(name: str, cells: list[str]) -> None:
        lines.append(f"| {name} | {' | '.join(cells)} |")

    for tls, suffix in ((False, ""), (True, ", TLS")):
        for name in (NODE, DCMTK, ORTHANC):
            row(name + suffix, [f"{rates.rate(name, tls, n):.0f}" for n in ASSOCIATIONS])
        row(f"serial limit{suffix}", [f"{rates.limit(tls, n):.0f}" for n in ASSOCIATIONS])
        shares = [f"{rates.rate(NODE, tls, n) / rates.limit(tls, n):.2f}" for n in ASSOCIATIONS]
        row(f"{NODE} / serial limit{suffix}", shares)
        times = [f"{1000 * statistics.median(rates.cpu[tls, n]):.1f}" for n in ASSOCIATIONS]
        row(f"{NODE}{suffix}: processor ms per image", times)
    row("bare loop, as durable, without a network", [f"{rates.rate(BARE, False, n):.0f}" for n in ASSOCIATIONS])
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400, help="images a measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where files go; default: the system's temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        authority = Authority(Path(work, "certificates"))
        tls = Tls(authority.issue("localhost", "127.0.0.1"), authority.ca_file)
        print(table(measure(options.images, options.repeats, Path(work), tls)))


if __name__ == "__main__":
    main()
