"""A node that can be killed part by part and started again on the same data, and studies to send to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pynetdicom import AE, AllStoragePresentationContexts, evt

from node.deliver.scu import Peer, read_outgoing, send
from node.ledger import Job, JobState, Ledger
from node.run.redis_server import EmbeddedRedis
from tests.classical import classical_routing
from tests.dicom_factory import Patient, affine, siemens_swi, write
from tests.ports import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
SETTINGS = """
data_dir = "{data}"
routing_file = "{routing}"
[receiver]
host = "127.0.0.1"
port = {port}
[worklist]
port = {page}
[settling]
quiet_s = 0.5
[queue]
lease_s = 3
sweep_s = 0.2
retry_first_s = 0.5
retry_longest_s = 1
[archive]
free_disk_mb = 0
"""


class Pacs:
    """A storage SCP that counts how often it was sent each object, and can be held while it stores one."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.sent: Counter[str] = Counter()
        self.studies: dict[str, set[str]] = {}
        self.holding = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        entity = AE(ae_title="PACS")
        entity.supported_contexts = AllStoragePresentationContexts
        self.server = entity.start_server((host, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        self.port = int(self.server.server_address[1])

    def hold(self) -> None:
        """Keep the next object, and do not answer until :meth:`release`."""
        self.holding.clear()
        self.go_on.clear()

    def release(self) -> None:
        self.go_on.set()

    def _store(self, event: Any) -> int:
        dataset = event.dataset
        self.sent[str(dataset.SOPInstanceUID)] += 1
        self.studies.setdefault(str(dataset.StudyInstanceUID), set()).add(str(dataset.SOPInstanceUID))
        self.holding.set()
        self.go_on.wait(60)
        return 0x0000


@contextmanager
def running_pacs(host: str = "127.0.0.1") -> Iterator[Pacs]:
    pacs = Pacs(host)
    try:
        yield pacs
    finally:
        pacs.release()
        pacs.server.shutdown()


class KillableNode:
    """`cmbnode up` as a process of its own."""

    def __init__(self, folder: Path, destinations: Mapping[str, tuple[str, int]]) -> None:
        self.folder, self.data = folder, folder / "data"
        self.port, self.config = free_port(), folder / "node.toml"
        self.data.mkdir(parents=True, exist_ok=True)
        text = SETTINGS.format(data=self.data, routing=classical_routing(self.data), port=self.port, page=free_port())
        for name, (title, port) in destinations.items():
            text += f'[destinations.{name}]\nae_title = "{title}"\nhost = "127.0.0.1"\nport = {port}\ntimeout_s = 20\n'
        self.config.write_text(text)
        self.process: subprocess.Popen[str] | None = None
        self.said: list[str] = []

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self.said.clear()
        command = [sys.executable, "-m", "node.cli", "up", "--config", str(self.config)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()
        wait_for(lambda: any("is ready" in line for line in self.said) or self.process.poll() is not None)
        assert self.process.poll() is None, "the node does not start"

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.said.append(line.rstrip())

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def end(self) -> None:
        """Whatever state it is in: nothing of it is left."""
        if self.process is not None and self.process.poll() is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait(timeout=20)
            for member in family:
                if member.is_running():
                    member.kill()

    def part(self, *words: str) -> psutil.Process:
        """The process of one part: ``part("worker", "analyse")``."""

        def find() -> psutil.Process | None:
            assert self.process is not None
            for child in psutil.Process(self.process.pid).children():
                try:
                    command = child.cmdline()
                except psutil.NoSuchProcess:
                    continue
                if all(any(word in piece for piece in command) for word in words):
                    return child
            return None

        found: psutil.Process = wait_for(find)
        return found

    @property
    def redis(self) -> EmbeddedRedis:
        return EmbeddedRedis(self.data / "redis")

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        ledger = Ledger(f"sqlite:///{self.data / 'ledger.sqlite3'}")
        try:
            yield ledger
        finally:
            ledger.close()

    @property
    def peer(self) -> Peer:
        return Peer("CMBNODE", "127.0.0.1", self.port)

    def send(self, paths: list[Path]) -> list[bool]:
        """C-STORE a study; which images were accepted."""
        files = [outgoing for path in paths if (outgoing := read_outgoing(path)) is not None]
        return [sent.accepted for sent in send(files, self.peer, "MODALITY", timeout_s=10)]


def job_of(ledger: Ledger, study_uid: str) -> Job:
    """The job of a study, once there is one."""

    def newest() -> Job | None:
        jobs = ledger.jobs_of_study(study_uid)
        return jobs[0] if jobs else None

    found: Job = wait_for(newest, every_s=0.05)
    return found


def reaches(ledger: Ledger, job: Job, state: JobState, limit_s: float = 180) -> Job:
    """Wait until a job is in a state."""

    def there() -> bool:
        now = ledger.job(job.id)
        assert now.state == state or now.state != JobState.FAILED, now.why
        return now.state == state

    wait_for(there, limit_s, every_s=0.05)
    return ledger.job(job.id)


def make_study(
    folder: Path, seed: str, slices: int = 24, size: int = 96, patient: Patient | None = None
) -> tuple[str, list[Path]]:
    """Write a small SWI study of a head with three dark spots; its Study Instance UID and files."""
    generator = np.random.default_rng(len(seed))
    k, j, i = np.mgrid[0:slices, 0:size, 0:size]
    z, y, x = (k - slices / 2) / (slices / 2), (j - size / 2) / (size / 2), (i - size / 2) / (size / 2)
    radius = np.sqrt(x**2 / 0.7 + y**2 / 0.85 + z**2 / 0.9)
    image = np.where(radius < 0.8, 600.0, np.where(radius < 0.9, 40.0, np.where(radius < 1.0, 800.0, 10.0)))
    for at in ((slices // 2, 40, 40), (slices // 2 + 2, 60, 50), (slices // 2 - 3, 50, 62)):
        distance = np.sqrt(((k - at[0]) * 2.0) ** 2 + ((j - at[1]) * 1.8) ** 2 + ((i - at[2]) * 1.8) ** 2)
        image = np.where(distance < 4.0, 60.0, image)
    image = np.clip(image + generator.normal(0, 12, image.shape), 0, 4000).astype(np.uint16)
    patient = patient or Patient(seed=seed, patient_id=f"P-{seed}")
    datasets = siemens_swi(image, patient=patient, matrix=affine(spacing=(1.8, 1.8, 2.0)))
    paths = write(datasets, folder / seed)
    return str(datasets[0].StudyInstanceUID), paths
