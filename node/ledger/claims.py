"""Who works on which job now? Claimed, prolonged, given back, taken back from workers that fell silent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, true, update

from .engine import Store, clean, locked
from .models import deliveries, jobs, series
from .records import DeliveryState, Job, JobState
from .rows import Row, job_of

MOVING = (DeliveryState.WAITING, DeliveryState.SENDING)
_FREE: dict[str, Any] = {"owner": "", "lease_expires_at": None, "progress": ""}


def inputs_unchanged() -> ColumnElement[bool]:
    """Whether no series of the job got images since it was opened; correlated with `jobs`."""
    revisions = select(func.sum(series.c.revision)).where(
        series.c.series_instance_uid.in_([jobs.c.swi_series_uid, jobs.c.phase_series_uid, jobs.c.magnitude_series_uid])
    )
    return revisions.correlate(jobs).scalar_subquery() == jobs.c.input_revision


def state_unsent(connection: Connection, job_id: int) -> DeliveryState:
    """Where a delivery goes that left its sender unsent: it waits, unless its job was superseded meanwhile."""
    job_state = connection.scalar(select(jobs.c.state).where(jobs.c.id == job_id))
    return DeliveryState.CANCELLED if job_state == JobState.SUPERSEDED else DeliveryState.WAITING


def _claimable(now: datetime) -> ColumnElement[bool]:
    pauses = and_(jobs.c.not_before.is_not(None), jobs.c.not_before > now)
    return and_(jobs.c.state == JobState.QUEUED, ~pauses, inputs_unchanged())


class Claims(Store):
    """Jobs that wait for a worker or have one, each held by a lease."""

    def queued_jobs(self) -> list[Job]:
        """Jobs that a worker can take now, the most urgent first.

        Not those whose images are still changing, nor those that pause after an outage.
        """
        query = select(jobs).where(_claimable(self._clock()))
        with self._read() as connection:
            rows = connection.execute(query.order_by(jobs.c.priority, jobs.c.id)).mappings()
            return [job_of(row) for row in rows]

    def claim_job(self, job_id: int, owner: str, lease_s: float) -> Job | None:
        """Take this job (attempts + 1, state running); ``None`` if it cannot be taken now."""
        return self._claim(jobs.c.id == job_id, owner, lease_s)

    def claim_next_job(self, owner: str, lease_s: float) -> Job | None:
        """Take the most urgent job that can be taken now, the oldest first; ``None`` if there is none."""
        return self._claim(true(), owner, lease_s)

    def _claim(self, which: ColumnElement[bool], owner: str, lease_s: float) -> Job | None:
        with self._write() as connection:
            query = select(jobs).where(which, _claimable(self._clock())).order_by(jobs.c.priority, jobs.c.id).limit(1)
            row = connection.execute(locked(query, free=True)).mappings().one_or_none()
            if row is None:
                return None
            now = self._clock()
            values = {
                "owner": owner,
                "attempts": row["attempts"] + 1,
                "lease_expires_at": now + timedelta(seconds=lease_s),
                "started_at": now,
                "progress": "",
            }
            why = f"attempt {row['attempts'] + 1}"
            self._change(connection, jobs, row, JobState.RUNNING, why=why, actor=owner, **values)
            return self._job(connection, row["id"])

    def heartbeat(self, job_id: int, owner: str, lease_s: float, progress: str = "") -> bool:
        """Prolong the lease; false if the job is no longer the owner's, who should stop. Not a change of state."""
        values: dict[str, Any] = {"lease_expires_at": self._clock() + timedelta(seconds=lease_s)}
        if progress:
            values["progress"] = clean(progress)
        where = and_(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.owner == owner)
        with self._write() as connection:
            return connection.execute(update(jobs).where(where).values(values)).rowcount == 1

    def fail_attempt(
        self, job_id: int, owner: str, why: str, max_attempts: int, permanent: bool = False
    ) -> JobState | None:
        """End an attempt that failed: the job is queued again, or failed if that was the last attempt or `permanent`.

        Returns its new state, or ``None`` if the job is no longer the owner's.
        """
        with self._write() as connection:
            row = self._owned(connection, job_id, owner)
            if row is None:
                return None
            over = permanent or row["attempts"] >= max_attempts
            return self._let_go(connection, row, why, owner, failed=over)

    def postpone_job(self, job_id: int, owner: str, why: str, pause_s: Callable[[int], float]) -> bool:
        """Give a job back after an outage (database, disk), which is no attempt; it pauses before it is taken again.

        Parameters
        ----------
        pause_s : callable
            The pause in seconds, from how often the job was postponed.

        Returns
        -------
        bool
            False if the job is no longer the owner's.
        """
        with self._write() as connection:
            row = self._owned(connection, job_id, owner)
            if row is None:
                return False
            postponed = row["postponed"] + 1
            not_before = self._clock() + timedelta(seconds=pause_s(postponed))
            values = {"attempts": row["attempts"] - 1, "postponed": postponed, "not_before": not_before}
            self._let_go(connection, row, why, owner, **values)
            return True

    def _let_go(
        self, connection: Connection, row: Row, why: str, actor: str, *, failed: bool = False, **values: Any
    ) -> JobState:
        """Queue a job that was running again, or fail it."""
        state = JobState.FAILED if failed else JobState.QUEUED
        if failed:
            values["finished_at"] = self._clock()
        self._set_job(connection, row, state, actor=actor, why=why, **_FREE, **values)
        return state

    def _set_job(self, connection: Connection, row: Row, state: JobState, why: str, **values: Any) -> None:
        """Change the state of a job and show why on the job itself too."""
        connection.execute(update(jobs).where(jobs.c.id == row["id"]).values(why=clean(why)))
        self._change(connection, jobs, row, state, why=why, **values)

    def release_job(self, job_id: int, owner: str) -> bool:
        """Give a running job back without counting the attempt, for a worker that is asked to stop."""
        with self._write() as connection:
            row = self._owned(connection, job_id, owner)
            if row is None:
                return False
            values = {**_FREE, "attempts": row["attempts"] - 1}
            why = "given back: the worker stops"
            self._change(connection, jobs, row, JobState.QUEUED, actor=owner, why=why, **values)
            return True

    def expire_leases(
        self, now: datetime, max_losses: int, pause_s: Callable[[int], float] = lambda _lost: 0.0
    ) -> list[int]:
        """Take back what silent workers held. Jobs are queued again or failed, and deliveries wait again.

        A worker that dies costs no attempt of the analysis. Losses have a bound of their own, so that a study that ends
        every worker is failed at last.

        Parameters
        ----------
        max_losses : int
            A job that has lost this many workers is failed.
        pause_s : callable
            The pause in seconds before the job is taken again, from how many workers it has lost; none after the first.

        Returns
        -------
        list of int
            The jobs that were queued again.
        """
        with self._write() as connection:
            silent = and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_expires_at < now)
            query = locked(select(jobs).where(silent).order_by(jobs.c.id), free=True)
            again = []
            for row in connection.execute(query).mappings().all():
                lost = row["lost"] + 1
                why = f"worker {row['owner']} fell silent"
                if over := lost >= max_losses:
                    why = f"{lost} workers died or fell silent while they analysed it; the last was {row['owner']}"
                pause = pause_s(lost) if lost > 1 else 0.0
                not_before = now + timedelta(seconds=pause) if pause else None
                values = {"attempts": row["attempts"] - 1, "lost": lost, "not_before": not_before}
                if self._let_go(connection, row, why, "sweep", failed=over, **values) == JobState.QUEUED:
                    again.append(int(row["id"]))
            self._expire_deliveries(connection, now)
            return again

    def _expire_deliveries(self, connection: Connection, now: datetime) -> None:
        lost = and_(deliveries.c.state == DeliveryState.SENDING, deliveries.c.lease_expires_at < now)
        query = locked(select(deliveries).where(lost).order_by(deliveries.c.id), free=True)
        for row in connection.execute(query).mappings().all():
            state = state_unsent(connection, int(row["job_id"]))
            why = f"sender {row['owner']} fell silent"
            values = {"owner": "", "lease_expires_at": None, "next_attempt_at": now}
            self._change(connection, deliveries, row, state, actor="sweep", why=why, **values)

    @staticmethod
    def _owned(connection: Connection, job_id: int, owner: str) -> Row | None:
        """The running job of this owner, locked."""
        where = and_(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.owner == owner)
        return connection.execute(locked(select(jobs).where(where))).mappings().one_or_none()

    @staticmethod
    def _job(connection: Connection, job_id: int) -> Job:
        return job_of(connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one())
