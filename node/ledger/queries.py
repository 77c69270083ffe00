"""What is known about one study, series or job? And the numbers over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, func, or_, select, update

from pipeline.errors import InputError

from .deliveries import select_deliveries
from .engine import Store, locked
from .jobs import OVER
from .models import deliveries, findings, history, instances, jobs, quarantine, results, series, studies
from .patient_matching import earlier_than, same_patient
from .records import (
    Delivery,
    DeliveryState,
    HistoryEntry,
    InstanceRecord,
    Job,
    JobState,
    Json,
    LedgerCounts,
    QuarantinedObject,
    RemovableStudy,
    ResultFile,
    SeriesRecord,
    SeriesState,
    StudyRecord,
)
from .rows import instance_of, job_of, result_of, series_of, study_of


class Queries(Store):
    """Reading; and what retention needs."""

    def job(self, job_id: int) -> Job:
        """The job with this number; :class:`InputError` if there is none."""
        with self._read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one_or_none()
        if row is None:
            raise InputError("no such job", where=f"job {job_id}", do="`cmbnode jobs` lists them")
        return job_of(row)

    def study(self, study_uid: str) -> StudyRecord:
        """The study with this UID; :class:`InputError` if the node has never seen it."""
        with self._read() as connection:
            where = studies.c.study_instance_uid == study_uid
            row = connection.execute(select(studies).where(where)).mappings().one_or_none()
        if row is None:
            raise InputError("no such study", where=f"study {study_uid}")
        return study_of(row)

    def series(self, study_uid: str) -> list[SeriesRecord]:
        """The series of a study, by series number."""
        query = select(series).where(series.c.study_instance_uid == study_uid)
        with self._read() as connection:
            found = [series_of(row) for row in connection.execute(query).mappings()]
        return sorted(found, key=lambda s: (s.series_number is None, s.series_number or 0, s.series_instance_uid))

    def instances(self, *series_uids: str) -> list[InstanceRecord]:
        """All instances of these series, those that retention has removed too."""
        query = select(instances).where(instances.c.series_instance_uid.in_(series_uids))
        with self._read() as connection:
            return [instance_of(row) for row in connection.execute(query.order_by(instances.c.path)).mappings()]

    def instance(self, sop_instance_uid: str) -> InstanceRecord | None:
        """An instance, whether or not retention has removed it."""
        query = select(instances).where(instances.c.sop_instance_uid == sop_instance_uid)
        with self._read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else instance_of(row)

    def job_images(self, job_id: int) -> list[InstanceRecord]:
        """The images that a job reads, of those that are in the archive."""
        found = self.instances(*self.job(job_id).series_uids)
        return [instance for instance in found if instance.removed_at is None]

    def job_paths(self, job_id: int) -> list[str]:
        """Archive paths of the images that a job reads."""
        return [instance.path for instance in self.job_images(job_id)]

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

    def current_results(self, study_uid: str = "") -> list[ResultFile]:
        """The DICOM objects of the newest analysis of each study, or of this one; the newest analysis first.

        While a correction is being written, they are those of the result that it corrects. Left out are studies that
        retention removed, and those that were only fetched to compare others with.
        """
        newest = select(func.max(jobs.c.id)).where(jobs.c.analysed_at.is_not(None)).group_by(jobs.c.study_instance_uid)
        query = (
            select(results)
            .join(jobs, results.c.job_id == jobs.c.id)
            .join(studies, jobs.c.study_instance_uid == studies.c.study_instance_uid)
            .where(jobs.c.id.in_(newest), studies.c.removed_at.is_(None), ~studies.c.fetched)
            .where(results.c.sop_class_uid != "")
            .order_by(jobs.c.id.desc(), results.c.id)
        )
        if study_uid:
            query = query.where(jobs.c.study_instance_uid == study_uid)
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
                where = and_(deliveries.c.job_id == before, deliveries.c.accepted_at.is_not(None))
                row = connection.execute(select(jobs).where(jobs.c.id == before)).mappings().one()
                if connection.scalar(select(deliveries.c.id).where(where).limit(1)) is not None:
                    return job_of(row)
                before = row["supersedes"]
        return None

    def predecessors(self, job_id: int) -> list[Job]:
        """Every job that this one replaces of which something was accepted somewhere, the last first."""
        found: list[Job] = []
        while (before := self.predecessor(found[-1].id if found else job_id)) is not None:
            found.append(before)
        return found

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

    def history(self, entity: str, entity_id: object) -> list[HistoryEntry]:
        """Changes of state of one study, series, job or delivery, the oldest first."""
        where = and_(history.c.entity == entity, history.c.entity_id == str(entity_id))
        with self._read() as connection:
            rows = connection.execute(select(history).where(where).order_by(history.c.id)).mappings()
            return [HistoryEntry(**row) for row in rows]

    def quarantined(self, limit: int = 100) -> list[QuarantinedObject]:
        """Objects in quarantine, the newest first."""
        query = select(quarantine).order_by(quarantine.c.id.desc()).limit(limit)
        with self._read() as connection:
            return [QuarantinedObject(**row) for row in connection.execute(query).mappings()]

    def count_quarantined(self) -> int:
        """Number of objects that were put in quarantine."""
        with self._read() as connection:
            return connection.scalar(select(func.count()).select_from(quarantine)) or 0

    def counts(self) -> LedgerCounts:
        """How many of what, in which state."""
        with self._read() as connection:
            waiting = deliveries.c.state.in_([DeliveryState.WAITING, DeliveryState.SENDING])
            uncommitted = and_(deliveries.c.state == DeliveryState.ACCEPTED, deliveries.c.commit_by.is_not(None))
            return LedgerCounts(
                studies=connection.scalar(select(func.count()).select_from(studies)) or 0,
                series=_by(connection, series, series.c.state),
                jobs=_by(connection, jobs, jobs.c.state),
                deliveries=_by(connection, deliveries, deliveries.c.state),
                waiting_by_destination=_by(connection, deliveries, deliveries.c.destination, waiting),
                uncommitted_by_destination=_by(connection, deliveries, deliveries.c.destination, uncommitted),
                quarantined=connection.scalar(select(func.count()).select_from(quarantine)) or 0,
                oldest_queued_at=connection.scalar(
                    select(jobs.c.created_at).where(jobs.c.state == JobState.QUEUED).order_by(jobs.c.id).limit(1)
                ),
                oldest_waiting_by_destination=dict(
                    connection.execute(
                        select(deliveries.c.destination, func.min(deliveries.c.created_at))
                        .where(waiting)
                        .group_by(deliveries.c.destination)
                    ).all()
                ),
                last_received_at=connection.scalar(
                    select(studies.c.last_received_at)
                    .where(studies.c.fetched.is_(False))
                    .order_by(studies.c.last_received_at.desc())
                    .limit(1)
                ),
            )

    def removable_studies(self, now: datetime, keep_days: float) -> list[str]:
        """Studies whose images may be removed: finished (ignored, or every job over) at least `keep_days` ago."""
        query = select(studies.c.study_instance_uid).where(_is_removable(now - timedelta(days=keep_days)))
        with self._read() as connection:
            return list(connection.scalars(query).all())

    def mark_damaged(self, damaged: Mapping[str, str], actor: str) -> None:
        """Note that images in the archive cannot be used, so that they are taken in when they are sent again.

        Parameters
        ----------
        damaged : mapping
            What is wrong, by SOP Instance UID.
        """
        with self._write() as connection:
            at = self._clock()
            for uid, why in damaged.items():
                connection.execute(update(instances).where(instances.c.sop_instance_uid == uid).values(removed_at=at))
                self._log(connection, "instance", uid, "kept", "damaged", why, actor)

    def mark_removed(self, study_uid: str, at: datetime, keep_days: float = 0.0) -> RemovableStudy | None:
        """Record that the images of a study are removed from the archive, and return what to remove.

        The findings and the history stay. Returns ``None``, and records nothing, if the study is not removable (any
        more): images may have arrived, or a job may have been opened that needs them. The caller holds the exclusive
        lock of the study's files (:meth:`node.archive.Archive.study_lock`), so no image of it is being stored.
        """
        with self._write() as connection:
            study = select(studies.c.revision).where(studies.c.study_instance_uid == study_uid)
            connection.execute(locked(study)).one()
            if connection.scalar(study.where(_is_removable(at - timedelta(days=keep_days)))) is None:
                return None
            removed = _removable(connection, study_uid)
            of_study = select(series.c.series_instance_uid).where(series.c.study_instance_uid == study_uid)
            gone = and_(instances.c.series_instance_uid.in_(of_study), instances.c.removed_at.is_(None))
            connection.execute(update(instances).where(gone).values(removed_at=at))
            where = studies.c.study_instance_uid == study_uid
            connection.execute(update(studies).where(where).values(removed_at=at))
            self._log(connection, "study", study_uid, "kept", "removed", "retention", "sweep")
            return removed


def _is_removable(before: datetime) -> ColumnElement[bool]:
    """Whether all is over with a study since before this time, and its images are still there."""
    busy_series = select(series.c.study_instance_uid).where(series.c.state == SeriesState.RECEIVING)
    busy_jobs = select(jobs.c.study_instance_uid).where(
        or_(jobs.c.state.not_in(OVER), jobs.c.finished_at.is_(None), jobs.c.finished_at > before)
    )
    uncommitted = (  # it may have to be sent again
        select(jobs.c.study_instance_uid)
        .join(deliveries, deliveries.c.job_id == jobs.c.id)
        .where(deliveries.c.state == DeliveryState.ACCEPTED, deliveries.c.commit_by.is_not(None))
    )
    return and_(
        studies.c.removed_at.is_(None),
        studies.c.last_received_at <= before,
        studies.c.routed_revision == studies.c.revision,
        studies.c.study_instance_uid.not_in(busy_series),
        studies.c.study_instance_uid.not_in(busy_jobs),
        studies.c.study_instance_uid.not_in(uncommitted),
    )


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
