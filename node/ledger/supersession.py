"""What becomes of a job, and of its results that were still to be sent, when another job takes its place?"""

from __future__ import annotations

from sqlalchemy import Connection, and_, select, update

from .claims import Claims, inputs_unchanged
from .engine import locked
from .models import deliveries, jobs
from .records import DeliveryState, JobState
from .rows import Row

UNDELIVERED = (JobState.QUEUED, JobState.RUNNING, JobState.ANALYSED, JobState.DELIVERING, JobState.FAILED)
LIVE = and_(jobs.c.superseded_by.is_(None), jobs.c.state != JobState.SUPERSEDED)


class Supersession(Claims):
    """A delivered job stays delivered and names its successor; of any other, what was still to be sent is cancelled."""

    def _supersede_others(self, connection: Connection, study_uid: str, job_id: int, actor: str) -> None:
        """Put the new job in the place of all other live jobs of the study; it remembers the last of them."""
        where = and_(jobs.c.study_instance_uid == study_uid, jobs.c.id != job_id, LIVE)
        others = connection.execute(locked(select(jobs).where(where).order_by(jobs.c.id))).mappings().all()
        for row in others:
            self._supersede(connection, row, f"superseded by job {job_id}", job_id, actor)
        if others:
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(supersedes=others[-1]["id"]))

    def _supersede_stale(self, connection: Connection, study_uid: str, why: str) -> None:
        """Supersede undelivered jobs whose images have changed, without a successor."""
        where = and_(jobs.c.study_instance_uid == study_uid, LIVE, jobs.c.state.in_(UNDELIVERED), ~inputs_unchanged())
        for row in connection.execute(locked(select(jobs).where(where).order_by(jobs.c.id))).mappings().all():
            self._supersede(
                connection, row, f"its images changed and are not analysed any more: {why}", None, "routing"
            )

    def _supersede(self, connection: Connection, row: Row, why: str, by: int | None, actor: str) -> None:
        if row["state"] == JobState.DELIVERED:
            connection.execute(update(jobs).where(jobs.c.id == row["id"]).values(superseded_by=by))
            self._log(connection, "job", row["id"], JobState.DELIVERED, JobState.DELIVERED, why, actor)
            return
        values = {"superseded_by": by, "owner": "", "lease_expires_at": None, "finished_at": self._clock()}
        self._set_job(connection, row, JobState.SUPERSEDED, why=why, actor=actor, **values)
        waiting = and_(deliveries.c.job_id == row["id"], deliveries.c.state == DeliveryState.WAITING)
        for delivery in connection.execute(locked(select(deliveries).where(waiting))).mappings().all():
            self._change(connection, deliveries, delivery, DeliveryState.CANCELLED, why=why, actor=actor)
