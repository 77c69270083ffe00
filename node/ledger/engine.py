"""How does the ledger reach its database? Engine, transactions, history; SQLite and PostgreSQL differ only here."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    create_engine,
    event,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from .copying import LedgerCopy, read_rows, require_empty, write_rows
from .metrics import Tally
from .models import history, tallies
from .rows import Row
from .schema import SchemaVersion, migrations, schema_version
from .state_tallies import tallies_of_change

BUSY_TIMEOUT_S = 30.0
_SILENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""libpq's waits for a server that falls silent, s (the last ms); without them a lost network is noticed after hours."""
_CLIENT_SILENCE = {
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 3,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 19_000,  # ms; without it an answer that is lost is sent again for a quarter of an hour
}
"""The server's waits for a client that falls silent: it ends the session, and frees its locks, after 19 s."""
_ENTITIES = {
    "series": "series", "jobs": "job", "deliveries": "delivery", "prior_requests": "prior", "pulls": "pull",
}  # fmt: skip
"""What the history calls the rows of a table."""
_MIGRATION_LOCK = 0x636D626E  # any fixed number: PostgreSQL's advisory lock that serialises migrations


def utc_now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


def connect(url: str) -> Engine:
    """Make the engine for `url` (``sqlite:///path`` or ``postgresql://…``); its errors quote no patient's data."""
    target = make_url(url)
    if target.get_backend_name() == "sqlite":
        if target.database in (None, "", ":memory:"):
            raise ValueError("the ledger needs a database file: several processes share it")
        engine = create_engine(
            target, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        if target.get_backend_name() == "postgresql":
            target = target.set(drivername="postgresql+psycopg")
        waits = {name: value for name, value in _SILENCE.items() if name not in target.query}
        engine = create_engine(
            target, hide_parameters=True, pool_pre_ping=True, isolation_level="READ COMMITTED", connect_args=waits
        )
        event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Durable commits, readers beside the one writer, and Unicode-aware ``lower`` for searching names."""
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    connection.create_function("lower", 1, lambda value: value and str(value).lower(), deterministic=True)


def _prepare_postgresql(connection: Any, _record: object) -> None:
    """Have the server notice that this host was cut off; a pooler would refuse it as an option of the connection."""
    for setting, value in _CLIENT_SILENCE.items():
        connection.execute(f"SET {setting} = {value}")
    connection.commit()  # or a rollback would undo it


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: a transaction that upgrades from reading cannot wait, it fails as busy."""
    write = connection.get_execution_options().get("ledger_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


class Store:
    """What every part of the ledger shares: the engine, the clock, transactions and history.

    Parameters
    ----------
    url : str
        SQLAlchemy URL of a SQLite file or of a PostgreSQL database.
    clock : callable, optional
        Gives the time, aware; for tests.
    """

    def __init__(self, url: str, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.engine = connect(url)
        self._clock = clock
        self._take_turns()
        reference = weakref.ref(self)

        def renew() -> None:
            if (store := reference()) is not None:
                store._after_fork()

        os.register_at_fork(after_in_child=renew)

    def _take_turns(self) -> None:
        """SQLite has one writer, and a connection polls for its turn in growing steps; threads queue."""
        self._turn: AbstractContextManager[object] = nullcontext()
        if self.engine.dialect.name == "sqlite":
            self._turn = threading.Lock()

    def _after_fork(self) -> None:
        """A forked child must not use or close its parent's connections, nor wait for its parent's threads."""
        self.engine.dispose(close=False)
        self._take_turns()

    def upgrade(self) -> None:
        """Create the tables, or bring them to this version; several processes may do it at once.

        Raises
        ------
        SchemaError
            If a newer version of the node made them.
        """
        with self._migrating() as connection:
            schema_version(connection).require_known()
            _migrate(connection, "head")

    @contextmanager
    def _migrating(self) -> Iterator[Connection]:
        """A transaction that may change tables; only one process at a time is in it."""
        if self.engine.dialect.name == "sqlite" and self.engine.url.database:
            Path(self.engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        with self._write() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            yield connection

    def schema(self) -> SchemaVersion:
        """The schema of the database, and those that this version knows."""
        with self._read() as connection:
            return schema_version(connection)

    def write_copy(self, out: IO[str]) -> LedgerCopy:
        """Write all rows, as they are at one moment, as lines of JSON."""
        return write_rows(self.engine, out)

    def read_copy(self, schema: str, lines: Iterable[str]) -> dict[str, int]:
        """Read the rows of a copy, and bring them to the schema of this version; returns their number by table.

        Raises
        ------
        SchemaError
            If there are rows already, or a newer version wrote the copy.
        """
        with self._migrating() as connection:
            require_empty(connection)
            rows = read_rows(connection, schema, lines, _migrate)
            _migrate(connection, "head")
        return rows

    def require_empty(self) -> None:
        """Refuse a database with rows.

        Raises
        ------
        SchemaError
            If there are any.
        """
        with self._read() as connection:
            require_empty(connection)

    def ping(self) -> None:
        """Query the database, for health checks."""
        with self._read() as connection:
            connection.execute(select(1))

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """One transaction that may change rows: committed completely or not at all."""
        with (
            self._turn,
            self.engine.connect().execution_options(ledger_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @staticmethod
    def _insert_missing(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
        """Insert a row unless its key exists; whether it was inserted."""
        return connection.scalar(_insert_missing(connection.dialect.name, table), dict(values)) is not None

    def _log(
        self, connection: Connection, entity: str, entity_id: object, before: str, after: str, why: str, actor: str
    ) -> None:
        """Write the history row of a change of state."""
        connection.execute(
            insert(history).values(
                at=self._clock(),
                entity=entity,
                entity_id=str(entity_id),
                from_state=before,
                to_state=after,
                why=clean(why),
                actor=clean(actor),
            )
        )

    def _change(
        self,
        connection: Connection,
        table: Table,
        row: Row,
        after: str,
        *,
        actor: str,
        why: str = "",
        **values: Any,
    ) -> None:
        """Move a locked row to another state, with its history row."""
        key: ColumnElement[Any] = next(iter(table.primary_key.columns))
        entity = _ENTITIES[table.name]
        connection.execute(update(table).where(key == row[key.name]).values(state=after, **values))
        self._log(connection, entity, row[key.name], row["state"], after, why, actor)
        self._tally(connection, tallies_of_change(table.name, row, after, values, actor, self._clock()))

    @staticmethod
    def _tally(connection: Connection, given: Iterable[Tally]) -> None:
        """Count in the metrics, in the transaction of what is counted."""
        if rows := [asdict(tally) for tally in given]:
            connection.execute(insert(tallies), rows)


@cache
def _insert_missing(dialect: str, table: Table) -> ReturningInsert[Any]:
    """The statement; made once, as SQLAlchemy takes longer to make it than the database to do it."""
    key = next(iter(table.primary_key.columns))
    insert_into = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert_into(table).on_conflict_do_nothing().returning(key)


def _migrate(connection: Connection, schema: str) -> None:
    """Bring the tables to a schema, in the transaction of the connection."""
    from alembic import command  # heavy, and only needed here

    config = migrations()
    config.attributes["connection"] = connection
    command.upgrade(config, schema)


def locked(query: Select[Any], *, free: bool = False, of: Table | None = None) -> Select[Any]:
    """Lock the rows of a query until the transaction ends; `free`: only rows that nobody else has locked.

    In PostgreSQL's mode FOR NO KEY UPDATE: a plain FOR UPDATE would also hold up the foreign key checks of rows that
    refer to the locked ones, and then two transactions can wait for each other. SQLite has one writer anyway.
    """
    return query.with_for_update(key_share=True, skip_locked=free, of=of)


def clean(value: str, limit: int = 1024) -> str:
    """Make text from the wire storable: no NUL (PostgreSQL refuses it), no lone surrogates, a bounded length."""
    return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")[:limit]
