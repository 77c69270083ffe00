"""Several processes and threads work on one ledger at once."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from node.ledger import JobState, Ledger, SeriesVerdict, StorageOutcome, WorklistFilters
from pipeline.errors import InputError
from tests.node.conftest import Clock
from tests.node.ledger_factory import analyse, findings, instance, job_of_new_study, open_job, results, uid

pytestmark = pytest.mark.slow

PROCESSES = 3
SLICES = 40
JOBS = 24
SPAWN = multiprocessing.get_context("spawn")


def record_all(url: str, worker: int) -> list[StorageOutcome]:
    """Every worker sends the same 40 slices, and one of its own: the same study from several senders."""
    ledger = Ledger(url)
    at = datetime.now(UTC)
    numbers = [*range(SLICES), 1000 + worker]
    stored = [ledger.record_instance(instance("study", f"series-{n % 3}", n, at)) for n in numbers]
    ledger.close()
    return stored


def claim_all(url: str, worker: int) -> list[int]:
    """Claim whatever is queued, finish it, and deliver what is due."""
    ledger = Ledger(url)
    mine = []
    for job in ledger.queued_jobs():
        if ledger.claim_job(job.id, f"worker-{worker}", 30) is not None:
            mine.append(job.id)
            assert ledger.finish_analysis(job.id, f"worker-{worker}", findings(), results("sr"))
    ledger.close()
    return mine


def deliver_all(url: str, worker: int) -> list[int]:
    ledger = Ledger(url)
    sent = []
    while claimed := ledger.claim_deliveries("pacs", f"sender-{worker}", 30, 3):
        for delivery in claimed:
            assert ledger.delivery_accepted(delivery.id, f"sender-{worker}", 0)
            sent.append(delivery.id)
    ledger.close()
    return sent


def test_several_senders_of_one_study_store_it_once(ledger_url: str) -> None:
    with ProcessPoolExecutor(PROCESSES, mp_context=SPAWN) as pool:
        outcomes = list(pool.map(record_all, [ledger_url] * PROCESSES, range(PROCESSES)))
    counted = Counter(outcome for stored in outcomes for outcome in stored)
    assert counted == {StorageOutcome.NEW: SLICES + PROCESSES, StorageOutcome.DUPLICATE: SLICES * (PROCESSES - 1)}
    ledger = Ledger(ledger_url)
    series = ledger.series(uid("study"))
    assert sum(s.instance_count for s in series) == SLICES + PROCESSES
    assert ledger.study(uid("study")).revision == len(series)
    ledger.close()


def test_every_job_and_delivery_is_taken_exactly_once(ledger_url: str, ledger: Ledger, clock: Clock) -> None:
    jobs = [job_of_new_study(ledger, clock(), f"study-{n}").id for n in range(JOBS)]
    with ProcessPoolExecutor(PROCESSES, mp_context=SPAWN) as pool:
        claimed = list(pool.map(claim_all, [ledger_url] * PROCESSES, range(PROCESSES)))
        sent = list(pool.map(deliver_all, [ledger_url] * PROCESSES, range(PROCESSES)))
    assert sorted(job for mine in claimed for job in mine) == jobs
    assert len({delivery for mine in sent for delivery in mine}) == sum(map(len, sent)) == JOBS
    assert ledger.counts().jobs == {"delivered": JOBS}


def test_threads_share_one_ledger(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())

    def claim(worker: int) -> bool:
        return ledger.claim_job(job.id, f"worker-{worker}", 30) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(16))) == 1
    assert ledger.job(job.id).attempts == 1


class Actor:
    """Does whatever may happen to three studies, in any order."""

    def __init__(self, url: str, seed: int) -> None:
        self.ledger, self.name, self.random = Ledger(url), f"actor-{seed}", random.Random(seed)
        self.studies = {uid(f"study-{n}"): f"study-{n}" for n in range(3)}

    def act(self, steps: int) -> None:
        for _ in range(steps):
            acts = (self.receive, self.receive, self.settle, self.route, self.analyse, self.send, self.retry)
            self.random.choice(acts)()
        self.ledger.close()

    def receive(self) -> None:
        study, series = self.random.choice([*self.studies.values()]), self.random.choice(["swi", "t1"])
        at = datetime.now(UTC)
        self.ledger.record_instance(instance(study, series, self.random.randrange(400), at, association=self.name))

    def settle(self) -> None:
        for series in self.ledger.series_receiving():
            self.ledger.settle_series(series.series_instance_uid, "quiet", seen=series.last_instance_at)

    def route(self) -> None:
        for study in self.ledger.studies_ready():
            name, series = self.studies[study.study_instance_uid], self.ledger.series(study.study_instance_uid)
            slices = sum(s.instance_count for s in series if s.description == "swi")
            job = open_job(self.ledger, name, f"{name}: {slices}") if slices else None
            verdicts = [SeriesVerdict(s.series_instance_uid, s.description == "swi", "", "", "") for s in series]
            number = job.id if job is not None else None
            self.ledger.mark_routed(study.study_instance_uid, study.revision, verdicts, job_id=number)

    def analyse(self) -> None:
        for job in self.ledger.queued_jobs()[:2]:
            if self.ledger.claim_job(job.id, self.name, 30) is None:
                continue
            if self.random.random() < 0.3:
                self.ledger.fail_attempt(job.id, self.name, "broken", 3)
            else:
                self.ledger.finish_analysis(job.id, self.name, findings(), results("sr", "seg"))

    def send(self) -> None:
        for delivery in self.ledger.claim_deliveries("pacs", self.name, 30, 3):
            if self.random.random() < 0.3:
                self.ledger.delivery_failed(delivery.id, self.name, "refused", None)
            else:
                self.ledger.delivery_accepted(delivery.id, self.name, 0)

    def retry(self) -> None:
        self.ledger.expire_leases(datetime.now(UTC), 3)
        for summary in self.ledger.jobs(WorklistFilters(states=("failed",)), limit=1):
            with suppress(InputError):  # another was faster
                self.ledger.retry(summary.job.id, self.name)


def test_whatever_happens_at_once_nobody_waits_for_ever(ledger_url: str) -> None:
    actors = [Actor(ledger_url, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for acting in [pool.submit(actor.act, 150) for actor in actors]:
            acting.result()  # a deadlock, or a database that is busy for too long, would be raised here
    ledger = Ledger(ledger_url)
    for study in actors[0].studies:
        jobs = ledger.jobs_of_study(study)
        assert jobs
        assert sum(job.superseded_by is None and job.state is not JobState.SUPERSEDED for job in jobs) <= 1
        for series in ledger.series(study):
            assert series.instance_count == len(ledger.instances(series.series_instance_uid))
    ledger.close()


def claim_in_child(ledger: Ledger, job_id: int, answer: multiprocessing.Queue[tuple[bool, int]]) -> None:
    answer.put((ledger.claim_job(job_id, "child", 30) is not None, server_process(ledger)))


def server_process(ledger: Ledger) -> int:
    """The PostgreSQL process behind the ledger's connection; SQLite has none."""
    if ledger.engine.dialect.name == "sqlite":
        return 0
    with ledger.engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_a_forked_worker_uses_connections_of_its_own(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    fork = multiprocessing.get_context("fork")
    answer: multiprocessing.Queue[tuple[bool, int]] = fork.Queue()
    child = fork.Process(target=claim_in_child, args=(ledger, job.id, answer))
    with ledger._turn:  # as if a thread of the parent were writing at this moment
        child.start()
        claimed, process = answer.get(timeout=30)
    child.join(30)
    assert claimed
    assert process == 0 or process != server_process(ledger)
    assert ledger.job(job.id).owner == "child"  # the parent's connection still works
    assert ledger.finish_analysis(job.id, "child", findings(), results("sr"))
    assert ledger.job(job.id).state is JobState.DELIVERING
    analyse(ledger, job_of_new_study(ledger, clock(), "another"))
