"""What was sent where? One row for each result file and destination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from .claims import MOVING, inputs_unchanged, state_unsent
from .engine import Store, clean, locked
from .metrics import TURNAROUND, observe
from .models import deliveries, history, jobs, results, studies
from .records import Delivery, DeliveryState, JobState, Priority
from .rows import Row, delivery_of, labelled, part, result_of
from .states import STORED

_SENDABLE = and_(jobs.c.state == JobState.DELIVERING, inputs_unchanged())


@dataclass(frozen=True)
class FailingDestination:
    """A destination that accepts nothing.

    Parameters
    ----------
    since : datetime
        When an object was first sent in vain, after the last one that was accepted.
    waiting : int
        Objects that were sent in vain since.
    answer : str
        The last of its answers, or why it cannot be reached.
    """

    name: str
    since: datetime
    waiting: int
    answer: str


class Deliveries(Store):
    """Deliveries: waiting → sending → accepted, or failed, or cancelled."""

    def due_destinations(self, now: datetime) -> list[str]:
        """Destinations for which something is due."""
        query = select(deliveries.c.destination).distinct().join(jobs, deliveries.c.job_id == jobs.c.id)
        to_request = select(deliveries.c.destination).distinct().where(commitment_due(now))
        with self._read() as connection:
            to_send = connection.scalars(query.where(_due(now), _SENDABLE)).all()
            return sorted({*to_send, *connection.scalars(to_request)})

    def retrying(self, job_ids: Sequence[int]) -> dict[int, list[Delivery]]:
        """Deliveries of these jobs that failed and will be tried again, by job."""
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

    def failing_destinations(self) -> dict[str, FailingDestination]:
        """Destinations that accepted nothing since an object was first sent there in vain, by name."""
        tried = and_(deliveries.c.state == DeliveryState.WAITING, deliveries.c.attempts > 0)
        columns = (deliveries.c.destination, deliveries.c.first_attempt_at, deliveries.c.answer)
        last = select(deliveries.c.destination, func.max(deliveries.c.accepted_at)).group_by(deliveries.c.destination)
        failing: dict[str, FailingDestination] = {}
        with self._read() as connection:
            rows = connection.execute(select(*columns).where(tried).order_by(deliveries.c.first_attempt_at)).all()
            accepted = dict(connection.execute(last).all()) if rows else {}
        for name, since, answer in rows:
            if since is not None and (accepted.get(name) is None or accepted[name] <= since):
                before = failing.get(name, FailingDestination(name, since, 0, ""))
                failing[name] = replace(before, waiting=before.waiting + 1, answer=answer)
        return failing

    def claim_deliveries(self, destination: str, owner: str, lease_s: float, limit: int = 10) -> list[Delivery]:
        """Claim what is due for one destination (attempts + 1, state sending), the most urgent first."""
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
        """Prolong the lease of everything this owner has claimed; false if that is nothing. Not a change of state."""
        mine = and_(deliveries.c.owner == owner, deliveries.c.state == DeliveryState.SENDING)
        values = {"lease_expires_at": self._clock() + timedelta(seconds=lease_s)}
        with self._write() as connection:
            return connection.execute(update(deliveries).where(mine).values(values)).rowcount > 0

    def delivery_accepted(
        self, delivery_id: int, owner: str, status: int, answer: str = "", commit_within_s: float | None = None
    ) -> bool:
        """Record that the destination accepted the object; the job is delivered when all were accepted everywhere.

        With `commit_within_s` the destination must also commit to keep it (:mod:`node.ledger.commitments`).

        Returns false if the delivery is no longer the owner's. The destination then has the object all the same, and
        answers a second sender that it is a duplicate.
        """
        with self._write() as connection:
            row = self._lock_sending(connection, delivery_id, owner)
            if row is None:
                return False
            now = self._clock()
            values = {"status": status, "answer": clean(answer), "accepted_at": now, **_FREE}
            if commit_within_s is not None:
                values |= {"commit_at": now, "commit_by": now + timedelta(seconds=commit_within_s)}
            why = answer or f"status 0x{status:04X}"
            self._change(connection, deliveries, row, DeliveryState.ACCEPTED, actor=owner, why=why, **values)
            self._close_job(connection, int(row["job_id"]), owner)
            return True

    def delivery_failed(
        self, delivery_id: int, owner: str, answer: str, next_attempt_at: datetime | None, status: int | None = None
    ) -> bool:
        """Record a failed attempt: it is tried again at `next_attempt_at`, or has failed if that is ``None``."""
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

    def remake_result(self, delivery_id: int, owner: str, why: str) -> bool:
        """Queue a job for analysis again because a result file that it should send is damaged; the delivery waits.

        What was accepted stays accepted. False if the delivery is no longer the owner's.
        """
        with self._write() as connection:
            row = self._lock_sending(connection, delivery_id, owner)
            if row is None:
                return False
            state = state_unsent(connection, int(row["job_id"]))
            values = {"answer": clean(why), "next_attempt_at": self._clock(), **_FREE}
            self._change(connection, deliveries, row, state, actor=owner, why=why, **values)
            job = connection.execute(select(jobs).where(jobs.c.id == row["job_id"])).mappings().one()
            if job["state"] == JobState.DELIVERING:
                self._change(
                    connection, jobs, job, JobState.QUEUED, actor=owner, why=why, attempts=0, lost=0, postponed=0
                )
            return True

    def release_deliveries(self, owner: str) -> int:
        """Give back what this owner has claimed and not sent, for a worker that is stopping."""
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
        """Finish the job if none of its deliveries is waiting or being sent.

        A job that was delivered fails if an object of it is not committed in the end.
        """
        job = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one()
        columns = (deliveries.c.state, deliveries.c.destination, deliveries.c.answer)
        rows = connection.execute(select(*columns).where(deliveries.c.job_id == job_id).order_by(deliveries.c.id)).all()
        moving = any(row.state in MOVING for row in rows)
        if job["state"] not in (JobState.DELIVERING, JobState.DELIVERED) or moving:
            return
        refused = {row.destination: row.answer for row in rows if row.state not in STORED}
        state = JobState.FAILED if refused else JobState.DELIVERED
        why = "; ".join(f"not delivered to {name}: {answer}" for name, answer in refused.items())
        values = {"finished_at": self._clock()}
        if refused:
            self._change(connection, jobs, job, state, actor=actor, why=why, **values)
            connection.execute(jobs.update().where(jobs.c.id == job_id).values(why=clean(why)))
        elif job["state"] != state:
            self._tally_turnaround(connection, job)
            self._change(connection, jobs, job, state, actor=actor, why="accepted everywhere", **values)

    def _tally_turnaround(self, connection: Connection, job: Row) -> None:
        """Count how long the results of a study took, the first time; what a reader corrects was delivered before."""
        delivered = and_(history.c.entity == "job", history.c.entity_id == str(job["id"]))
        before = select(history.c.id).where(delivered, history.c.to_state == JobState.DELIVERED).limit(1)
        if job["correction"] is None and connection.scalar(before) is None:
            where = studies.c.study_instance_uid == job["study_instance_uid"]
            received = connection.scalar(select(studies.c.last_received_at).where(where)) or job["created_at"]
            priority = Priority(job["priority"]).name.lower()
            self._tally(
                connection, [observe(TURNAROUND, (self._clock() - received).total_seconds(), priority=priority)]
            )


_FREE: dict[str, Any] = {"owner": "", "lease_expires_at": None}


def _due(now: datetime) -> ColumnElement[bool]:
    return and_(deliveries.c.state == DeliveryState.WAITING, deliveries.c.next_attempt_at <= now)


def commitment_due(now: datetime) -> ColumnElement[bool]:
    """Whether storage commitment is to be requested now."""
    return and_(deliveries.c.state == DeliveryState.ACCEPTED, deliveries.c.commit_at <= now)


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
