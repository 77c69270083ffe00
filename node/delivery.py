"""What does one delivery do? Send what is due to one destination, and note what each object was answered."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from node.archive import Archive
from node.config import QueueSettings
from node.destinations import Destination, Sent, Unreachable
from node.lease import Heartbeat
from node.ledger import Delivery, Ledger

BATCH = 30
"""Objects claimed at a time: what one association carries, and what more urgent ones wait for at most."""

_log = structlog.get_logger(__name__)


class _StopSending(Exception):  # noqa: N818 - not an error
    """The worker is asked to stop."""


@dataclass(frozen=True)
class Courier:
    """Delivers to one destination.

    Parameters
    ----------
    name : str
        The destination's name in the settings and the ledger.
    destination : Destination or None
        None if the settings do not name it any more.
    owner : str
        Who it is, in the ledger's leases; nobody else's name.
    stopping : callable
        Whether to stop after the object in hand.
    """

    ledger: Ledger
    archive: Archive
    queue: QueueSettings
    name: str
    destination: Destination | None
    owner: str
    stopping: Callable[[], bool] = lambda: False

    def deliver(self) -> int:
        """Send all that is due, the most urgent first; returns how many objects were accepted.

        When the destination cannot be reached, everything due is put off at once: one attempt to connect a call.
        """
        accepted = 0
        unreachable = ""
        draw = random.random()  # one for all that is put off, so that they come back together
        lease_s = self.queue.lease_s
        try:
            while not self.stopping() and (
                claimed := self.ledger.claim_deliveries(self.name, self.owner, lease_s, BATCH)
            ):
                if not unreachable:
                    with Heartbeat(lambda: self.ledger.prolong_deliveries(self.owner, lease_s), lease_s):
                        taken, unreachable = self._send(claimed)
                    accepted += taken
                if unreachable:
                    self._put_off(claimed, unreachable, draw)
        except _StopSending:
            pass
        finally:
            self.ledger.release_deliveries(self.owner)
        return accepted

    def _send(self, claimed: Sequence[Delivery]) -> tuple[int, str]:
        """Send a batch; how many were accepted, and why nothing was sent if it was not."""
        if self.destination is None:
            return 0, f"the settings name no destination {self.name!r} any more"
        rows = {self.archive.path(row.result.path): row for row in claimed}
        taken = 0

        def record(sent: Sent) -> None:
            nonlocal taken
            taken += self._note(rows[sent.path], sent)
            if self.stopping():
                raise _StopSending

        try:
            self.destination.send(list(rows), record)
        except Unreachable as error:
            return taken, str(error)
        return taken, ""

    def _note(self, row: Delivery, sent: Sent) -> bool:
        """Write down an answer; true if it was accepted."""
        about = {"job": row.job_id, "object": row.result.kind, "destination": self.name, "answer": sent.answer}
        if sent.accepted:
            _log.info("delivered", **about)
            self.ledger.delivery_accepted(row.id, self.owner, sent.status or 0, sent.answer)
        else:
            _log.warning("not delivered", **about, attempt=row.attempts)
            self.ledger.delivery_failed(
                row.id, self.owner, sent.answer, self._next_attempt(row, random.random()), sent.status
            )
        return sent.accepted

    def _put_off(self, rows: Sequence[Delivery], why: str, draw: float) -> None:
        _log.warning("nothing can be sent", destination=self.name, objects=len(rows), why=why)
        for row in rows:
            self.ledger.delivery_failed(row.id, self.owner, why, self._next_attempt(row, draw))

    def _next_attempt(self, row: Delivery, draw: float) -> datetime | None:
        """When to try again, or ``None`` to give up."""
        now = datetime.now(UTC)
        since = row.first_attempt_at or now
        if now - since >= timedelta(seconds=self.queue.retry_for_s):
            return None
        return now + timedelta(seconds=pause_s(row.attempts, self.queue, draw))


def pause_s(attempts: int, queue: QueueSettings, draw: float) -> float:
    """Pause after so many attempts, seconds: exponential with full jitter (Brooker, AWS Architecture Blog, 2015).

    Parameters
    ----------
    attempts : int
        Made so far, at least 1.
    draw : float
        The jitter, uniform in [0, 1).
    """
    return draw * min(queue.retry_longest_s, queue.retry_first_s * 2.0 ** min(attempts - 1, 60))
