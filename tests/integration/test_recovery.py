"""Whatever is killed or wiped, every study is delivered, once, and nobody lifts a hand."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import MRImageStorage  # type: ignore[attr-defined]

from node.ledger import Correction, DeliveryState, JobState
from tests.ports import free_port
from tests.waiting import wait_for

from .killable_node import ROOT, KillableNode, Pacs, job_of, make_study, reaches, running_pacs

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pacs() -> Iterator[Pacs]:
    with running_pacs() as pacs:
        yield pacs


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Pacs) -> Iterator[KillableNode]:
    """One node for all tests here: it also has to survive what the test before did to it."""
    node = KillableNode(tmp_path_factory.mktemp("node"), {"pacs": ("PACS", pacs.port)})
    node.start()
    try:
        yield node
    finally:
        node.end()


def assert_delivered_once(node: KillableNode, pacs: Pacs, study: str, *, resent: int = 0) -> None:
    """The study has one job, delivered; the PACS has exactly its objects, of which `resent` came twice."""
    with node.ledger() as ledger:
        job = reaches(ledger, job_of(ledger, study), JobState.DELIVERED)
        assert len(ledger.jobs_of_study(study)) == 1
        results = {result.sop_instance_uid for result in ledger.results(job.id)}
        assert {"sr", "capture"} <= {result.kind for result in ledger.results(job.id)}
    assert pacs.studies[study] == results
    assert sum(pacs.sent[uid] - 1 for uid in results) <= resent


def test_a_second_node_on_the_same_data_is_refused_with_one_line(node: KillableNode) -> None:
    command = [sys.executable, "-m", "node.cli", "up", "--config", str(node.config)]
    second = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert second.returncode == 2
    assert len(second.stderr.splitlines()) == 1
    assert f"{node.data}: a node is already running on it" in second.stderr


def test_the_analysing_worker_is_killed_while_it_analyses(node: KillableNode, pacs: Pacs, tmp_path: Path) -> None:
    study, images = make_study(tmp_path, "analysis-killed")
    assert all(node.send(images))
    with node.ledger() as ledger:
        job = reaches(ledger, job_of(ledger, study), JobState.RUNNING)
        node.part("worker", "analyse").kill()
        assert ledger.job(job.id).state == JobState.RUNNING
        assert_delivered_once(node, pacs, study)
        assert ledger.job(job.id).lost >= 1  # on a busy machine a lease may end once more


def test_only_the_analysing_child_is_killed(node: KillableNode, pacs: Pacs, tmp_path: Path) -> None:
    study, images = make_study(tmp_path, "child-killed")
    assert all(node.send(images))
    with node.ledger() as ledger:
        job = reaches(ledger, job_of(ledger, study), JobState.RUNNING)
        for child in node.part("worker", "analyse").children():
            child.kill()
        assert_delivered_once(node, pacs, study)
        assert ledger.job(job.id).lost >= 1


def test_the_worker_is_killed_while_it_applies_a_readers_correction(
    node: KillableNode, pacs: Pacs, tmp_path: Path
) -> None:
    study, images = make_study(tmp_path, "correction-killed")
    assert all(node.send(images))
    with node.ledger() as ledger:
        first = reaches(ledger, job_of(ledger, study), JobState.DELIVERED)
        job = ledger.open_correction(first.id, Correction("Reader^Ada", "General Hospital"), "ada")
        reaches(ledger, job, JobState.RUNNING)
        node.part("worker", "analyse").kill()
        done = reaches(ledger, job, JobState.DELIVERED)
        assert done.lost >= 1
        assert ledger.job(first.id).superseded_by == job.id
        results = {result.sop_instance_uid for each in (first, job) for result in ledger.results(each.id)}
    assert pacs.studies[study] == results
    assert {pacs.sent[uid] for uid in results} == {1}


def test_the_delivering_worker_is_killed_between_the_objects_arrival_and_its_note(
    node: KillableNode, pacs: Pacs, tmp_path: Path
) -> None:
    study, images = make_study(tmp_path, "delivery-killed")
    pacs.hold()
    assert all(node.send(images))
    assert pacs.holding.wait(60)
    with node.ledger() as ledger:
        job = job_of(ledger, study)
        assert DeliveryState.SENDING in {delivery.state for delivery in ledger.deliveries(job.id)}
        node.part("worker", "deliver").kill()
        pacs.release()
        assert_delivered_once(node, pacs, study, resent=1)
        assert sum(pacs.sent[result.sop_instance_uid] for result in ledger.results(job.id)) > len(
            ledger.results(job.id)
        )


def test_the_receiver_is_killed_during_a_c_store_and_the_sender_sends_again(
    node: KillableNode, pacs: Pacs, tmp_path: Path
) -> None:
    study, images = make_study(tmp_path, "receiver-killed")
    entity = AE(ae_title="MODALITY")
    entity.add_requested_context(MRImageStorage)
    entity.dimse_timeout = 5
    association = entity.associate("127.0.0.1", node.port, ae_title="CMBNODE")
    assert association.is_established
    taken = [association.send_c_store(dcmread(path)).Status for path in images[:10]]
    killed = node.part("receiver")
    # Killed as the request goes out: before that, the association might have noticed, and would not send at all.
    association.bind(evt.EVT_DIMSE_SENT, lambda _: killed.kill())
    assert "Status" not in association.send_c_store(dcmread(images[10]))
    association.abort()
    with node.ledger() as ledger:
        stored = ledger.instances(*(series.series_instance_uid for series in ledger.series(study)))
        assert taken == [0x0000] * 10
        assert {str(dcmread(path).SOPInstanceUID) for path in images[:10]} <= {i.sop_instance_uid for i in stored}
    wait_for(lambda: node.part("receiver").pid != killed.pid)
    assert wait_for(lambda: _all_accepted(node, images))
    assert_delivered_once(node, pacs, study)


def _all_accepted(node: KillableNode, images: list[Path]) -> bool:
    """Send as a PACS does: until everything was taken."""
    from node.deliver import Unreachable

    try:
        return all(node.send(images))
    except Unreachable:
        return False


def test_redis_is_wiped_while_studies_wait(node: KillableNode, pacs: Pacs, tmp_path: Path) -> None:
    studies = [make_study(tmp_path, f"wiped-{number}") for number in range(3)]
    for _study, images in studies:
        assert all(node.send(images))
    with node.ledger() as ledger, redis.Redis(unix_socket_path=str(node.redis.socket)) as client:
        jobs = [job_of(ledger, study) for study, _ in studies]
        wait_for(lambda: JobState.RUNNING in {ledger.job(job.id).state for job in jobs}, every_s=0.05)
        client.flushall()
    for study, _ in studies:
        assert_delivered_once(node, pacs, study)


def test_redis_is_killed_and_its_files_are_gone(node: KillableNode, pacs: Pacs, tmp_path: Path) -> None:
    study, images = make_study(tmp_path, "redis-killed")
    server = node.part("redis-server")
    server.suspend()
    for path in [*node.redis.folder.glob("*.aof"), *node.redis.folder.glob("appendonlydir*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    server.kill()
    assert all(node.send(images))
    assert_delivered_once(node, pacs, study)


@pytest.mark.parametrize("whom", ["the supervisor", "everything"])
def test_what_was_killed_is_started_again_and_goes_on(
    node: KillableNode, pacs: Pacs, tmp_path: Path, whom: str
) -> None:
    study, images = make_study(tmp_path, f"{whom} killed")
    assert all(node.send(images))
    with node.ledger() as ledger:
        reaches(ledger, job_of(ledger, study), JobState.RUNNING)
    assert node.process is not None
    family = psutil.Process(node.process.pid).children(recursive=True)
    for member in family if whom == "everything" else []:
        member.kill()
    node.process.kill()
    node.process.wait(timeout=20)
    node.start()  # waits for what is left of the last run
    assert not [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
    assert_delivered_once(node, pacs, study)


def test_a_destination_that_is_down_gets_its_objects_when_it_is_up(tmp_path: Path) -> None:
    port, inbox = free_port(), tmp_path / "inbox"
    inbox.mkdir()
    node = KillableNode(tmp_path, {"archive": ("DOWN", port)})
    node.start()
    storescp: subprocess.Popen[bytes] | None = None
    try:
        study, images = make_study(tmp_path, "down")
        assert all(node.send(images))
        with node.ledger() as ledger:
            job = job_of(ledger, study)
            waiting = wait_for(lambda: next((d for d in ledger.deliveries(job.id) if d.attempts >= 2), None))
            assert ledger.job(job.id).state == JobState.DELIVERING
            assert waiting.answer.startswith(f"DOWN@127.0.0.1:{port} does not answer")
            storescp = subprocess.Popen(["/usr/bin/storescp", "-od", str(inbox), "-aet", "DOWN", str(port)])
            reaches(ledger, job, JobState.DELIVERED)
            results = {result.sop_instance_uid for result in ledger.results(job.id)}
        arrived = [str(dcmread(path).SOPInstanceUID) for path in inbox.iterdir()]
        assert sorted(arrived) == sorted(results)
        assert node.stop() == 0
    finally:
        node.end()
        if storescp is not None:
            storescp.kill()
            storescp.wait(timeout=20)


def test_sigterm_stops_every_part_and_puts_running_work_back(node: KillableNode, pacs: Pacs, tmp_path: Path) -> None:
    assert node.process is not None
    family = psutil.Process(node.process.pid).children(recursive=True)
    study, images = make_study(tmp_path, "stopped")
    assert all(node.send(images))
    with node.ledger() as ledger:
        job = reaches(ledger, job_of(ledger, study), JobState.RUNNING)
        assert node.stop() == 0
        assert not [member for member in family if member.is_running()]
        after = ledger.job(job.id)
        assert after.state in (JobState.DELIVERING, JobState.DELIVERED, JobState.QUEUED)
        assert after.attempts == (0 if after.state == JobState.QUEUED else 1)
    node.start()
    assert_delivered_once(node, pacs, study)
