"""The sweep, with a real ledger, archive and Redis."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from kombu import Connection, Queue

from node.archive import Archive
from node.ledger import JobState, Ledger, Priority
from node.processes.alive import ALIVE_FILE, judge
from node.processes.parts import read_clock
from node.queue import ANALYSE, DELIVER, JobQueue, make_app
from node.run.clock import SteadyClock
from node.run.redis_server import EmbeddedRedis
from node.run.sweep import Sweep, run_sweep
from node.settings import ConfigError, Settings
from pipeline.uids import derive_uid
from tests.chaos.site import _clock_library
from tests.node.jobs import finish, open_job, receive
from tests.own_redis import own_redis
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with own_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def client(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        client.flushall()
        yield client


@pytest.fixture
def sweep(tmp_path: Path, server: EmbeddedRedis, client: redis.Redis) -> Iterator[Sweep]:
    settings = Settings(data_dir=tmp_path, redis_url=server.url)
    ledger = Ledger(settings.ledger_url)
    ledger.upgrade()
    yield Sweep(settings, ledger, Archive(tmp_path), JobQueue(make_app(settings)))
    ledger.close()


def fetch_all(url: str | None, queue: str) -> list[object]:
    """Take every message as a worker would: the arguments, in the order of arrival."""
    taken: list[object] = []
    options = make_app(Settings(redis_url=url)).conf.broker_transport_options
    with Connection(url, transport_options=options) as connection:
        bound = Queue(queue).bind(connection.default_channel)
        while (message := bound.get(no_ack=True, accept=["json"])) is not None:
            taken.append(message.payload[0][0])
    return taken


def test_a_sweep_that_goes_round_is_healthy(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALIVE_FILE, str(tmp_path / "alive"))
    sweep.round()
    assert judge() is None


def test_a_waiting_job_is_signalled_once_as_long_as_the_message_is_there(sweep: Sweep) -> None:
    job = open_job(sweep.ledger, sweep.archive)
    sweep.requeue_analyses()
    sweep.requeue_analyses()
    assert fetch_all(sweep.settings.broker_url, ANALYSE) == [job.id]


def test_after_a_wiped_redis_jobs_are_signalled_again(sweep: Sweep, client: redis.Redis) -> None:
    jobs = [open_job(sweep.ledger, sweep.archive, name) for name in ("one", "two")]
    sweep.requeue_analyses()
    client.flushall()
    assert sweep.job_queue.depth(ANALYSE) == 0
    sweep.requeue_analyses()
    assert fetch_all(sweep.settings.broker_url, ANALYSE) == [job.id for job in jobs]


def test_a_job_that_was_taken_back_is_signalled_at_once_though_others_wait(sweep: Sweep) -> None:
    stat = open_job(sweep.ledger, sweep.archive, "stat", priority=Priority.STAT)
    others = [open_job(sweep.ledger, sweep.archive, f"routine {number}") for number in range(12)]
    assert sweep.ledger.claim_job(stat.id, "killed", -1) is not None
    sweep.requeue_analyses()
    assert sweep.job_queue.depth(ANALYSE) == len(others)
    sweep.round()
    sweep.round()
    taken = fetch_all(sweep.settings.broker_url, ANALYSE)
    assert taken == [stat.id, *[job.id for job in others]]  # in its priority, and only once


def test_the_more_urgent_message_is_taken_first(sweep: Sweep) -> None:
    for job_id, priority in enumerate([Priority.LOW, Priority.ROUTINE, Priority.STAT, Priority.HIGH]):
        sweep.job_queue.analyse(job_id, priority)
    assert fetch_all(sweep.settings.broker_url, ANALYSE) == [2, 3, 1, 0]


def test_all_priorities_count_as_waiting(sweep: Sweep) -> None:
    for priority in Priority:
        sweep.job_queue.analyse(1, priority)
    assert sweep.job_queue.depth(ANALYSE) == len(Priority)


def test_destinations_are_signalled_when_something_is_due(sweep: Sweep) -> None:
    sweep.requeue_deliveries()
    assert sweep.job_queue.depth(DELIVER) == 0
    finish(sweep.ledger, sweep.archive, open_job(sweep.ledger, sweep.archive, destinations=("pacs", "research")))
    sweep.requeue_deliveries()
    assert fetch_all(sweep.settings.broker_url, DELIVER) == ["pacs", "research"]


def test_who_asked_for_commitment_is_signalled_when_a_report_is_due(sweep: Sweep) -> None:
    sweep.ledger.add_commitment_request("2.25.1", [("1.2", "1.3")], "MR1", "10.0.0.1")
    sweep.requeue_deliveries()
    sweep.requeue_deliveries()
    assert fetch_all(sweep.settings.broker_url, DELIVER) == ["MR1"]


def test_what_is_not_committed_in_time_is_signalled_to_be_sent_again(sweep: Sweep) -> None:
    job = finish(sweep.ledger, sweep.archive, open_job(sweep.ledger, sweep.archive))
    for delivery in sweep.ledger.claim_deliveries("pacs", "sender", 30):
        sweep.ledger.delivery_accepted(delivery.id, "sender", 0, "stored", 0.001)
    sweep.ledger.begin_commitment("pacs", "2.25.1", 10)
    wait_for(lambda: sweep.round() or sweep.ledger.job(job.id).state is JobState.DELIVERING, 10)
    sweep.round()
    assert set(fetch_all(sweep.settings.broker_url, DELIVER)) == {"pacs"}


def test_what_a_silent_worker_held_is_queued_again(sweep: Sweep) -> None:
    job = open_job(sweep.ledger, sweep.archive)
    assert sweep.ledger.claim_job(job.id, "killed", -1) is not None
    sweep.take_back()
    assert sweep.ledger.job(job.id).state == JobState.QUEUED


def test_an_outage_of_redis_stops_no_other_step(sweep: Sweep, tmp_path: Path) -> None:
    waiting = open_job(sweep.ledger, sweep.archive, "waiting")
    held = open_job(sweep.ledger, sweep.archive, "held")
    sweep.ledger.claim_job(held.id, "killed", -1)
    nowhere = Settings(data_dir=tmp_path, redis_url=EmbeddedRedis(tmp_path / "none").url)
    good, sweep.job_queue = sweep.job_queue, JobQueue(make_app(nowhere))
    sweep.round()
    assert sweep.ledger.job(held.id).state == JobState.QUEUED
    sweep.job_queue = good
    sweep.round()
    assert sorted(fetch_all(sweep.settings.broker_url, ANALYSE)) == [waiting.id, held.id]


def test_an_outage_of_the_database_is_survived(sweep: Sweep) -> None:
    job = open_job(sweep.ledger, sweep.archive)
    good = sweep.ledger
    sweep.ledger = Ledger("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    sweep.round()
    sweep.ledger = good
    sweep.round()
    assert fetch_all(sweep.settings.broker_url, ANALYSE) == [job.id]


class Clocks:
    """A wall clock that tests set, and a monotonic one that runs with it."""

    def __init__(self) -> None:
        self.wall, self.monotonic = time.time(), 1000.0

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def steady(self, sweep: Sweep, steady_s: float = 3600) -> SteadyClock:
        data_dir = sweep.settings.data_dir
        return SteadyClock(data_dir, steady_s, wall=lambda: self.wall, monotonic=lambda: self.monotonic)


@pytest.mark.parametrize("days", [40, -40])
def test_a_jump_of_the_clock_takes_no_job_and_settles_no_series(sweep: Sweep, days: float) -> None:
    clocks = Clocks()
    sweep.clock = clocks.steady(sweep)
    job = open_job(sweep.ledger, sweep.archive, "running")
    assert sweep.ledger.claim_job(job.id, "worker", 30) is not None
    series = receive(sweep.ledger, sweep.archive, "arriving", settled=False)
    clocks.wall += days * 86_400
    sweep.round()
    assert sweep.ledger.job(job.id).owner == "worker"
    assert [one.series_instance_uid for one in sweep.ledger.series_receiving()] == [series]
    clocks.run(31)  # and from now on the periods count
    sweep.round()
    assert sweep.ledger.job(job.id).state == JobState.QUEUED
    clocks.run(300)
    sweep.round()
    assert sweep.ledger.series_receiving() == []


def test_what_was_written_under_a_clock_that_was_ahead_gets_stuck_nowhere(sweep: Sweep) -> None:
    ahead = Ledger(sweep.settings.ledger_url, clock=lambda: datetime.now(UTC) + timedelta(days=40))
    job = open_job(ahead, sweep.archive, "running")
    assert ahead.claim_job(job.id, "killed", 30) is not None
    sent = finish(ahead, sweep.archive, open_job(ahead, sweep.archive, "sent"))
    receive(ahead, sweep.archive, "arriving", settled=False, at=datetime.now(UTC) + timedelta(days=40))
    ahead.close()
    clocks = Clocks()
    sweep.clock = clocks.steady(sweep)  # the node starts after the clock was set right
    sweep.round()
    assert "pacs" in sweep.ledger.due_destinations(datetime.now(UTC)), sent
    clocks.run(400)
    sweep.round()
    assert sweep.ledger.job(job.id).state == JobState.QUEUED
    assert sweep.ledger.series_receiving() == []


def test_nothing_is_deleted_until_the_clock_has_run_steadily(sweep: Sweep) -> None:
    clocks = Clocks()
    sweep.clock = clocks.steady(sweep)
    delivered_long_ago(sweep)
    clocks.wall += 40 * 86_400
    sweep.remove_old()
    assert list((sweep.archive.root / "studies").iterdir())
    report = read_clock(sweep.settings.data_dir)
    assert report is not None
    assert report.untrusted_s == 3600
    sweep.clock = clocks.steady(sweep)  # a restart does not shorten it
    clocks.run(3500)
    sweep.remove_old()
    assert list((sweep.archive.root / "studies").iterdir())
    clocks.run(200)
    sweep.remove_old()
    assert not list((sweep.archive.root / "studies").iterdir())


def test_a_start_40_days_later_is_not_trusted_at_once(sweep: Sweep) -> None:
    clocks = Clocks()
    clocks.steady(sweep).check()
    assert clocks.steady(sweep).untrusted_s == 0
    clocks.wall += 40 * 86_400
    assert clocks.steady(sweep).untrusted_s == 3600


def test_a_real_process_whose_clock_jumps_deletes_nothing_and_loses_no_lease(sweep: Sweep, tmp_path: Path) -> None:
    delivered_long_ago(sweep)
    held = open_job(sweep.ledger, sweep.archive, "held")
    assert sweep.ledger.claim_job(held.id, "worker", 86_400) is not None
    shift = tmp_path / "clock"
    shift.write_bytes(struct.pack("l", 0))
    settings = {"CMBNODE_DATA_DIR": str(tmp_path), "CMBNODE_REDIS_URL": str(sweep.settings.broker_url)}
    settings |= {"CMBNODE_QUEUE__SWEEP_S": "0.1", "CMBNODE_ARCHIVE__KEEP_DAYS": "14"}
    preload = {"LD_PRELOAD": str(_clock_library(tmp_path)), "CHAOS_CLOCK": str(shift)}
    code = "from node.run import sweep; sweep.CLEAN_EVERY_S = 0.1; from node.cli import main; main(['sweep'])"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **settings, **preload})
    try:
        report = wait_for(lambda: read_clock(tmp_path))
        assert report.untrusted_s == 0
        with shift.open("r+b") as file:
            file.write(struct.pack("l", 40 * 86_400))
        wait_for(lambda: (told := read_clock(tmp_path)) and told.untrusted_s > 0 and told.seen > report.seen + 86_400)
        later = read_clock(tmp_path)
        assert later is not None
        wait_for(lambda: (told := read_clock(tmp_path)) and told.seen > later.seen + 1)
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert list((sweep.archive.root / "studies").iterdir())
    assert sweep.ledger.job(held.id).owner == "worker"


def delivered_long_ago(sweep: Sweep) -> int:
    job = finish(sweep.ledger, sweep.archive, open_job(sweep.ledger, sweep.archive, destinations=()))
    assert sweep.ledger.job(job.id).state == JobState.DELIVERED
    sweep.settings = sweep.settings.model_copy(
        update={"archive": sweep.settings.archive.model_copy(update={"keep_days": 0.0})}
    )
    return job.id


def test_images_and_results_go_when_their_time_is_over_and_findings_stay(sweep: Sweep) -> None:
    job_id = delivered_long_ago(sweep)
    for name in ("crops.zip", "slices.zip", "volumes.zip"):
        sweep.archive.put(job_id, name, b"pictures")
    sweep.remove_old()
    assert not list((sweep.archive.root / "studies").iterdir())
    assert [path.name for path in sweep.archive.outbox(job_id).iterdir()] == ["crops.zip"]  # small, and goes with them
    assert sweep.ledger.findings(job_id) is not None
    assert sweep.ledger.study(derive_uid("one", "study")).removed_at is not None


def test_images_of_a_study_that_still_waits_are_kept(sweep: Sweep) -> None:
    job_id = delivered_long_ago(sweep)
    open_job(sweep.ledger, sweep.archive, "waits")
    sweep.remove_old()
    kept = [path.name for path in (sweep.archive.root / "studies").iterdir()]
    assert kept == [derive_uid("waits", "study")]
    assert sweep.ledger.job(job_id).state == JobState.DELIVERED


def test_files_that_no_row_knows_go_after_a_day_and_no_others(sweep: Sweep) -> None:
    receive(sweep.ledger, sweep.archive, "known")
    known = list((sweep.archive.root / "studies").rglob("*.dcm"))
    old = sweep.archive.store("1.2.3", "1.2", "1.1", b"never committed")
    new = sweep.archive.store("1.2.4", "1.2", "1.1", b"about to be committed")
    orphan = known[0].with_name("9.9.9-abc.dcm")
    shutil.copy(known[0], orphan)
    before = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    for path in (*known, orphan, sweep.archive.path(old.path)):
        os.utime(path, (before, before))
    sweep.remove_orphans()
    assert not orphan.exists()
    assert not sweep.archive.path(old.path).exists()
    assert sweep.archive.path(new.path).exists()
    assert all(path.exists() for path in known)


def test_it_stops_when_told(tmp_path: Path, server: EmbeddedRedis) -> None:
    settings = Settings(data_dir=tmp_path, redis_url=server.url)
    Ledger(settings.ledger_url).upgrade()
    stop = threading.Event()
    thread = threading.Thread(target=run_sweep, args=(settings, stop))
    thread.start()
    stop.set()
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_without_a_redis_it_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CMBNODE_REDIS_URL"):
        run_sweep(Settings(data_dir=tmp_path), threading.Event())
