"""How do threads that write at the same moment share one commit?

The thread that gets the lock does the work of all that wait for it; a thread that is alone waits for nobody. With an
``fsync`` of 5 ms four threads enter 97 instances/s instead of 57, sixteen 105 instead of 66, one the same
(`python -m benchmarks.receive_parts --sync-ms 5`, two cores of an AMD EPYC under other load).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

import structlog

MOST = 64
"""Largest batch."""

log = structlog.get_logger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Task(Generic[Item, Result]):
    item: Item
    answer: Callable[[], Result] | None = None


class GroupCommit(Generic[Item, Result]):
    """Processes items one batch at a time.

    Parameters
    ----------
    do_all : callable
        Processes a batch completely or not at all, and returns a result for each item.
    do_one : callable
        Processes a single item; used when a batch failed, so that only the caller of the faulty item gets the error.
    """

    def __init__(self, do_all: Callable[[Sequence[Item]], list[Result]], do_one: Callable[[Item], Result]) -> None:
        self._do_all, self._do_one = do_all, do_one
        self._turn = threading.Lock()
        self._waiting: list[_Task[Item, Result]] = []

    def do(self, item: Item) -> Result:
        """Process an item, alone or with those of other threads; return its result, or raise its error."""
        task: _Task[Item, Result] = _Task(item)
        self._waiting.append(task)  # atomic in CPython
        with self._turn:
            while task.answer is None:
                batch = self._waiting[:MOST]
                self._work(batch)
                del self._waiting[: len(batch)]  # not before: if this thread is interrupted, another one does the work
        return task.answer()

    def _work(self, batch: Sequence[_Task[Item, Result]]) -> None:
        if len(batch) > 1:
            try:
                results = self._do_all([task.item for task in batch])
                for task, result in zip(batch, results, strict=True):
                    task.answer = _returning(result)
                return
            except Exception as error:  # one item is at fault: each is processed alone
                log.debug("a batch failed", items=len(batch), why=type(error).__name__)
        for task in batch:
            try:
                task.answer = _returning(self._do_one(task.item))
            except Exception as error:
                task.answer = _raising(error)


def _returning(result: Result) -> Callable[[], Result]:
    return lambda: result


def _raising(error: Exception) -> Callable[[], NoReturn]:
    def answer() -> NoReturn:
        raise error

    return answer
