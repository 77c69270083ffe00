"""How are all rows of a ledger written to a file and read back, on SQLite and PostgreSQL alike, in any known schema?

The tables are those that the database has, not those of this version: a backup of an older schema is read back into
that schema, and then upgraded as a running node would be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import IO, Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    Engine,
    MetaData,
    Table,
    Text,
    bindparam,
    cast,
    func,
    insert,
    inspect,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.sql.expression import ColumnElement

from .models import metadata
from .schema import SchemaError, SchemaVersion, schema_version

VERSION_TABLE = "alembic_version"
_ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class LedgerCopy:
    """What was written.

    Parameters
    ----------
    rows : dict
        Number of rows by table.
    files : frozenset of str
        Files of the archive that must exist, by these rows.
    """

    schema: str
    rows: dict[str, int]
    files: frozenset[str]


def write_rows(engine: Engine, out: IO[str]) -> LedgerCopy:
    """Write every row as a line of JSON, as the database was at one moment; others go on writing meanwhile.

    Raises
    ------
    SchemaError
        If a newer version of the node made the tables: this one does not know all of them.
    """
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            schema = schema_version(connection)
            schema.require_known()
            tables = _tables(connection)
            rows = {table.name: _write_table(connection, table, out) for table in tables}
            return LedgerCopy(
                schema.current, rows, frozenset(_files(connection, {table.name: table for table in tables}))
            )


def _tables(connection: Connection) -> list[Table]:
    """The ledger's tables as the database has them; those that others refer to come first."""
    found = MetaData()
    names = set(metadata.tables)
    found.reflect(connection, only=lambda name, _: name in names)
    for table in found.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type = JSON(none_as_null=True)
    return list(found.sorted_tables)


def _write_table(connection: Connection, table: Table, out: IO[str]) -> int:
    print(json.dumps({"table": table.name, "columns": [column.name for column in table.columns]}), file=out)
    query = select(*(_readable(connection, column) for column in table.columns))
    key = list(table.primary_key.columns)
    # A row may refer to a later one of its own table (jobs.superseded_by): the latest comes first.
    query = query.order_by(*(column.desc() for column in key) if _own_references(table) else key)
    number = 0
    for row in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query):
        print(json.dumps([_plain(value) for value in row], ensure_ascii=False), file=out)
        number += 1
    return number


def _readable(connection: Connection, column: Column[Any]) -> ColumnElement[Any]:
    """JSON columns as the text that is stored, so that NULL and JSON's null stay different."""
    if not isinstance(column.type, JSON):
        return column
    return cast(column, Text) if connection.dialect.name == "postgresql" else type_coerce(column, Text)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it; times are in UTC, and SQLite gives them without a zone."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    return value


def _files(connection: Connection, tables: dict[str, Table]) -> Iterator[str]:
    """Files of the archive that are not yet removed, by the ledger."""
    if "instances" not in tables:
        return
    instances, results, jobs, studies = (tables[name] for name in ("instances", "results", "jobs", "studies"))
    yield from connection.scalars(select(instances.c.path).where(instances.c.removed_at.is_(None)))
    yield from connection.scalars(
        select(results.c.path)
        .join(jobs, jobs.c.id == results.c.job_id)
        .join(studies, studies.c.study_instance_uid == jobs.c.study_instance_uid)
        .where(studies.c.removed_at.is_(None))
    )


def require_empty(connection: Connection) -> None:
    """Refuse a database with rows of a ledger.

    Raises
    ------
    SchemaError
        If there are any.
    """
    for table in _tables(connection):
        if number := connection.scalar(select(func.count()).select_from(table)):
            raise SchemaError(
                f"it is not empty: there are {number} rows in {table.name}",
                where="database",
                do="name an empty one with database_url, or another folder with --data",
            )


def read_rows(
    connection: Connection, schema: str, lines: Iterable[str], migrate: Callable[[Connection, str], None]
) -> dict[str, int]:
    """Read rows back into a database without any, in the schema that they were written in.

    Returns their number by table.

    Parameters
    ----------
    migrate : callable
        Makes the tables of a schema.

    Raises
    ------
    SchemaError
        If this version does not know the schema.
    """
    known = schema_version(connection).known
    SchemaVersion(schema, known).require_known()
    if inspect(connection).has_table(VERSION_TABLE):  # empty tables of another schema
        for table in reversed(_tables(connection)):
            table.drop(connection)
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
    migrate(connection, schema)
    tables = {table.name: table for table in _tables(connection)}
    rows = dict.fromkeys(tables, 0)
    parts = (json.loads(line) for line in lines)
    table, columns = None, []
    for is_heading, group in groupby(parts, key=lambda part: isinstance(part, dict)):
        if is_heading:
            *_, heading = group
            if heading["table"] not in tables:
                raise SchemaError(f"there is no table {heading['table']} in schema {schema}", where="backup")
            table, columns = tables[heading["table"]], heading["columns"]
            continue
        if table is None:
            raise SchemaError("its rows belong to no table", where="backup")
        rows[table.name] += _read_table(connection, table, columns, group)
    if connection.dialect.name == "postgresql":
        for table in tables.values():
            _advance_numbers(connection, table)
    return rows


def _read_table(connection: Connection, table: Table, columns: Sequence[str], values: Iterable[list[Any]]) -> int:
    key, own = next(iter(table.primary_key.columns)), _own_references(table)
    number, later = 0, []
    remaining = iter(values)
    while batch := list(islice(remaining, _ROWS_AT_ONCE)):
        rows = [{name: _stored(table.c[name], v) for name, v in zip(columns, row, strict=True)} for row in batch]
        for row in rows:
            for name in own:  # refers to an earlier row, which comes later in the file
                if row[name] is not None and row[name] < row[key.name]:
                    later.append((name, {"the_key": row[key.name], "the_value": row[name]}))
                    row[name] = None
        connection.execute(insert(table), rows)
        number += len(rows)
    for name, values_ in later:
        change = update(table).where(key == bindparam("the_key")).values({name: bindparam("the_value")})
        connection.execute(change, values_)
    return number


def _own_references(table: Table) -> list[str]:
    """Columns that refer to rows of the same table."""
    return [key.parent.name for key in table.foreign_keys if key.column.table is table]


def _stored(column: Column[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column.type, DateTime):
        return datetime.fromisoformat(value)
    if isinstance(column.type, JSON):
        return JSON.NULL if value == "null" else json.loads(value)
    return value


def _advance_numbers(connection: Connection, table: Table) -> None:
    """Have PostgreSQL number new rows after those that were read."""
    for column in table.primary_key.columns:
        sequence = connection.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
        highest = connection.scalar(select(func.max(column))) if sequence else None
        if highest is not None:
            connection.execute(select(func.setval(sequence, highest)))
