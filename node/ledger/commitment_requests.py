"""Who has asked the node to commit to images, and has not had the report? (storage commitment with the node as SCP)"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update

from .engine import Store, clean
from .models import commitment_requests, instances
from .records import InstanceRecord
from .rows import instance_of

OPEN_REQUESTS = 1000
"""Most requests of one AE title that wait for their report."""
_UIDS_PER_QUERY = 500


@dataclass(frozen=True)
class ReceivedCommitmentRequest:
    """A request for storage commitment whose report has not been sent."""

    transaction_uid: str
    calling_ae: str
    references: tuple[tuple[str, str], ...]  # SOP class and instance UIDs
    attempts: int
    created_at: datetime


class CommitmentRequests(Store):
    """Requests for commitment: received → reported, or given up."""

    def add_commitment_request(
        self, transaction_uid: str, references: Iterable[tuple[str, str]], calling_ae: str, peer: str
    ) -> bool:
        """Record a request; the same one twice is one. False if too many of this AE title are open."""
        with self._write() as connection:
            mine = commitment_requests.c.calling_ae == calling_ae
            count = connection.scalar(select(func.count()).select_from(commitment_requests).where(mine))
            if (count or 0) >= OPEN_REQUESTS:
                return False
            now = self._clock()
            values = {
                "transaction_uid": transaction_uid,
                "calling_ae": clean(calling_ae),
                "peer": clean(peer),
                "instance_references": [list(pair) for pair in references],
                "next_attempt_at": now,
                "created_at": now,
            }
            if self._insert_missing(connection, commitment_requests, values):
                self._log(connection, "commitment", transaction_uid, "", "requested", f"by {calling_ae}", calling_ae)
            return True

    def due_commitment_reports(self, now: datetime) -> list[str]:
        """AE titles that a report is due to."""
        query = select(commitment_requests.c.calling_ae).distinct()
        with self._read() as connection:
            return sorted(connection.scalars(query.where(commitment_requests.c.next_attempt_at <= now)))

    def claim_commitment_reports(self, calling_ae: str, lease_s: float, limit: int) -> list[ReceivedCommitmentRequest]:
        """Take the requests of an AE title that a report is due to; they are due again when the lease expires."""
        with self._write() as connection:
            now = self._clock()
            due = (commitment_requests.c.calling_ae == calling_ae) & (commitment_requests.c.next_attempt_at <= now)
            query = select(commitment_requests).where(due).order_by(commitment_requests.c.created_at).limit(limit)
            rows = connection.execute(query.with_for_update(skip_locked=True)).mappings().all()
            values = {
                "attempts": commitment_requests.c.attempts + 1,
                "next_attempt_at": now + timedelta(seconds=lease_s),
            }
            uids = [row["transaction_uid"] for row in rows]
            where = commitment_requests.c.transaction_uid.in_(uids)
            connection.execute(update(commitment_requests).where(where).values(values))
            return [
                ReceivedCommitmentRequest(
                    row["transaction_uid"],
                    row["calling_ae"],
                    tuple((str(sop_class), str(uid)) for sop_class, uid in row["instance_references"]),
                    row["attempts"] + 1,
                    row["created_at"],
                )
                for row in rows
            ]

    def postpone_commitment_report(self, transaction_uid: str, at: datetime) -> None:
        """Try again at that time."""
        where = commitment_requests.c.transaction_uid == transaction_uid
        with self._write() as connection:
            connection.execute(update(commitment_requests).where(where).values(next_attempt_at=at))

    def end_commitment_request(self, transaction_uid: str, state: str, why: str, actor: str) -> None:
        """Forget a request that was reported or given up; the history keeps what became of it."""
        where = commitment_requests.c.transaction_uid == transaction_uid
        with self._write() as connection:
            if connection.execute(delete(commitment_requests).where(where)).rowcount:
                self._log(connection, "commitment", transaction_uid, "requested", state, why, actor)

    def stored_instances(self, sop_instance_uids: Iterable[str]) -> dict[str, InstanceRecord]:
        """The instances of these UIDs whose files are kept, by UID."""
        wanted = list(dict.fromkeys(sop_instance_uids))
        found: dict[str, InstanceRecord] = {}
        with self._read() as connection:
            for start in range(0, len(wanted), _UIDS_PER_QUERY):
                some = instances.c.sop_instance_uid.in_(wanted[start : start + _UIDS_PER_QUERY])
                query = select(instances).where(some, instances.c.removed_at.is_(None))
                found |= {row["sop_instance_uid"]: instance_of(row) for row in connection.execute(query).mappings()}
        return found
