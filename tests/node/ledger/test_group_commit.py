from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy.exc import SQLAlchemyError

from node.ledger import Ledger, StorageOutcome
from node.ledger.group_commit import GroupCommit
from tests.node.conftest import Clock
from tests.node.ledger_factory import instance, uid


class Squares:
    """Squares numbers; a negative one fails. The first is held until the others stand in line."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.started, self.go_on = threading.Event(), threading.Event()
        self.together = GroupCommit(self.all, self.one)

    def all(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(len(numbers))
        return [self.square(number) for number in numbers]

    def one(self, number: int) -> int:
        if not self.started.is_set():
            self.started.set()
            assert self.go_on.wait(30)
        return self.square(number)

    def square(self, number: int) -> int:
        if number < 0:
            raise SQLAlchemyError(f"{number} is negative")
        return number**2

    def run(self, first: int, *others: int) -> list[Future[int]]:
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(self.together.do, first)]
            assert self.started.wait(30)
            futures += [pool.submit(self.together.do, number) for number in others]
            while len(self.together._waiting) <= len(others):
                time.sleep(0.001)
            self.go_on.set()
        return futures


def test_those_who_wait_are_done_in_one_go() -> None:
    squares = Squares()
    assert [future.result() for future in squares.run(*range(8))] == [n**2 for n in range(8)]
    assert squares.batches == [7]


def test_only_the_one_to_blame_hears_of_a_failed_batch() -> None:
    squares = Squares()
    futures = squares.run(9, 2, -3, 4)
    with pytest.raises(SQLAlchemyError, match="-3 is negative"):
        futures[2].result()
    assert [futures[n].result() for n in (0, 1, 3)] == [81, 4, 16]
    assert squares.batches == [3]


def test_many_threads_enter_instances_and_none_is_lost(ledger: Ledger, clock: Clock) -> None:
    def send(association: int) -> list[StorageOutcome]:
        return [
            ledger.record_instance(
                instance("study", f"series-{association % 4}", n, clock(), association=f"{association}")
            )
            for n in range(25)
        ]

    with ThreadPoolExecutor(8) as pool:  # two associations a series, with the same slices
        outcomes = [outcome for sent in pool.map(send, range(8)) for outcome in sent]
    assert (outcomes.count(StorageOutcome.NEW), outcomes.count(StorageOutcome.DUPLICATE)) == (100, 100)
    assert sorted(s.instance_count for s in ledger.series(uid("study"))) == [25] * 4
