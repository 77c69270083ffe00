"""How fast is the ledger? Instances entered a second, and the worklist with 10 000 studies, on SQLite and PostgreSQL.

    python -m benchmarks.ledger [--instances 1000] [--studies 10000]

SQLite runs as in the product: write-ahead log, every commit synced to disk (``synchronous=FULL``). PostgreSQL is
Debian's, on a socket of its own, with its default durability. Rates are of one sender, and of four threads that share
one ledger as the receiver's associations do; worklist times are the median of several queries.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import insert

from node.ledger import Ledger, NewInstance, SortColumn, WorklistFilters
from node.ledger.models import findings, jobs, series, studies
from pipeline.uids import derive_uid
from tests.servers import postgresql

QUERIES: dict[str, Callable[[Ledger], object]] = {
    "first page, newest first": lambda ledger: ledger.worklist(limit=50),
    "first page by burden": lambda ledger: ledger.worklist(sort=SortColumn.BURDEN, limit=50),
    "first page by priority": lambda ledger: ledger.worklist(sort=SortColumn.PRIORITY, descending=False, limit=50),
    "page 150": lambda ledger: ledger.worklist(limit=50, offset=7450),
    "search by part of a name": lambda ledger: ledger.worklist(WorklistFilters(text="müller"), limit=50),
    "failed only": lambda ledger: ledger.worklist(WorklistFilters(states=("failed",)), limit=50),
    "number of studies found": lambda ledger: ledger.count_worklist(WorklistFilters(text="doe")),
    "counts for metrics": lambda ledger: ledger.counts(),
    "counters and histograms": lambda ledger: ledger.tallies(),
    "destinations that fail": lambda ledger: ledger.failing_destinations(),
}


def record(association: int, number: int) -> NewInstance:
    return NewInstance(
        sop_instance_uid=derive_uid("bench", association, number),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid=derive_uid("bench", association),
        study_instance_uid=derive_uid("bench"),
        path=f"studies/{association}/{number}.dcm",
        size=459_000,
        sha256=f"{number:064x}",
        received_at=datetime.now(UTC),
        association=str(association),
        orientation="0.00,0.00,1.00",
        position=float(number),
        patient_name="Doe^Jane",
        modality="MR",
    )


def rate(ledger: Ledger, threads: int, instances: int, offset: int) -> float:
    """Instances a second, of `threads` that send a series each."""

    def send(association: int) -> None:
        for number in range(instances // threads):
            ledger.record_instance(record(offset + association, number))

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(send, range(threads)))
    return instances / (time.perf_counter() - start)


def fill(ledger: Ledger, count: int) -> None:
    """Many studies of the past, each with three series, a job and its findings."""
    now = datetime.now(UTC)
    rows: dict[str, list[dict[str, object]]] = {"studies": [], "series": [], "jobs": [], "findings": []}
    for n in range(count):
        uid, at = derive_uid("study", n), now - timedelta(minutes=7 * n)
        name = ("Müller^Jürgen", "Doe^Jane", "Yamada^Tarou=山田^太郎", "O'Brien^Áine")[n % 4]
        state = "failed" if n % 97 == 0 else "delivered"
        times = {"created_at": at, "started_at": at, "analysed_at": at, "finished_at": at}
        rows["studies"].append(
            {"study_instance_uid": uid, "patient_id": f"P{n % 7000}", "patient_name": f"{name} {n}", "revision": 3,
             "routed_revision": 3, "current_job_id": n + 1, "first_received_at": at, "last_received_at": at,
             "accession_number": f"A{n}", "study_description": "MR Head SWI"}
        )  # fmt: skip
        rows["series"] += [
            {"series_instance_uid": derive_uid("series", n, k), "study_instance_uid": uid, "state": "settled",
             "first_instance_at": at, "last_instance_at": at} for k in range(3)
        ]  # fmt: skip
        rows["jobs"].append(
            {"id": n + 1, "key": f"{n:064x}", "study_instance_uid": uid, "swi_series_uid": derive_uid("series", n, 0),
             "profile": "frst", "priority": (0, 6, 6, 6)[n % 4], "destinations": ["pacs"], "warnings": [],
             "input_revision": 1, "state": state, **times}
        )  # fmt: skip
        rows["findings"].append(
            {"job_id": n + 1, "document": {"lesions": [{"id": k} for k in range(n % 9)]}, "total": n % 9,
             "definite": n % 5, "created_at": at}
        )  # fmt: skip
    with ledger.engine.begin() as connection:
        for table in (studies, series, jobs, findings):
            connection.execute(insert(table), rows[table.name])


def median_ms(query: Callable[[], object], repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        query()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def measure(url: str, instances: int, count: int) -> dict[str, float]:
    ledger = Ledger(url)
    ledger.upgrade()
    rate(ledger, 1, 50, 900)  # warm-up
    table = {f"instances/s, {n} sender{'s' * (n > 1)}": rate(ledger, n, instances, 10 * n) for n in (1, 4)}
    fill(ledger, count)
    for name, query in QUERIES.items():
        table[f"{name}, ms"] = median_ms(lambda query=query: query(ledger))
    ledger.close()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--studies", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cmb-bench-") as folder:
        sqlite = measure(f"sqlite:///{Path(folder) / 'ledger.sqlite3'}", arguments.instances, arguments.studies)
    with postgresql(durable=True) as url:
        postgres = measure(url, arguments.instances, arguments.studies)
    print(f"| {arguments.studies} studies | SQLite | PostgreSQL |\n|---|---|---|")
    for name, value in sqlite.items():
        print(f"| {name} | {value:.0f} | {postgres[name]:.0f} |")


if __name__ == "__main__":
    main()
