"""How many studies per hour does a host analyse, and how much memory and disk do they need?

    python -m benchmarks.throughput [--study FOLDER] [--studies 6] [--workers 1 2] [--one-core-each]

All studies arrive in one association, before the first is analysed; a whole node and a real Orthanc, the profile
`default`. Further workers are what `cmbnode worker --queue analyse` starts. Memory is the proportional set size of a
worker with its children, sampled seldom: a sample takes 20 ms of processor time for each process. Disk is what the data
folder holds for one study. With ``--one-core-each`` the first worker and its children run on the first core alone, the
second on the second, and so on, each with one thread: does the rate grow with the workers?
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from node.ledger import Job, JobState, Ledger
from node.run.redis_server import EmbeddedRedis
from tests.orthanc import Orthanc, run_orthanc
from tests.running_node import AE_TITLE, RunningNode, run_node, wait_until

from .studies import simulated_study
from .turnaround import DEFAULTS, renamed

SAMPLE_S = 4.0


@dataclass
class Memory:
    """The most that each of some processes, with its children, was seen to use."""

    peak: dict[int, int] = field(default_factory=dict)

    def sample(self, pids: list[int]) -> None:
        """Look once."""
        for pid in pids:
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                used = sum(one.memory_full_info().pss for one in [process, *process.children(recursive=True)])
                self.peak[pid] = max(self.peak.get(pid, 0), used)


@contextmanager
def watch(memory: Memory, pids: list[int]) -> Iterator[None]:
    """Sample the processes until the block ends."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(SAMPLE_S):
            memory.sample(pids)

    watcher = threading.Thread(target=run)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextmanager
def further_worker(node: RunningNode) -> Iterator[int]:
    """Run one more worker beside that of `cmbnode up`."""
    environment = node.environment | {"CMBNODE_REDIS_URL": EmbeddedRedis(node.data / "redis").url}
    command = [sys.executable, "-m", "node.cli", "worker", "--queue", "analyse"]
    with (node.data / "worker.out").open("ab") as log, subprocess.Popen(
        command, env=environment, stdout=log, stderr=log
    ) as process:  # fmt: skip
        try:
            wait_until(lambda: b"ready" in (node.data / "worker.out").read_bytes(), 60, process)
            yield process.pid
        finally:
            process.terminate()


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def keep_to_a_core(pids: list[int]) -> None:
    """Have each worker, and what it starts from now on, use one core."""
    cores = sorted(os.sched_getaffinity(0))
    for pid, core in zip(pids, cores, strict=False):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            process.cpu_affinity([core])


def measure(sources: Path, number: int, workers: int, folder: Path, *, one_core_each: bool) -> str:
    """Analyse the studies of a folder with so many workers; return a row of the table."""
    memory = Memory()
    with ExitStack() as running:
        orthanc = running.enter_context(run_orthanc(folder / "pacs"))
        pacs = {"pacs": (Orthanc.ae_title, orthanc.dicom_port)}
        node = running.enter_context(run_node(folder / "node", pacs, **DEFAULTS))
        pids = [node.part("worker --queue analyse").pid]
        pids += [running.enter_context(further_worker(node)) for _ in range(workers - 1)]
        if one_core_each:
            keep_to_a_core(pids)
        with watch(memory, pids):
            done = node.command("send", str(sources), f"{AE_TITLE}@127.0.0.1:{node.dicom_port}")
            assert done.returncode == 0, done.stderr
            jobs = finished(node.data, number)
        kept = [size(node.data / name) / number / 1e6 for name in ("studies", "outbox")]
    started = min(job.started_at.timestamp() for job in jobs if job.started_at)
    ended = max(job.finished_at.timestamp() for job in jobs if job.finished_at)
    peak = max(memory.peak.values()) / 1e9
    return f"| {workers} | {number / (ended - started) * 3600:.0f} | {peak:.1f} | {kept[0]:.0f} | {kept[1]:.0f} |"


def finished(data: Path, number: int) -> list[Job]:
    """Wait until every study is delivered, and return the jobs."""
    ledger = Ledger(f"sqlite:///{data / 'ledger.sqlite3'}")

    def all_delivered() -> list[Job]:
        jobs = [summary.job for summary in ledger.jobs(limit=number)]
        assert all(job.state != JobState.FAILED for job in jobs), [job.why for job in jobs]
        return jobs if len(jobs) == number and all(job.state == JobState.DELIVERED for job in jobs) else []

    try:
        return list(wait_until(all_delivered, 120 * number))
    finally:
        ledger.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", type=Path, help="folder of one study; by default one is simulated")
    parser.add_argument("--studies", type=int, default=6, help="how many copies of it are sent")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--one-core-each", action="store_true", help="each worker has one core and one thread")
    given = parser.parse_args()
    if given.one_core_each:
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = given.study or simulated_study(folder / "simulated")
        (folder / "copies").mkdir()
        for number in range(given.studies):
            renamed(study, folder / "copies" / f"{number}")
        print(f"\n{given.studies} studies, {os.cpu_count()} cores, {platform.processor() or platform.machine()}\n")
        print("| workers | studies per hour | memory per worker, GB | images, MB per study | results, MB per study |")
        print("|---:|---:|---:|---:|---:|")
        for workers in given.workers:
            work = folder / f"{workers} workers"
            row = measure(folder / "copies", given.studies, workers, work, one_core_each=given.one_core_each)
            print(row, flush=True)


if __name__ == "__main__":
    main()
