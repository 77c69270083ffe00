"""How are counters and histograms written and read? As rows that are only added, and added up now and then.

Nobody waits for a row that another transaction counts in, so counting can neither delay nor deadlock.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

from sqlalchemy import delete, func, select
from sqlalchemy.exc import SQLAlchemyError

from .engine import Store
from .metrics import LedgerMetric, Tally, count
from .models import tallies

MERGE_ABOVE = 500
"""Rows; fewer are not worth a transaction."""


class Tallies(Store):
    """Counters and histograms of everything that the node did."""

    def add_tallies(self, given: Iterable[Tally]) -> None:
        """Count what no other transaction of the ledger counts."""
        with self._write() as connection:
            self._tally(connection, given)

    def tallies(self) -> list[Tally]:
        """Every counter, and every bucket of a histogram that has values."""
        key = (tallies.c.metric, tallies.c.labels, tallies.c.le)
        query = select(*key, func.sum(tallies.c.number), func.sum(tallies.c.seconds)).group_by(*key)
        with self._read() as connection:
            return [
                Tally(metric, labels, int(number), le, float(seconds))
                for metric, labels, le, number, seconds in connection.execute(query)
            ]

    def merge_tallies(self) -> int:
        """Replace the rows by their sums, if there are many; returns how many rows that were.

        Those that others add meanwhile, or add up at the same time, are theirs.
        """
        with self._read() as connection:
            if (connection.scalar(select(func.count()).select_from(tallies)) or 0) < MERGE_ABOVE:
                return 0
        columns = (tallies.c.metric, tallies.c.labels, tallies.c.le, tallies.c.number, tallies.c.seconds)
        numbers: Counter[tuple[str, str, float | None]] = Counter()
        seconds: dict[tuple[str, str, float | None], float] = {}
        with self._write() as connection:
            rows = connection.execute(delete(tallies).returning(*columns)).all()
            for metric, labels, le, number, value in rows:
                key = (metric, labels, le)
                numbers[key] += number
                seconds[key] = seconds.get(key, 0.0) + value
            merged = [Tally(key[0], key[1], number, key[2], seconds[key]) for key, number in numbers.items()]
            self._tally(connection, merged)
        return len(rows)


class TallyBuffer:
    """What a process counts between two writes, where one row for each event would be too many.

    Parameters
    ----------
    ledger : Tallies
        Where :meth:`flush` writes.
    """

    def __init__(self, ledger: Tallies) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._numbers: Counter[Tally] = Counter()

    def count(self, metric: LedgerMetric, **labels: str) -> None:
        """Count one event."""
        with self._lock:
            self._numbers[count(metric, **labels)] += 1

    def flush(self) -> None:
        """Write what was counted; while the database is away, it is kept."""
        with self._lock:
            numbers, self._numbers = self._numbers, Counter()
        if not numbers:
            return
        try:
            self._ledger.add_tallies(Tally(one.metric, one.labels, number) for one, number in numbers.items())
        except SQLAlchemyError:
            with self._lock:
                self._numbers.update(numbers)
