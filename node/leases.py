"""How does a worker keep what it has claimed?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Prolongs a lease every third of its length, in a thread, as long as the ``with`` block lasts.

    Parameters
    ----------
    prolong : callable
        Prolongs the lease; false if it is lost.
    lease_s : float
        Length of the lease, seconds.

    Attributes
    ----------
    lost : bool
        Whether another process may have taken the work meanwhile.
    """

    def __init__(self, prolong: Callable[[], bool], lease_s: float) -> None:
        self._prolong, self._every_s = prolong, lease_s / 3
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.lost = False

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                self.lost = not self._prolong()
            except Exception as error:  # the lease may outlive an outage of the database
                _log.warning("could not prolong a lease", error=str(error))
            if self.lost:
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
