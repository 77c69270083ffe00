"""The workers, as real processes on a real Redis; only the analysis itself is replaced, by one that waits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from kombu import Connection, Producer, Queue
from pydantic import SecretStr
from pydicom.uid import SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from node.archive import Archive
from node.ledger import DeliveryState, Job, JobState, Ledger, Priority
from node.processes.alive import ALIVE_FILE
from node.queue import JobQueue, make_app
from node.run.redis_server import EmbeddedRedis
from node.settings import DicomDestination, QueueSettings, Settings
from tests.node.jobs import finish, open_job
from tests.own_redis import own_redis
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


class Node:
    """A ledger, an archive, a Redis, and workers started on them."""

    def __init__(self, folder: Path, server: EmbeddedRedis, stack: ExitStack) -> None:
        self.folder, self.redis, self._stack = folder, server, stack
        self.settings = Settings(
            data_dir=folder, redis_url=server.url, queue=QueueSettings(lease_s=60, grace_s=20, retry_first_s=0.05)
        )
        self.ledger = Ledger(self.settings.ledger_url)
        self.ledger.upgrade()
        stack.callback(self.ledger.close)
        self.archive = Archive(folder)
        self.job_queue = JobQueue(make_app(self.settings))

    def change(self, **queue: Any) -> None:
        self.settings = self.settings.model_copy(update={"queue": self.settings.queue.model_copy(update=queue)})

    def start(self, queue: str = "analyse", seconds: float = 0, *more: str) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it takes work."""
        file = self.folder / "settings.json"
        file.write_text(self.settings.model_dump_json(context={"secrets": True}))
        alive = self.folder / f"worker-{queue}.alive"
        alive.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.node.slow_worker", str(file), queue, str(seconds), *more]
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", ALIVE_FILE: str(alive)}
        )
        self._stack.callback(_end, process)
        wait_for(alive.exists)
        return process

    def open(self, name: str = "one", priority: Priority = Priority.ROUTINE, signal: bool = True) -> Job:
        job = open_job(self.ledger, self.archive, name, priority=priority)
        if signal:
            self.job_queue.analyse(job.id, priority)
        return job

    def reaches(self, job: Job, state: JobState, limit_s: float = 60) -> Job:
        wait_for(lambda: self.ledger.job(job.id).state == state, limit_s)
        return self.ledger.job(job.id)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
    process.wait(timeout=20)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with ExitStack() as stack:
        yield Node(tmp_path, stack.enter_context(own_redis(tmp_path / "redis")), stack)


def test_a_job_is_analysed_in_a_child_process_and_sigterm_lets_it_finish(node: Node) -> None:
    worker = node.start(seconds=1)
    job = node.open()
    node.reaches(job, JobState.RUNNING)
    (child,) = psutil.Process(worker.pid).children()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=30) == 0
    assert not child.is_running()
    assert node.ledger.job(job.id).state == JobState.DELIVERING
    assert node.job_queue.depth("deliver") == 1


def test_stat_overtakes_routine_jobs_that_were_signalled_before(node: Node) -> None:
    node.start(seconds=0.3)
    first, second = node.open("first"), node.open("second")
    node.reaches(first, JobState.RUNNING)
    stat = node.open("stat", Priority.STAT)
    started = [node.reaches(job, JobState.DELIVERING).started_at for job in (first, stat, second)]
    assert all(started)
    assert started == sorted(started)  # type: ignore[type-var]


def test_sigterm_gives_a_long_analysis_back_without_counting_it(node: Node) -> None:
    node.change(grace_s=0.2)
    worker = node.start(seconds=600)
    job = node.open()
    node.reaches(job, JobState.RUNNING)
    (child,) = psutil.Process(worker.pid).children()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=30) == 0
    back = node.ledger.job(job.id)
    assert (back.state, back.attempts, back.owner) == (JobState.QUEUED, 0, "")
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_no_child_outlives_a_worker_that_is_killed(node: Node) -> None:
    worker = node.start(seconds=600)
    job = node.open()
    node.reaches(job, JobState.RUNNING)
    (child,) = psutil.Process(worker.pid).children()
    worker.kill()
    worker.wait(timeout=20)
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert node.ledger.job(job.id).state == JobState.RUNNING  # until its lease is over


