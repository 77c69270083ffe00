"""What does one delivery do? It sends what is due to one destination and records the answer to each object."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from pydicom.uid import generate_uid

from node.archive import Archive, DamagedFileError
from node.commitment import CommitmentReport, CommitmentRequest, InstanceReference
from node.leases import Heartbeat
from node.ledger import Delivery, Ledger
from node.retry import pause_s, tried_long_enough
from node.settings import QueueSettings

from .base import Destination, SendResult, StopSending, Unreachable, send_all
from .commitment import CommitmentScu

BATCH = 30
"""Objects claimed at a time: those of one association, and the most that a more urgent object waits for."""

REFERENCES = 500
"""Objects in one request for commitment."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class DeliveryRunner:
    """Delivers to one destination.

    Parameters
    ----------
    name : str
        Name of the destination in the settings and the ledger.
    destination : Destination or None
        None if it is no longer in the settings.
    owner : str
        Unique name of this runner in the ledger's leases.
    commitment : CommitmentScu, optional
        Requests commitment from the destination.
    stopping : callable
        Whether to stop after the current object.
    """

    ledger: Ledger
    archive: Archive
    queue: QueueSettings
    name: str
    destination: Destination | None
    owner: str
    commitment: CommitmentScu | None = None
    stopping: Callable[[], bool] = lambda: False

    def deliver(self) -> int:
        """Send everything that is due, the most urgent first; returns how many objects were accepted.

        If the destination is unreachable, everything due is postponed after one attempt to connect.
        """
        accepted = 0
        unreachable = ""
        draw = random.random()  # the same for all that is postponed, so that it is sent together later
        lease_s = self.queue.lease_s
        try:
            while not self.stopping() and (
                claimed := self.ledger.claim_deliveries(self.name, self.owner, lease_s, BATCH)
            ):
                if not unreachable:
                    with Heartbeat(lambda: self.ledger.prolong_deliveries(self.owner, lease_s), lease_s):
                        sent, unreachable = self._send(claimed)
                    accepted += sent
                if unreachable:
                    self._postpone(claimed, unreachable, draw)
            if self.commitment is not None and not self.stopping():
                self._request_commitment(self.commitment)
        except StopSending:
            pass
        finally:
            self.ledger.release_deliveries(self.owner)
        return accepted

    def _send(self, claimed: Sequence[Delivery]) -> tuple[int, str]:
        """Send a batch; returns how many were accepted, and why the destination is unreachable if it is."""
        if self.destination is None:
            return 0, f"the settings no longer have a destination {self.name!r}"
        rows = {self.archive.path(row.result.path): row for row in claimed if self._is_intact(row)}
        accepted = 0

        def record(sent: SendResult) -> None:
            nonlocal accepted
            accepted += self._record(rows[sent.path], sent)
            if self.stopping():
                raise StopSending

        try:
            send_all(self.destination, list(rows), record)
        except Unreachable as error:
            return accepted, str(error)
        return accepted, ""

    def _is_intact(self, row: Delivery) -> bool:
        """Whether the file is what the analysis wrote; a damaged one is made again from the images."""
        try:
            self.archive.verify(row.result)
        except DamagedFileError as damage:
            _log.warning("a result file is damaged", job=row.job_id, object=row.result.kind, why=str(damage))
            if self._next_attempt(row, 0.0) is not None and self._has_images(row.job_id):
                self.ledger.remake_result(row.id, self.owner, f"{damage}; it is made again from the images")
            else:
                why = f"{damage}, and its images are no longer in the archive; send the study again"
                self.ledger.delivery_failed(row.id, self.owner, why, None)
            return False
        return True

    def _has_images(self, job_id: int) -> bool:
        images = self.ledger.instances(*self.ledger.job(job_id).series_uids)
        return all(image.removed_at is None and self.archive.path(image.path).is_file() for image in images)

    def _record(self, row: Delivery, sent: SendResult) -> bool:
        """Record an answer; returns whether the object was accepted."""
        if not sent.accepted and sent.status is None and not self._is_intact(row):  # damaged since it was looked at
            return False
        facts = {"job": row.job_id, "object": row.result.kind, "destination": self.name, "answer": sent.answer}
        if sent.accepted:
            _log.info("delivered", **facts)
            within_s = self.commitment.within_s if self.commitment is not None else None
            self.ledger.delivery_accepted(row.id, self.owner, sent.status or 0, sent.answer, within_s)
        else:
            _log.warning("not delivered", **facts, attempt=row.attempts)
            self.ledger.delivery_failed(
                row.id, self.owner, sent.answer, self._next_attempt(row, random.random()), sent.status
            )
        return sent.accepted

    def _request_commitment(self, commitment: CommitmentScu) -> None:
        """Ask the destination to commit to what it has accepted."""
        transaction = str(generate_uid(prefix=None))
        rows = self.ledger.begin_commitment(self.name, transaction, REFERENCES)
        if not rows:
            return
        references = tuple(InstanceReference(row.result.sop_class_uid, row.result.sop_instance_uid) for row in rows)

        def record(report: CommitmentReport) -> bool:
            known = self.ledger.record_commitment(
                report.transaction_uid, report.committed_uids, report.failures, self.name
            )
            _log.info("commitment reported", destination=self.name, **report.counts, known=known)
            return known

        try:
            commitment.request(CommitmentRequest(transaction, references), record)
        except Unreachable as error:
            _log.warning("commitment not requested", destination=self.name, objects=len(rows), why=str(error))
            pause = pause_s(max(row.attempts for row in rows), self.queue, random.random())
            self.ledger.postpone_commitment(transaction, str(error), datetime.now(UTC) + timedelta(seconds=pause))
        else:
            _log.info("commitment requested", destination=self.name, objects=len(rows))

    def _postpone(self, rows: Sequence[Delivery], why: str, draw: float) -> None:
        _log.warning("destination unreachable", destination=self.name, objects=len(rows), why=why)
        for row in rows:
            self.ledger.delivery_failed(row.id, self.owner, why, self._next_attempt(row, draw))

    def _next_attempt(self, row: Delivery, draw: float) -> datetime | None:
        """When to try again, or ``None`` to give up."""
        if tried_long_enough(row.attempts, row.first_attempt_at, self.queue):
            return None
        return datetime.now(UTC) + timedelta(seconds=pause_s(row.attempts, self.queue, draw))
