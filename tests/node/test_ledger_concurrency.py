"""Several processes and threads work on one ledger at once."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime

from sqlalchemy import text

from node.ledger import JobState, Ledger, Stored
from tests.node.conftest import Clock
from tests.node.ledger_factory import analyse, findings, instance, job_of_new_study, results, uid

PROCESSES = 3
SLICES = 40
JOBS = 24
SPAWN = multiprocessing.get_context("spawn")


def record_all(url: str, worker: int) -> list[Stored]:
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
    assert counted == {Stored.NEW: SLICES + PROCESSES, Stored.DUPLICATE: SLICES * (PROCESSES - 1)}
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
