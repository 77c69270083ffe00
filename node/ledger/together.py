"""How do threads that do the same thing at the same moment share one commit?

Whoever gets the turn does the work of all who wait for it. A thread that is alone waits for nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

import structlog

MOST = 64

log = structlog.get_logger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Task(Generic[Item, Result]):
    item: Item
    answer: Callable[[], Result] | None = None


class Together(Generic[Item, Result]):
    """Does things one batch at a time.

    Parameters
    ----------
    do_all : callable
        Does a batch as a whole or not at all, and gives a result for each item.
    do_one : callable
        Does a single one; used when a batch failed, so that only the one that is to blame hears of it.
    """

    def __init__(self, do_all: Callable[[Sequence[Item]], list[Result]], do_one: Callable[[Item], Result]) -> None:
        self._do_all, self._do_one = do_all, do_one
        self._turn = threading.Lock()
        self._waiting: list[_Task[Item, Result]] = []

    def do(self, item: Item) -> Result:
        """Do it, with others or alone; returns when it is done, and raises what it raised."""
        task: _Task[Item, Result] = _Task(item)
        self._waiting.append(task)  # one step under the interpreter's lock
        with self._turn:
            while task.answer is None:
                batch = self._waiting[:MOST]
                self._work(batch)
                del self._waiting[: len(batch)]  # not before: if this thread is interrupted, another does them
        return task.answer()

    def _work(self, batch: Sequence[_Task[Item, Result]]) -> None:
        if len(batch) > 1:
            try:
                results = self._do_all([task.item for task in batch])
                for task, result in zip(batch, results, strict=True):
                    task.answer = _giving(result)
                return
            except Exception as error:  # one of them is to blame: each alone, and that one hears of it
                log.debug("a batch failed", items=len(batch), why=type(error).__name__)
        for task in batch:
            try:
                task.answer = _giving(self._do_one(task.item))
            except Exception as error:
                task.answer = _raising(error)


def _giving(result: Result) -> Callable[[], Result]:
    return lambda: result


def _raising(error: Exception) -> Callable[[], NoReturn]:
    def answer() -> NoReturn:
        raise error

    return answer
