"""How long does the worklist page take on the server, with 10 000 studies in the ledger? SQLite and PostgreSQL.

    python -m benchmarks.worklist [--studies 10000] [--repeats 9]

Each time is a whole request through the application: session, ledger, template, security headers, and the row in the
audit; the median and the longest of several. SQLite runs as in the product (every commit synced), PostgreSQL is
Debian's on a socket of its own with its default durability. The processor time beside them is what a busy machine
cannot falsify; with SQLite it is all of the work.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from fastapi.testclient import TestClient
from sqlalchemy import update

from node.ledger import Ledger
from node.ledger.models import findings
from node.roles import SessionKind, UserRole
from node.settings import load_settings
from node.web.app import create_app
from node.web.auth import POLL, cookie_name, new_token, token_hash
from node.web.passwords import hash_password
from tests.servers import postgresql

from .ledger import fill

ADDRESS = "http://127.0.0.1:8080"
PAGES = {
    "first page": "/",
    "the same, asked again by the page itself": "/",
    "second page": "/?page=1",
    "last page": "/?page=99999",
    "by burden": "/?sort=burden",
    "by priority": "/?sort=priority",
    "by state": "/?sort=state",
    "by patient": "/?sort=patient",
    "failed": "/?state=failed",
    "10 or more, not verified yet": "/?burden=10&findings=unverified",
    "new bleeds, by burden": "/?findings=new&sort=burden",
    "STAT, one week": "/?priority=stat&since=2020-01-01",
    "search, one in four": "/?q=m%C3%BCller",
    "search, one of all": "/?q=doe+9993",
    "search, none": "/?q=nobody+has+this+name",
}


def measure(url: str, folder: Path, studies: int, repeats: int) -> dict[str, tuple[float, float, float]]:
    """Median, longest and processor time of each page, ms."""
    ledger = Ledger(url)
    ledger.upgrade()
    fill(ledger, studies)
    with ledger.engine.begin() as connection:
        values = {"pattern": "mixed", "new": findings.c.total % 4, "aria_h": "mild", "verified_by": ""}
        connection.execute(update(findings).values(values))
    ledger.add_account("reader", "Reader", UserRole.READER, hash_password("a sentence of words"), actor="benchmark")
    token = new_token()
    ledger.open_session(token_hash(token), "reader", SessionKind.BROWSER, 3600)
    app = create_app(load_settings(None, data_dir=folder), ledger)
    times: dict[str, tuple[float, float, float]] = {}
    with TestClient(app, base_url=ADDRESS) as client:
        client.cookies.set(cookie_name(secure=False), token)
        for name, address in PAGES.items():
            headers = {POLL: "1"} if "itself" in name else {}
            taken, worked = [], []
            for _ in range(repeats + 1):
                start, processor = time.perf_counter(), time.process_time()
                answer = client.get(address, headers=headers)
                taken.append((time.perf_counter() - start) * 1000)
                worked.append((time.process_time() - processor) * 1000)
                assert answer.status_code == 200, answer.text
                assert "Sign in" not in answer.text
            times[name] = (statistics.median(taken[1:]), max(taken[1:]), statistics.median(worked[1:]))
    ledger.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cmb-bench-") as folder:
        url = f"sqlite:///{Path(folder) / 'ledger.sqlite3'}"
        sqlite = measure(url, Path(folder), arguments.studies, arguments.repeats)
        with postgresql(durable=True) as url:
            postgres = measure(url, Path(folder), arguments.studies, arguments.repeats)
    print(f"| page with {arguments.studies} studies, ms: median (longest) | SQLite | its processor time | PostgreSQL |")
    print("|---|---|---|---|")
    for name, (median, longest, processor) in sqlite.items():
        other = f"{postgres[name][0]:.0f} ({postgres[name][1]:.0f})"
        print(f"| {name} | {median:.0f} ({longest:.0f}) | {processor:.0f} | {other} |")


if __name__ == "__main__":
    main()
