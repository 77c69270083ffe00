"""What is known about one study, series or job? And the numbers over all of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, Table, and_, func, or_, select, update

from node.ledger.deliveries import select_deliveries
from node.ledger.engine import Store, locked
from node.ledger.jobs import OVER
from node.ledger.models import deliveries, findings, history, instances, jobs, quarantine, results, series, studies
from node.ledger.patients import earlier_than, same_patient
from node.ledger.records import (
    Change,
    Counts,
    Delivery,
    DeliveryState,
    Instance,
    Job,
    JobState,
    Json,
    Quarantined,
    RemovableStudy,
    ResultFile,
    Series,
    SeriesState,
    Study,
)
from node.ledger.rows import instance_of, job_of, result_of, series_of, study_of
from pipeline.errors import InputError


class Queries(Store):
    """Reading; and what retention needs."""

    def job(self, job_id: int) -> Job:
        """The job with this number; :class:`InputError` if there is none."""
        with self._read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one_or_none()
        if row is None:
            raise InputError("no such job", where=f"job {job_id}", do="`cmbnode jobs` lists them")
        return job_of(row)

    def study(self, study_uid: str) -> Study:
        """The study with this UID; :class:`InputError` if the node has never seen it."""
        with self._read() as connection:
            where = studies.c.study_instance_uid == study_uid
            row = connection.execute(select(studies).where(where)).mappings().one_or_none()
        if row is None:
            raise InputError("no such study", where=f"study {study_uid}")
        return study_of(row)

    def series(self, study_uid: str) -> list[Series]:
        """The series of a study, by series number."""
        query = select(series).where(series.c.study_instance_uid == study_uid)
        with self._read() as connection:
            found = [series_of(row) for row in connection.execute(query).mappings()]
        return sorted(found, key=lambda s: (s.series_number is None, s.series_number or 0, s.series_instance_uid))

    def instances(self, *series_uids: str) -> list[Instance]:
        """All instances of these series, those that retention has removed too."""
        query = select(instances).where(instances.c.series_instance_uid.in_(series_uids))
        with self._read() as connection:
            return [instance_of(row) for row in connection.execute(query.order_by(instances.c.path)).mappings()]

    def job_paths(self, job_id: int) -> list[str]:
        """Archive paths of the images that a job reads."""
        found = self.instances(*self.job(job_id).series_uids)
        return [instance.path for instance in found if instance.removed_at is None]

    def jobs_of_study(self, study_uid: str) -> list[Job]:
        """Every job of a study, the newest first."""
        query = select(jobs).where(jobs.c.study_instance_uid == study_uid).order_by(jobs.c.id.desc())
        with self._read() as connection:
            return [job_of(row) for row in connection.execute(query).mappings()]

    def findings(self, job_id: int) -> Json | None:
        """``findings.json`` of a job, once it was analysed."""
        with self._read() as connection:
            document: Json | None = connection.scalar(select(findings.c.document).where(findings.c.job_id == job_id))
        return document

    def results(self, job_id: int) -> list[ResultFile]:
        """The result objects of a job."""
        query = select(results).where(results.c.job_id == job_id).order_by(results.c.id)
        with self._read() as connection:
            return [result_of(row) for row in connection.execute(query).mappings()]

    def deliveries(self, job_id: int) -> list[Delivery]:
        """What of a job goes where, and how far it got."""
        with self._read() as connection:
            return select_deliveries(connection, deliveries.c.job_id == job_id)

    def predecessor(self, job_id: int) -> Job | None:
        """The last job that this one replaces of which something was accepted somewhere."""
        with self._read() as connection:
            before = connection.scalar(select(jobs.c.supersedes).where(jobs.c.id == job_id))
            while before is not None:
                where = and_(deliveries.c.job_id == before, deliveries.c.state == DeliveryState.ACCEPTED)
                row = connection.execute(select(jobs).where(jobs.c.id == before)).mappings().one()
                if connection.scalar(select(deliveries.c.id).where(where).limit(1)) is not None:
                    return job_of(row)
                before = row["supersedes"]
        return None

    def prior_jobs(self, study_uid: str) -> list[Job]:
        """Of every earlier study of the same patient its newest analysis, the latest study first.

        What a reader corrected is the newest; while a correction is being written, the result that it corrects.
        """
        newest = select(func.max(jobs.c.id)).where(
            jobs.c.study_instance_uid == studies.c.study_instance_uid, jobs.c.analysed_at.is_not(None)
        )
        with self._read() as connection:
            where = studies.c.study_instance_uid == study_uid
            this = connection.execute(select(studies).where(where)).mappings().one()
            query = (
                select(jobs)
                .join(studies, jobs.c.id == newest.correlate(studies).scalar_subquery())
                .where(same_patient(this), earlier_than(this))
                .order_by(studies.c.study_date.desc(), studies.c.study_time.desc(), jobs.c.id.desc())
            )
            return [job_of(row) for row in connection.execute(query).mappings()]

    def history(self, entity: str, entity_id: object) -> list[Change]:
        """Changes of state of one study, series, job or delivery, the oldest first."""
        where = and_(history.c.entity == entity, history.c.entity_id == str(entity_id))
        with self._read() as connection:
            rows = connection.execute(select(history).where(where).order_by(history.c.id)).mappings()
            return [Change(**row) for row in rows]

    def quarantined(self, limit: int = 100) -> list[Quarantined]:
        """Objects that were kept aside, the newest first."""
        query = select(quarantine).order_by(quarantine.c.id.desc()).limit(limit)
        with self._read() as connection:
            return [Quarantined(**row) for row in connection.execute(query).mappings()]

    def count_quarantined(self) -> int:
        """How many objects were kept aside."""
        with self._read() as connection:
            return connection.scalar(select(func.count()).select_from(quarantine)) or 0

    def counts(self) -> Counts:
        """How many of what, in which state."""
        with self._read() as connection:
            waiting = deliveries.c.state.in_([DeliveryState.WAITING, DeliveryState.SENDING])
            return Counts(
                studies=connection.scalar(select(func.count()).select_from(studies)) or 0,
                series=_by(connection, series, series.c.state),
                jobs=_by(connection, jobs, jobs.c.state),
                deliveries=_by(connection, deliveries, deliveries.c.state),
                waiting_by_destination=_by(connection, deliveries, deliveries.c.destination, waiting),
                quarantined=connection.scalar(select(func.count()).select_from(quarantine)) or 0,
                oldest_queued_at=connection.scalar(
                    select(jobs.c.created_at).where(jobs.c.state == JobState.QUEUED).order_by(jobs.c.id).limit(1)
                ),
            )

    def removable_studies(self, now: datetime, keep_days: float) -> list[RemovableStudy]:
        """Studies that were dealt with at least `keep_days` ago: ignored, or every job of theirs is over."""
        before = now - timedelta(days=keep_days)
        busy_series = select(series.c.study_instance_uid).where(series.c.state == SeriesState.RECEIVING)
        busy_jobs = select(jobs.c.study_instance_uid).where(
            or_(jobs.c.state.not_in(OVER), jobs.c.finished_at.is_(None), jobs.c.finished_at > before)
        )
        query = select(studies.c.study_instance_uid).where(
            studies.c.removed_at.is_(None),
            studies.c.last_received_at <= before,
            studies.c.routed_revision == studies.c.revision,
            studies.c.study_instance_uid.not_in(busy_series),
            studies.c.study_instance_uid.not_in(busy_jobs),
        )
        with self._read() as connection:
            return [_removable(connection, uid) for uid in connection.scalars(query).all()]

    def mark_removed(self, study_uid: str, at: datetime) -> bool:
        """Note that the images of a study go from the archive; its findings and history stay.

        Returns false, and notes nothing, if a job of the study was opened meanwhile that needs them.
        """
        with self._write() as connection:
            study = select(studies.c.revision).where(studies.c.study_instance_uid == study_uid)
            connection.execute(locked(study)).one()
            busy = and_(jobs.c.study_instance_uid == study_uid, jobs.c.state.not_in(OVER))
            if connection.scalar(select(jobs.c.id).where(busy).limit(1)) is not None:
                return False
            of_study = select(series.c.series_instance_uid).where(series.c.study_instance_uid == study_uid)
            gone = and_(instances.c.series_instance_uid.in_(of_study), instances.c.removed_at.is_(None))
            connection.execute(update(instances).where(gone).values(removed_at=at))
            where = studies.c.study_instance_uid == study_uid
            connection.execute(update(studies).where(where).values(removed_at=at))
            self._log(connection, "study", study_uid, "kept", "removed", "retention", "sweep")
            return True


def _removable(connection: Connection, uid: str) -> RemovableStudy:
    files = (
        select(instances.c.path)
        .join(series, series.c.series_instance_uid == instances.c.series_instance_uid)
        .where(series.c.study_instance_uid == uid, instances.c.removed_at.is_(None))
    )
    ids = select(jobs.c.id).where(jobs.c.study_instance_uid == uid)
    return RemovableStudy(uid, tuple(connection.scalars(files)), tuple(connection.scalars(ids)))


def _by(connection: Connection, table: Table, column: Column[Any], where: Any = True) -> dict[str, int]:
    """Number of rows for each value of a column."""
    query = select(column, func.count()).select_from(table).where(where).group_by(column)
    return {str(value): int(number) for value, number in connection.execute(query)}
