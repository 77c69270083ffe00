"""The ledger of a test: an empty one, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import text

from node.ledger import Ledger
from node.ledger.models import metadata
from tests.servers import postgresql

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


class Clock:
    """A clock that tests turn by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A database with the ledger's tables, shared by the whole run; `ledger_url` empties it."""
    with postgresql() as url:
        ledger = Ledger(url)
        ledger.upgrade()
        ledger.close()
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("ledger") / "template.sqlite3"
    ledger = Ledger(f"sqlite:///{path}")
    ledger.upgrade()
    ledger.close()
    return path.read_bytes()


@pytest.fixture
def fast_folder() -> Iterator[Path]:
    """An empty folder where syncing costs nothing, if there is such a place."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(prefix="cmb-ledger-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, fast_folder: Path) -> str:
    """URL of an empty ledger; a test that asks for it runs on both databases."""
    if request.param == "sqlite":
        path = fast_folder / "ledger.sqlite3"
        path.write_bytes(request.getfixturevalue("sqlite_template"))
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("postgresql_url")
    empty_database(url)
    return url


@pytest.fixture
def ledger(ledger_url: str, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger(ledger_url, clock=clock)
    yield opened
    opened.close()


def empty_database(url: str) -> None:
    """Empty every table of a PostgreSQL ledger and start its numbers again."""
    ledger = Ledger(url)
    with ledger.engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY CASCADE"))
    ledger.close()
