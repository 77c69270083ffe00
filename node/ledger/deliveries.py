"""What has reached whom? One row for each result object and destination."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select, update

from node.ledger.engine import Store, clean, locked
from node.ledger.jobs import inputs_unchanged, state_unsent
from node.ledger.models import deliveries, jobs, results
from node.ledger.records import Delivery, DeliveryState, JobState
from node.ledger.rows import Row, delivery_of, labelled, part, result_of

_SENDABLE = and_(jobs.c.state == JobState.DELIVERING, inputs_unchanged())


class Deliveries(Store):
    """Result objects on their way: waiting → sending → accepted, or failed, or cancelled."""

    def due_destinations(self, now: datetime) -> list[str]:
        """Destinations for which something could be sent now."""
        query = select(deliveries.c.destination).distinct().join(jobs, deliveries.c.job_id == jobs.c.id)
        with self._read() as connection:
            return sorted(connection.scalars(query.where(_due(now), _SENDABLE)))

    def retrying(self, job_ids: Sequence[int]) -> dict[int, list[Delivery]]:
        """What of these jobs was tried in vain and will be tried again, by job."""
        tried: dict[int, list[Delivery]] = {}
        if not job_ids:
            return tried
        again = and_(
            deliveries.c.job_id.in_(job_ids), deliveries.c.state == DeliveryState.WAITING, deliveries.c.attempts > 0
        )
        with self._read() as connection:
            for delivery in select_deliveries(connection, again):
                tried.setdefault(delivery.job_id, []).append(delivery)
        return tried

    def claim_deliveries(self, destination: str, owner: str, lease_s: float, limit: int = 10) -> list[Delivery]:
        """Take what is due for one destination (attempts + 1, state sending), the most urgent first."""
        with self._write() as connection:
            now = self._clock()
            query = (
                select(deliveries)
                .join(jobs, deliveries.c.job_id == jobs.c.id)
                .where(deliveries.c.destination == destination, _due(now), _SENDABLE)
                .order_by(deliveries.c.priority, deliveries.c.id)
                .limit(limit)
            )
            rows = connection.execute(locked(query, free=True, of=deliveries)).mappings().all()
            for row in rows:
                values = {
                    "owner": owner,
                    "lease_expires_at": now + timedelta(seconds=lease_s),
                    "attempts": row["attempts"] + 1,
                    "first_attempt_at": row["first_attempt_at"] or now,
                }
                why = f"attempt {row['attempts'] + 1}"
                self._change(connection, deliveries, row, DeliveryState.SENDING, actor=owner, why=why, **values)
            return select_deliveries(connection, deliveries.c.id.in_([row["id"] for row in rows]))

    def prolong_deliveries(self, owner: str, lease_s: float) -> bool:
        """Prolong the lease of all that this owner has in hand; false if that is nothing. Not a change of state."""
        mine = and_(deliveries.c.owner == owner, deliveries.c.state == DeliveryState.SENDING)
        values = {"lease_expires_at": self._clock() + timedelta(seconds=lease_s)}
        with self._write() as connection:
            return connection.execute(update(deliveries).where(mine).values(values)).rowcount > 0

    def delivery_accepted(self, delivery_id: int, owner: str, status: int, answer: str = "") -> bool:
        """Note that the destination took the object; the job is delivered once every one was taken everywhere.

        Returns false if the delivery is no longer the owner's; the far side then has the object all the same, and a
        second sender will be told so.
        """
        with self._write() as connection:
            row = self._lock_sending(connection, delivery_id, owner)
            if row is None:
                return False
            values = {"status": status, "answer": clean(answer), "accepted_at": self._clock(), **_FREE}
            why = answer or f"status 0x{status:04X}"
            self._change(connection, deliveries, row, DeliveryState.ACCEPTED, actor=owner, why=why, **values)
            self._close_job(connection, int(row["job_id"]), owner)
            return True

    def delivery_failed(
        self, delivery_id: int, owner: str, answer: str, next_attempt_at: datetime | None, status: int | None = None
    ) -> bool:
        """Note a failed attempt: tried again at `next_attempt_at`, or given up if that is none."""
        with self._write() as connection:
            row = self._lock_sending(connection, delivery_id, owner)
            if row is None:
                return False
            values: dict[str, Any] = {"status": status, "answer": clean(answer), **_FREE}
            state = state_unsent(connection, int(row["job_id"]))
            if state == DeliveryState.WAITING and next_attempt_at is None:
                state = DeliveryState.FAILED
            if next_attempt_at is not None:
                values["next_attempt_at"] = next_attempt_at
            self._change(connection, deliveries, row, state, actor=owner, why=answer, **values)
            self._close_job(connection, int(row["job_id"]), owner)
            return True

    def release_deliveries(self, owner: str) -> int:
        """Put back what this owner has claimed and not sent, for a worker that is asked to stop."""
        with self._write() as connection:
            mine = and_(deliveries.c.owner == owner, deliveries.c.state == DeliveryState.SENDING)
            rows = connection.execute(locked(select(deliveries).where(mine))).mappings().all()
            for row in rows:
                values = {"attempts": row["attempts"] - 1, **_FREE}
                why = "given back: the worker stops"
                state = state_unsent(connection, int(row["job_id"]))
                self._change(connection, deliveries, row, state, actor=owner, why=why, **values)
            return len(rows)

    def _lock_sending(self, connection: Connection, delivery_id: int, owner: str) -> Row | None:
        """The delivery, locked after its job: the order of `open_job`, so that neither waits for the other."""
        job_id = connection.scalar(select(deliveries.c.job_id).where(deliveries.c.id == delivery_id))
        connection.execute(locked(select(jobs.c.id).where(jobs.c.id == job_id)))
        mine = and_(deliveries.c.owner == owner, deliveries.c.state == DeliveryState.SENDING)
        query = locked(select(deliveries).where(deliveries.c.id == delivery_id, mine))
        return connection.execute(query).mappings().one_or_none()

    def _close_job(self, connection: Connection, job_id: int, actor: str) -> None:
        """End the job if nothing of it is on its way any more."""
        job = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one()
        columns = (deliveries.c.state, deliveries.c.destination, deliveries.c.answer)
        rows = connection.execute(select(*columns).where(deliveries.c.job_id == job_id).order_by(deliveries.c.id)).all()
        moving = any(row.state in (DeliveryState.WAITING, DeliveryState.SENDING) for row in rows)
        if job["state"] != JobState.DELIVERING or moving:
            return
        refused = {row.destination: row.answer for row in rows if row.state != DeliveryState.ACCEPTED}
        state = JobState.FAILED if refused else JobState.DELIVERED
        why = "; ".join(f"not delivered to {name}: {answer}" for name, answer in refused.items())
        values = {"finished_at": self._clock()}
        if refused:
            self._change(connection, jobs, job, state, actor=actor, why=why, **values)
            connection.execute(jobs.update().where(jobs.c.id == job_id).values(why=clean(why)))
        else:
            self._change(connection, jobs, job, state, actor=actor, why="accepted everywhere", **values)


_FREE: dict[str, Any] = {"owner": "", "lease_expires_at": None}


def _due(now: datetime) -> ColumnElement[bool]:
    return and_(deliveries.c.state == DeliveryState.WAITING, deliveries.c.next_attempt_at <= now)


def select_deliveries(connection: Connection, where: ColumnElement[bool]) -> list[Delivery]:
    """Deliveries with their objects, the most urgent first."""
    query = (
        select(*labelled(deliveries), *labelled(results))
        .join(results, deliveries.c.result_id == results.c.id)
        .where(where)
        .order_by(deliveries.c.priority, deliveries.c.id)
    )
    rows = connection.execute(query).mappings()
    return [delivery_of(part(row, deliveries), result_of(part(row, results))) for row in rows]
