"""One of several processes leads, for as long as it lives and reaches the database."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from node.ledger import Lead, Ledger
from tests.waiting import wait_for


def test_one_leads_and_another_takes_over_when_it_ends(ledger_url: str) -> None:
    first, second = Ledger(ledger_url), Ledger(ledger_url)
    leads = Lead(first, "sweep"), Lead(second, "sweep")
    with capture_logs() as logs:
        for _ in range(3):
            assert [lead.held() for lead in leads] == [True, False]
        leads[0].close()
        wait_for(leads[1].held)  # the server ends the other session in its own time
        assert not leads[0].held()
    assert [entry["event"].split(":")[0] for entry in logs] == ["leads", "stands by", "leads", "stands by"]
    for lead, ledger in zip(leads, (first, second), strict=True):
        lead.close()
        ledger.close()


def test_what_is_done_once_elsewhere_is_another_matter(ledger: Ledger) -> None:
    sweep, other = Lead(ledger, "sweep"), Lead(ledger, "other")
    assert sweep.held()
    assert other.held()
    sweep.close()
    other.close()


def test_who_loses_the_session_loses_the_lead_and_may_have_it_again(postgresql_url: str) -> None:
    ledger, server = Ledger(postgresql_url), Ledger(postgresql_url)
    lead = Lead(ledger, "sweep")
    assert lead.held()
    with server.engine.begin() as connection:
        holder = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        assert connection.scalar(text(holder))
    with capture_logs() as logs:
        assert not lead.held(), "whoever else asked meanwhile may have it"
        assert lead.held()
    assert [entry["event"] for entry in logs] == ["does not know who leads; it is asked again", "leads"]
    lead.close()
    for one in (ledger, server):
        one.close()


@pytest.mark.parametrize("times", [1, 3])
def test_a_disk_that_fails_costs_the_lead_and_nothing_else(tmp_path: Path, times: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite3'}")
    lead = Lead(ledger, "sweep")
    shutil.rmtree(folder)
    assert [lead.held() for _ in range(times)] == [False] * times
    folder.mkdir()
    assert lead.held()
    lead.close()
    ledger.close()
