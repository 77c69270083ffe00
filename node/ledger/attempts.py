"""How often was something tried lately? Counted in the ledger: every process sees it, and a restart forgets nothing."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select, text

from node.ledger.access_tables import attempts
from node.ledger.engine import Store


class Attempts(Store):
    """Moments at which something was tried, by key. A key is a hash: it may stand for a name or an address."""

    def take_attempt(self, key: str, most: int, window_s: float) -> bool:
        """Note an attempt if fewer than `most` were noted within the window; whether it was."""
        with self._write() as connection:
            if connection.dialect.name == "postgresql":  # SQLite has one writer; here two could count the same number
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:key))"), {"key": key})
            if _count(connection, key, self._clock() - timedelta(seconds=window_s))[1] >= most:
                return False
            connection.execute(insert(attempts).values(key=key, at=self._clock()))
            return True

    def count_attempts(self, key: str, window_s: float) -> tuple[datetime | None, int]:
        """When the first attempt within the window was, and how many there were."""
        with self._read() as connection:
            return _count(connection, key, self._clock() - timedelta(seconds=window_s))

    def take_back_attempt(self, key: str) -> None:
        """Forget the last attempt: it was no failure."""
        with self._write() as connection:
            last = select(func.max(attempts.c.id)).where(attempts.c.key == key).scalar_subquery()
            connection.execute(delete(attempts).where(attempts.c.id == last))

    def forget_attempts(self, key: str | None = None, before: datetime | None = None) -> int:
        """Forget the attempts of a key (none: of all), or those before a time; how many."""
        query = delete(attempts)
        if key is not None:
            query = query.where(attempts.c.key == key)
        if before is not None:
            query = query.where(attempts.c.at < before)
        with self._write() as connection:
            return connection.execute(query).rowcount


def _count(connection: Connection, key: str, since: datetime) -> tuple[datetime | None, int]:
    query = select(func.min(attempts.c.at), func.count()).where(attempts.c.key == key, attempts.c.at > since)
    first, number = connection.execute(query).one()
    return first, number