def test_a_study_that_crashes_every_analysis_is_failed_with_the_reason_and_holds_up_no_other(node: Node) -> None:
    node.change(lease_s=1)
    worker = node.start("analyse", 0, "fragile")
    doomed, well = node.open("doomed"), node.open("well")

    def swept() -> bool:
        for job_id in node.ledger.expire_leases(datetime.now(UTC), 2):
            node.job_queue.analyse(job_id, Priority.ROUTINE)
        return node.ledger.job(doomed.id).state == JobState.FAILED

    wait_for(swept)
    assert "2 workers died or fell silent" in node.ledger.job(doomed.id).why
    node.reaches(well, JobState.DELIVERING)
    assert worker.poll() is None


def test_any_signal_has_the_most_urgent_job_analysed(node: Node) -> None:
    routine = node.open("routine")
    stat = node.open("stat", Priority.STAT, signal=False)  # its signal was lost
    node.start()
    node.reaches(stat, JobState.DELIVERING)
    assert node.ledger.job(routine.id).state == JobState.QUEUED


def test_an_analysis_beyond_the_time_limit_is_ended_and_says_so(node: Node) -> None:
    node.change(time_limit_s=0.5, max_attempts=1)
    node.start(seconds=600)
    job = node.open()
    failed = node.reaches(job, JobState.FAILED)
    assert "not done after 0.5 s" in failed.why


def test_a_worker_goes_on_when_redis_was_away(node: Node, tmp_path: Path) -> None:
    other = EmbeddedRedis(tmp_path / "other")
    node.settings = node.settings.model_copy(update={"redis_url": SecretStr(other.url)})
    job_queue = JobQueue(make_app(node.settings))
    with own_redis(other.folder):
        node.start()
        before = node.open("before", signal=False)
        job_queue.analyse(before.id, before.priority)
        node.reaches(before, JobState.DELIVERING)
    with own_redis(other.folder):
        after = node.open("after", signal=False)
        job_queue.analyse(after.id, after.priority)
        node.reaches(after, JobState.DELIVERING)


def test_a_silent_destination_does_not_delay_another(node: Node) -> None:
    entity = AE(ae_title="PACS")
    entity.add_supported_context(SecondaryCaptureImageStorage)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        good = DicomDestination(ae_title="PACS", host="127.0.0.1", port=server.server_address[1])
        dead = DicomDestination(ae_title="PACS", host="127.0.0.1", port=silent.getsockname()[1], timeout_s=600)
        node.settings = node.settings.model_copy(update={"destinations": {"good": good, "dead": dead}})
        job = finish(node.ledger, node.archive, open_job(node.ledger, node.archive, destinations=("dead", "good")))
        node.change(grace_s=0.2)
        worker = node.start("deliver")
        for _ in range(20):  # however many signals there are, the dead one holds one thread
            node.job_queue.deliver("dead")
        node.job_queue.deliver("good")

        def states(destination: str) -> set[DeliveryState]:
            return {d.state for d in node.ledger.deliveries(job.id) if d.destination == destination}

        wait_for(lambda: states("good") == {DeliveryState.ACCEPTED})
        assert states("dead") == {DeliveryState.SENDING}
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
        assert states("dead") == {DeliveryState.WAITING}
    server.shutdown()
    assert node.ledger.job(job.id).state == JobState.DELIVERING


def test_a_worker_that_fetches_no_message_while_some_wait_ends_itself(node: Node) -> None:
    worker = node.start("analyse", 0, "deaf")
    (child,) = psutil.Process(worker.pid).children()
    time.sleep(1)
    assert worker.poll() is None  # nothing waits, so nothing is wrong
    node.job_queue.analyse(1, Priority.ROUTINE)
    assert worker.wait(timeout=30) == os.EX_TEMPFAIL
    wait_for(lambda: not child.is_running())


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_a_pickled_message_is_dropped_and_never_loaded(node: Node, tmp_path: Path) -> None:
    made = tmp_path / "made by the message"
    with Connection(node.settings.broker_url) as connection:
        headers = {"task": "analyse", "id": "1"}
        Producer(connection).publish(
            ((Bomb(made),), {}, {}),
            routing_key="analyse",
            serializer="pickle",
            headers=headers,
            declare=[Queue("analyse")],
        )
    worker = node.start()
    job = node.open()
    node.reaches(job, JobState.DELIVERING)
    assert not made.exists()
    assert worker.poll() is None


def test_garbage_in_the_queue_costs_a_restart_and_no_more(node: Node) -> None:
    worker = node.start()
    with redis.Redis(unix_socket_path=str(node.redis.socket)) as client:
        client.lpush("analyse", b"garbage")
    assert worker.wait(timeout=30) != 0  # Celery calls it unrecoverable; the supervisor starts another
    node.start()
    node.reaches(node.open(), JobState.DELIVERING)
