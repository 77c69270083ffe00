"""Has a destination committed to keep what it accepted? (storage commitment, PS3.4 annex J, with the node as SCU)

An object that is not committed in time is sent once more. If it is not committed then either, its delivery has failed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select, update

from .claims import inputs_unchanged
from .deliveries import Deliveries, commitment_due, select_deliveries
from .engine import clean, locked
from .models import deliveries, jobs, results
from .records import Delivery, DeliveryState, JobState
from .rows import Row

RESENT = 1
"""How often an object that is not committed is sent again."""
_SETTLED: dict[str, Any] = {"commit_at": None, "commit_by": None, "commit_transaction": None}


class Commitments(Deliveries):
    """Deliveries whose destination is asked for commitment: accepted → committed, or waiting (again), or failed."""

    def begin_commitment(self, destination: str, transaction_uid: str, limit: int) -> list[Delivery]:
        """Take what commitment is to be requested for now; the answer to this transaction may come at once."""
        with self._write() as connection:
            due = and_(deliveries.c.destination == destination, commitment_due(self._clock()))
            query = select(deliveries.c.id).where(due).order_by(deliveries.c.id).limit(limit)
            ids = connection.scalars(locked(query, free=True)).all()
            values = {"commit_at": None, "commit_transaction": transaction_uid}
            connection.execute(update(deliveries).where(deliveries.c.id.in_(ids)).values(values))
            return select_deliveries(connection, deliveries.c.id.in_(ids))

    def postpone_commitment(self, transaction_uid: str, why: str, at: datetime) -> None:
        """The request was not taken: request commitment again at that time, in another transaction."""
        mine = and_(deliveries.c.commit_transaction == transaction_uid, deliveries.c.state == DeliveryState.ACCEPTED)
        values = {"commit_at": at, "commit_transaction": None, "answer": clean(f"stored; not committed yet: {why}")}
        with self._write() as connection:
            connection.execute(update(deliveries).where(mine).values(values))

    def record_commitment(
        self, transaction_uid: str, committed: Collection[str], failed: Mapping[str, str], actor: str
    ) -> bool:
        """Record a report on a transaction.

        Parameters
        ----------
        committed : collection of str
            SOP Instance UIDs that the destination keeps.
        failed : mapping
            Why it does not keep others, by SOP Instance UID.

        Returns
        -------
        bool
            False if there is no such transaction (any more).
        """
        with self._write() as connection:
            found = self._lock_unanswered(connection, deliveries.c.commit_transaction == transaction_uid)
            for row in found:
                uid = row["sop_instance_uid"]
                if uid in failed:
                    self._resend_or_fail(connection, row, failed[uid], actor)
                elif uid in committed:
                    why = "committed to keep it"
                    values = {**_SETTLED, "answer": f"stored; {why}"}
                    self._change(connection, deliveries, row, DeliveryState.COMMITTED, actor=actor, why=why, **values)
            return bool(found)

    def expire_commitments(self, now: datetime) -> list[int]:
        """Send again, or fail, what was not committed in time; the deliveries."""
        with self._write() as connection:
            late = and_(deliveries.c.state == DeliveryState.ACCEPTED, deliveries.c.commit_by < now)
            found = self._lock_unanswered(connection, late)
            for row in found:
                why = "it did not report in time"
                if row["commit_at"] is not None and row["answer"]:  # it could not even be asked
                    why = str(row["answer"]).removeprefix("stored; not committed yet: ")
                self._resend_or_fail(connection, row, why, "sweep")
            return [int(row["id"]) for row in found]

    @staticmethod
    def _lock_unanswered(connection: Connection, where: ColumnElement[bool]) -> list[Row]:
        """Accepted deliveries with their objects' UIDs, locked after their jobs, as elsewhere."""
        accepted = and_(where, deliveries.c.state == DeliveryState.ACCEPTED)
        job_ids = connection.scalars(select(deliveries.c.job_id).distinct().where(accepted)).all()
        connection.execute(locked(select(jobs.c.id).where(jobs.c.id.in_(job_ids)).order_by(jobs.c.id)))
        query = (
            select(deliveries, results.c.sop_instance_uid)
            .join(results, results.c.id == deliveries.c.result_id)
            .where(accepted)
            .order_by(deliveries.c.id)
        )
        return list(connection.execute(locked(query, of=deliveries)).mappings())

    def _resend_or_fail(self, connection: Connection, row: Row, why: str, actor: str) -> None:
        query = select(jobs, inputs_unchanged().label("unchanged")).where(jobs.c.id == row["job_id"])
        job = connection.execute(query).mappings().one()
        current = job["state"] in (JobState.DELIVERING, JobState.DELIVERED) and job["superseded_by"] is None
        current = current and bool(job["unchanged"])
        why = f"stored, but not committed: {why}"
        if current and row["commit_resent"] < RESENT:
            values: dict[str, Any] = {**_SETTLED, "commit_resent": row["commit_resent"] + 1, "answer": clean(why)}
            values |= {"next_attempt_at": self._clock(), "first_attempt_at": None}
            self._change(connection, deliveries, row, DeliveryState.WAITING, actor=actor, why=why, **values)
            if job["state"] == JobState.DELIVERED:
                again = f"sent again to {row['destination']}: {why}"
                self._change(connection, jobs, job, JobState.DELIVERING, actor=actor, why=again, finished_at=None)
            return
        values = {**_SETTLED, "answer": clean(why)}
        self._change(connection, deliveries, row, DeliveryState.FAILED, actor=actor, why=why, **values)
        if current:
            self._close_job(connection, int(row["job_id"]), actor)
