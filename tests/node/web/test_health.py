"""The health check says which part of the node does not work."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from node.ledger import Ledger
from node.processes.parts import (
    FORGET_AFTER_S,
    PARTS,
    ClockReport,
    PartFile,
    forget_parts,
    note_not_running,
    part_file,
    write_clock,
)
from node.run.redis_server import EmbeddedRedis
from node.settings import ArchiveSettings, DicomDestination, Settings
from node.web.app import create_app
from tests.own_redis import own_redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with own_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, server: EmbeddedRedis) -> Settings:
    """Settings of a node all of whose parts said that they work."""
    for part in PARTS:
        PartFile(tmp_path, part).beat()
    return Settings(data_dir=tmp_path, redis_url=server.url, archive=ArchiveSettings(free_disk_mb=1))


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = Ledger(settings.ledger_url)
    ledger.upgrade()
    yield ledger
    ledger.close()


@pytest.fixture
def web(settings: Settings, ledger: Ledger) -> TestClient:
    return TestClient(create_app(settings, ledger), base_url="http://127.0.0.1")


def be_silent(path: Path, seconds: float) -> str:
    """Make a part's file look as if it was last touched long ago; the name of its process."""
    path.touch()
    os.utime(path, (time.time() - seconds,) * 2)
    return path.name.partition("@")[2]


def test_a_well_node_answers_its_health_check(web: TestClient) -> None:
    answer = web.get("/healthz")
    assert answer.status_code == 200
    parts = dict.fromkeys(PARTS, "ok")
    checks = dict.fromkeys(("status", "ledger", "redis", "disk", "clock", "certificates"), "ok")
    assert answer.json() == {**checks, "parts": parts}


def test_a_monitor_may_ask_for_the_head_alone(web: TestClient) -> None:
    answer = web.head("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")


def test_an_unwell_node_says_what_is_wrong(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    changes = {
        "redis_url": SecretStr(f"redis+socket://{tmp_path}/none.sock"),
        "archive": ArchiveSettings(free_disk_mb=10**9),
    }
    away = settings.model_copy(update=changes)
    answer = TestClient(create_app(away, ledger), base_url="http://127.0.0.1").get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["redis"] == "does not answer"
    assert "images are refused" in answer.json()["disk"]
    assert answer.json()["ledger"] == "ok"


def test_one_of_two_workers_that_hangs_makes_the_node_unwell(web: TestClient, settings: Settings) -> None:
    instance = be_silent(part_file(settings.data_dir, "worker-analyse", 1), 85)
    answer = web.get("/healthz")
    assert answer.status_code == 503
    assert re.fullmatch(rf"{instance} has been silent for [89]\d s", answer.json()["parts"]["worker-analyse"])
    metrics = web.get("/metrics").text
    assert 'cmbnode_part_up{part="worker-analyse"} 0.0' in metrics
    assert 'cmbnode_part_up{part="receiver"} 1.0' in metrics
    assert f'cmbnode_part_silent_seconds{{instance="{instance}",part="worker-analyse"}} ' in metrics


def test_a_part_that_is_not_there_makes_the_node_unwell(web: TestClient, settings: Settings) -> None:
    PartFile(settings.data_dir, "receiver").remove()
    note_not_running(settings.data_dir, {"sweep": "it ended with status 1"})
    answer = web.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["parts"]["receiver"] == "not running"
    assert answer.json()["parts"]["sweep"] == "it ended with status 1"


def test_a_process_that_ended_long_ago_is_forgotten(web: TestClient, settings: Settings) -> None:
    ended = part_file(settings.data_dir, "receiver", 1)
    be_silent(ended, FORGET_AFTER_S + 10)
    assert web.get("/healthz").status_code == 200
    forget_parts(settings.data_dir)
    assert not ended.exists()
    assert part_file(settings.data_dir, "receiver", os.getpid()).exists()


def test_the_metrics_count_what_waits_for_commitment(settings: Settings, ledger: Ledger) -> None:
    pacs = DicomDestination(ae_title="PACS", host="127.0.0.1", port=104, commit_within_s=60)
    plain = pacs.model_copy(update={"commit_within_s": None})
    with_pacs = settings.model_copy(update={"destinations": {"pacs": pacs, "plain": plain}})
    metrics = TestClient(create_app(with_pacs, ledger), base_url="http://127.0.0.1").get("/metrics").text
    assert 'cmbnode_commitments_waiting{destination="pacs"} 0.0' in metrics
    assert 'cmbnode_commitments_waiting{destination="plain"}' not in metrics
    assert 'cmbnode_deliveries{state="committed"} 0.0' in metrics


def test_a_clock_that_jumped_is_told_and_is_no_failure(web: TestClient, settings: Settings) -> None:
    write_clock(settings.data_dir, ClockReport(time.time(), 5400))
    answer = web.get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["clock"].endswith("The node deletes no expired data for another 1.5 hours.")
    assert "The clock of this machine jumped." in web.get("/sign-in").text
    assert "cmbnode_clock_untrusted_seconds 5400.0" in web.get("/metrics").text
