"""How often was something tried lately? Counted in the ledger: every process sees it, and a restart loses nothing."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from sqlalchemy import delete, func, insert, select, text

from .access_tables import attempts
from .engine import Store


class Attempts(Store):
    """When something was tried, by key. Keys are stored as hashes: a user may type a password in place of a name."""

    def try_after_s(self, key: str, most: int, window_s: float) -> float:
        """Count an attempt unless `most` were counted within the window.

        Returns
        -------
        float
            0 if the attempt may be made; otherwise the seconds to wait.
        """
        digest, now = _digest(key), self._clock()
        window = timedelta(seconds=window_s)
        with self._write() as connection:
            if connection.dialect.name == "postgresql":  # SQLite has one writer; here two could count the same number
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:key))"), {"key": digest})
            where = (attempts.c.key == digest, attempts.c.at > now - window)
            first, count = connection.execute(select(func.min(attempts.c.at), func.count()).where(*where)).one()
            if count >= most:
                return max(1.0, (first + window - now).total_seconds())
            connection.execute(insert(attempts).values(key=digest, at=now))
            return 0.0

    def count_attempts(self, key: str, window_s: float) -> int:
        """How many attempts were counted within the window."""
        where = (attempts.c.key == _digest(key), attempts.c.at > self._clock() - timedelta(seconds=window_s))
        with self._read() as connection:
            return connection.scalar(select(func.count()).select_from(attempts).where(*where)) or 0

    def take_back_attempt(self, key: str) -> None:
        """Delete the last attempt of a key: it was no failure."""
        with self._write() as connection:
            last = select(func.max(attempts.c.id)).where(attempts.c.key == _digest(key)).scalar_subquery()
            connection.execute(delete(attempts).where(attempts.c.id == last))

    def clear_attempts(self, key: str) -> None:
        """Delete every attempt of a key."""
        with self._write() as connection:
            connection.execute(delete(attempts).where(attempts.c.key == _digest(key)))

    def forget_attempts(self, before: datetime) -> int:
        """Delete the attempts before a time; returns how many."""
        with self._write() as connection:
            return connection.execute(delete(attempts).where(attempts.c.at < before)).rowcount


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
