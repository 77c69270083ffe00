"""From the page of a study a reader tries again, sends again, changes the priority, and opens the site's viewer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from node.ledger import DeliveryState, JobState, Ledger, Priority
from node.ledger.access_records import AuditAction
from node.ledger.worklist_records import WorklistFilters
from node.queue import JobQueue
from node.roles import UserRole
from node.settings import ConfigError, load_settings
from node.web import passwords
from node.web.app import create_app
from tests.node.people import CHEAP, add, browser, settings_for, sign_in
from tests.node.seeded import Seeder

pytestmark = pytest.mark.slow


class Signals(JobQueue):
    """A queue that only remembers what it was told."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    def _send(self, task: str, argument: int | str, priority: int, queue: str = "") -> None:
        self.sent.append((task, argument))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seeder]:
    """One study that was delivered, one that failed, and one that waits."""
    monkeypatch.setattr(passwords, "_hasher", CHEAP)
    seeder = Seeder(tmp_path)
    for number, key in enumerate(("delivered", "failed", "waiting"), start=1):
        seeder.receive(key, f"{key.title()}^Person", f"P-900{number}")
        seeder.settle(key)
        seeder.open(key)
    seeder.analyse("delivered", 2)
    seeder.deliver("delivered")
    seeder.ledger.claim_job(seeder.jobs["failed"], "worker-1", 30)
    seeder.ledger.fail_attempt(seeder.jobs["failed"], "worker-1", "slices are missing", 1, permanent=True)
    for name, role in (("ada", UserRole.VIEWER), ("grace", UserRole.READER)):
        add(seeder.ledger, name, role)
    yield seeder
    seeder.ledger.close()


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.fixture
def reader(node: Seeder, signals: Signals) -> Iterator[TestClient]:
    settings = settings_for(node.data_dir, viewer_url="https://ohif.example/viewer?StudyInstanceUIDs={study_uid}")
    app = create_app(settings, node.ledger)
    app.state.context = replace(app.state.context, job_queue=signals)
    with browser(app) as client:
        sign_in(client, "grace")
        yield client


def act(client: TestClient, node: Seeder, key: str, what: str, **fields: str) -> int:
    form = {"job": str(node.jobs[key]), **fields}
    return client.post(f"/studies/{node.studies[key]}/{what}", data=form).status_code


def actions(ledger: Ledger) -> list[tuple[str, str, str]]:
    others = (AuditAction.STUDY, AuditAction.SIGN_IN, AuditAction.USER)
    return [(e.user_name, e.action, e.detail) for e in ledger.audit() if e.action not in others]


def test_a_failed_job_is_tried_again(node: Seeder, reader: TestClient, signals: Signals) -> None:
    number = node.jobs["failed"]
    assert "try again</button>" in reader.get(f"/studies/{node.studies['failed']}").text
    assert act(reader, node, "failed", "retry") == 303
    assert node.ledger.job(number).state is JobState.QUEUED
    assert signals.sent == [("analyse", number)]
    assert actions(node.ledger) == [("grace", "retried a job", f"job {number}")]
    assert act(reader, node, "failed", "retry") == 409


def test_a_delivered_result_is_sent_again_and_delivered_again(
    node: Seeder, reader: TestClient, signals: Signals
) -> None:
    number = node.jobs["delivered"]
    assert "Send again now" in reader.get(f"/studies/{node.studies['delivered']}").text
    assert act(reader, node, "delivered", "send") == 303
    assert node.ledger.job(number).state is JobState.DELIVERING
    assert {one.state for one in node.ledger.deliveries(number)} == {DeliveryState.WAITING}
    assert signals.sent == [("deliver", "pacs")]
    assert actions(node.ledger) == [("grace", "sent a result again", f"job {number}")]
    node.deliver("delivered")
    assert node.ledger.job(number).state is JobState.DELIVERED
    assert [c.why for c in node.ledger.history("delivery", 1)].count("sent again by hand") == 1


def test_a_result_that_is_not_there_is_not_sent_again(node: Seeder, reader: TestClient) -> None:
    node.ledger.mark_removed(node.studies["delivered"], node.now)
    for key, why in (("delivered", "retention period"), ("failed", "no result"), ("waiting", "no result")):
        assert "Send again" not in reader.get(f"/studies/{node.studies[key]}").text
        answer = reader.post(f"/studies/{node.studies[key]}/send", data={"job": str(node.jobs[key])})
        assert answer.status_code == 409
        assert why in answer.text
    assert node.ledger.job(node.jobs["delivered"]).state is JobState.DELIVERED


def test_what_waits_becomes_more_urgent(node: Seeder, reader: TestClient, signals: Signals) -> None:
    number = node.jobs["waiting"]
    assert 'value="stat"' in reader.get(f"/studies/{node.studies['waiting']}").text
    assert act(reader, node, "waiting", "priority", priority="stat") == 303
    assert node.ledger.job(number).priority is Priority.STAT
    assert node.ledger.history("job", number)[-1].why == "priority routine changed to stat"
    assert signals.sent == [("analyse", number)]
    assert act(reader, node, "waiting", "priority", priority="soon") == 422
    assert act(reader, node, "delivered", "priority", priority="stat") == 409


def test_a_job_of_another_study_is_not_touched(node: Seeder, reader: TestClient) -> None:
    for number in (str(node.jobs["failed"]), "", "-1", "9" * 30):
        answer = reader.post(f"/studies/{node.studies['waiting']}/retry", data={"job": number})
        assert answer.status_code == 404
    assert node.ledger.job(node.jobs["failed"]).state is JobState.FAILED


def test_a_viewer_is_offered_nothing_and_may_do_nothing(node: Seeder) -> None:
    with browser(create_app(settings_for(node.data_dir), node.ledger)) as client:
        sign_in(client, "ada")
        for key, what in (("failed", "retry"), ("delivered", "send"), ("waiting", "priority")):
            page = client.get(f"/studies/{node.studies[key]}").text
            assert f"/{what}" not in page
            assert act(client, node, key, what, priority="stat") == 403
        assert "cmbnode retry" in client.get(f"/studies/{node.studies['failed']}").text


def test_the_study_opens_in_the_sites_own_viewer(node: Seeder, reader: TestClient) -> None:
    uid = node.studies["delivered"]
    link = f'<a href="https://ohif.example/viewer?StudyInstanceUIDs={uid}" target="_blank" rel="noopener noreferrer">'
    assert link in reader.get(f"/studies/{uid}").text


@pytest.mark.parametrize("address", ["javascript:alert(1)", "https://pacs/{study}", "https://pacs/{", "pacs"])
def test_an_address_of_the_viewer_that_cannot_work_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"worklist\.viewer_url"):
        load_settings(None, data_dir=tmp_path, worklist={"viewer_url": address})


def test_a_result_is_unread_until_somebody_looks_at_its_study(node: Seeder, reader: TestClient) -> None:
    unread = WorklistFilters(unread=True)
    assert [row.study.study_instance_uid for row in node.ledger.worklist(unread)] == [node.studies["delivered"]]
    assert "Delivered" in reader.get("/?findings=unread").text
    reader.get(f"/studies/{node.studies['delivered']}")
    assert node.ledger.count_worklist(unread) == 0
