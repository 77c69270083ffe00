"""How are studies fetched beside the sweep? In threads that do one piece of work after another and outlive outages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from node.logs import explain
from node.processes.alive import SILENCE_LIMIT_S

POLL_S = 1.0
"""Pause of a thread that has nothing to do."""


class WorkThreads:
    """Threads that work until they are stopped.

    Parameters
    ----------
    grace_s : float
        Longest wait for each to end.
    failing : callable
        Told the name of a thread and the reason when its work begins to fail, and when the reason changes.
    """

    def __init__(self, grace_s: float, failing: Callable[[str, str], None]) -> None:
        self._grace_s, self._failing = grace_s, failing
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._limits_s: dict[str, float] = {}
        self._came_round: dict[str, float] = {}

    @property
    def stopping(self) -> bool:
        """Whether they are to end."""
        return self._stopping.is_set()

    def start(self, name: str, work: Callable[[], bool], limit_s: float) -> None:
        """Start a thread.

        Parameters
        ----------
        work : callable
            Does one piece of work; false if there was none.
        limit_s : float
            Longest time that one piece may take without :meth:`beat`.
        """
        self._limits_s[name] = limit_s + SILENCE_LIMIT_S
        self.beat(name)
        thread = threading.Thread(target=self._run, args=(name, work), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def beat(self, name: str) -> None:
        """Say that a thread gets on with its work."""
        self._came_round[name] = time.monotonic()

    def works(self) -> bool:
        """Whether every thread runs, and none has worked on one piece for longer than that may take."""
        now = time.monotonic()
        in_time = all(now - at < self._limits_s[name] for name, at in self._came_round.items())
        return in_time and all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Have them end what they do, and wait for them."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(self._grace_s)

    def _run(self, name: str, work: Callable[[], bool]) -> None:
        known = ""
        while not self.stopping:
            self.beat(name)
            try:
                busy, why = work(), ""
            except Exception as error:  # the database is away: leases run out, and the work is claimed again
                busy, why = False, explain(error).splitlines()[0]
                if why != known:
                    self._failing(name, why)
            known = why
            if not busy:
                self._stopping.wait(POLL_S)
