from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from node.ledger import Ledger
from node.ledger.models import metadata
from tests.node.conftest import Clock
from tests.node.ledger_factory import instance, receive, uid


@pytest.fixture(params=["sqlite", "postgresql"])
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """A database without any table."""
    if request.param == "sqlite":
        ledger = Ledger(f"sqlite:///{tmp_path / 'new' / 'ledger.sqlite3'}")
        yield ledger
    else:
        url = request.getfixturevalue("postgresql_url")
        ledger = Ledger(url)
        with ledger.engine.begin() as connection:
            connection.execute(text("CREATE SCHEMA bare"))
        ledger.close()
        ledger = Ledger(f"{url}&options=-csearch_path%3Dbare")
        yield ledger
        with ledger.engine.begin() as connection:
            connection.execute(text("DROP SCHEMA bare CASCADE"))
    ledger.close()


def test_the_migrations_make_the_tables_of_the_models(bare: Ledger) -> None:
    bare.upgrade()
    with bare.engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


@pytest.mark.parametrize("name", ["node.ledger.migrations", "node.ledger.migrations.versions"])
def test_the_migrations_are_packages_and_so_part_of_the_distribution(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None  # a folder without __init__.py has none, and is not installed


def test_an_upgraded_ledger_is_left_alone(bare: Ledger, clock: Clock) -> None:
    bare.upgrade()
    receive(bare, "study", clock())
    bare.upgrade()
    assert len(bare.instances(uid("study", "swi"))) == 3


def test_a_committed_row_is_durable_on_sqlite(tmp_path: Path, clock: Clock) -> None:
    """What SQLite needs so that a committed row survives a power cut, and readers do not wait for writers."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    ledger.upgrade()
    with ledger.engine.connect() as connection:
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in (
            "journal_mode", "synchronous", "foreign_keys", "busy_timeout",
        )}  # fmt: skip
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}
    ledger.close()


def test_readers_do_not_wait_for_a_writer(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(f"sqlite:///{path}")
    ledger.upgrade()
    receive(ledger, "study", clock())
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM history")
    assert len(ledger.history("series", uid("study", "swi"))) == 1
    writer.execute("ROLLBACK")
    writer.close()
    ledger.close()


def test_a_failed_transaction_leaves_nothing_behind(ledger: Ledger, clock: Clock) -> None:
    broken = instance("study", "swi", 1, clock(), transfer_syntax_uid=None)
    with pytest.raises(Exception, match=r"(?i)not.null"):
        ledger.record_instance(broken)
    assert ledger.counts().studies == 0
    assert ledger.history("series", uid("study", "swi")) == []
    receive(ledger, "study", clock())
    assert ledger.counts().studies == 1


def test_times_without_a_zone_are_refused(ledger: Ledger, clock: Clock) -> None:
    with pytest.raises(Exception, match="without zone"):
        ledger.record_instance(instance("study", "swi", 1, clock().replace(tzinfo=None)))
