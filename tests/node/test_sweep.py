"""The sweep, with a real ledger, archive and Redis."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from kombu import Connection, Queue

from node.archive import Archive
from node.bell import ANALYSE, DELIVER, Bell, make_app
from node.config import ConfigError, Settings
from node.ledger import JobState, Ledger, Priority
from node.redis_server import EmbeddedRedis
from node.sweep import Sweep, run_sweep
from pipeline.identity import derive_uid
from tests.node.jobs import finish, open_job, receive
from tests.own_redis import own_redis


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
    yield Sweep(settings, ledger, Archive(tmp_path), Bell(make_app(settings)))
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


def test_a_waiting_job_is_rung_for_once_as_long_as_the_message_is_there(sweep: Sweep) -> None:
    job = open_job(sweep.ledger, sweep.archive)
    sweep.ring_analyses()
    sweep.ring_analyses()
    assert fetch_all(sweep.settings.redis_url, ANALYSE) == [job.id]


def test_a_wiped_redis_is_rung_again(sweep: Sweep, client: redis.Redis) -> None:
    jobs = [open_job(sweep.ledger, sweep.archive, name) for name in ("one", "two")]
    sweep.ring_analyses()
    client.flushall()
    assert sweep.bell.depth(ANALYSE) == 0
    sweep.ring_analyses()
    assert fetch_all(sweep.settings.redis_url, ANALYSE) == [job.id for job in jobs]


def test_the_more_urgent_message_is_taken_first(sweep: Sweep) -> None:
    for job_id, priority in enumerate([Priority.LOW, Priority.ROUTINE, Priority.STAT, Priority.HIGH]):
        sweep.bell.analyse(job_id, priority)
    assert fetch_all(sweep.settings.redis_url, ANALYSE) == [2, 3, 1, 0]


def test_all_priorities_count_as_waiting(sweep: Sweep) -> None:
    for priority in Priority:
        sweep.bell.analyse(1, priority)
    assert sweep.bell.depth(ANALYSE) == len(Priority)


def test_destinations_are_rung_for_when_something_is_due(sweep: Sweep) -> None:
    sweep.ring_deliveries()
    assert sweep.bell.depth(DELIVER) == 0
    finish(sweep.ledger, sweep.archive, open_job(sweep.ledger, sweep.archive, destinations=("pacs", "research")))
    sweep.ring_deliveries()
    assert fetch_all(sweep.settings.redis_url, DELIVER) == ["pacs", "research"]


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
    good, sweep.bell = sweep.bell, Bell(make_app(nowhere))
    sweep.round()
    assert sweep.ledger.job(held.id).state == JobState.QUEUED
    sweep.bell = good
    sweep.round()
    assert sorted(fetch_all(sweep.settings.redis_url, ANALYSE)) == [waiting.id, held.id]


def test_an_outage_of_the_database_is_survived(sweep: Sweep) -> None:
    job = open_job(sweep.ledger, sweep.archive)
    good = sweep.ledger
    sweep.ledger = Ledger("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    sweep.round()
    sweep.ledger = good
    sweep.round()
    assert fetch_all(sweep.settings.redis_url, ANALYSE) == [job.id]


def delivered_long_ago(sweep: Sweep) -> int:
    job = finish(sweep.ledger, sweep.archive, open_job(sweep.ledger, sweep.archive, destinations=()))
    assert sweep.ledger.job(job.id).state == JobState.DELIVERED
    sweep.settings = sweep.settings.model_copy(
        update={"archive": sweep.settings.archive.model_copy(update={"keep_days": 0.0})}
    )
    return job.id


def test_images_and_results_go_when_their_time_is_over_and_findings_stay(sweep: Sweep) -> None:
    job_id = delivered_long_ago(sweep)
    for name in ("crops.zip", "slices.zip"):
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
    stray = known[0].with_name("9.9.9-abc.dcm")
    shutil.copy(known[0], stray)
    before = (datetime.now(UTC) - timedelta(days=2)).timestamp()
    for path in (*known, stray, sweep.archive.path(old.path)):
        os.utime(path, (before, before))
    sweep.remove_strays()
    assert not stray.exists()
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
