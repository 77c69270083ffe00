"""What must go when a patient's or a study's data are erased, or when rows are too old to be kept?

First nothing of the study may be worked on any more, then its files go, then its rows: a command that is interrupted
can be given again. The audit keeps who erased which study when, by its UID and without a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, delete, func, or_, select, update

from pipeline.errors import InputError
from pipeline.findings import wording

from .access_records import AuditAction
from .access_tables import audit
from .audit_trail import AuditTrail
from .engine import locked
from .models import associations, deliveries, findings, history, instances, jobs, quarantine, results, series, studies
from .prior_records import PriorState
from .prior_tables import prior_requests, priors
from .pull_records import PullState
from .pull_tables import pulls
from .records import DeliveryState, JobState, SeriesState
from .work_item_tables import work_items

ERASED_DETAIL = "(erased)"
STUDY_ERASED = "the study was erased"
_SOME = 500
"""Values in one statement."""


@dataclass(frozen=True)
class StudyFiles:
    """What of a study lies on the disk, relative to the data folder.

    Parameters
    ----------
    delivered_to : tuple of str
        Destinations that accepted results, which keep them.
    """

    study_instance_uid: str
    images: tuple[str, ...]
    quarantined: tuple[str, ...]
    job_ids: tuple[int, ...]
    delivered_to: tuple[str, ...] = field(default=())


class Erasure(AuditTrail):
    """Removing all that is known of a study."""

    def studies_of_patient(self, patient_id: str) -> list[str]:
        """UIDs of the studies with this Patient ID."""
        query = select(studies.c.study_instance_uid).where(studies.c.patient_id == patient_id)
        with self._read() as connection:
            return sorted(connection.scalars(query))

    def begin_erasure(self, study_uid: str, actor: str) -> StudyFiles:
        """See that nothing works on the study, and that nothing begins to; what of it lies on the disk.

        Raises
        ------
        InputError
            If a job of it runs, results are being sent or images arrive: that has to end first.
        """
        with self._write() as connection:
            where = studies.c.study_instance_uid == study_uid
            row = connection.execute(locked(select(studies).where(where))).mappings().one_or_none()
            quarantined = select(quarantine.c.path).where(quarantine.c.study_instance_uid == study_uid)
            paths = tuple(connection.scalars(quarantined))
            if row is None and not paths:
                raise InputError("no such study", where=f"study {study_uid}")
            if busy := self._busy(connection, study_uid):
                raise InputError(f"it cannot be erased now: {busy}", where=f"study {study_uid}", do="try again later")
            for job in connection.execute(_jobs_of(study_uid, JobState.QUEUED, JobState.DELIVERING)).mappings().all():
                values = {"state": JobState.SUPERSEDED, "finished_at": self._clock(), "why": "erased"}
                connection.execute(update(jobs).where(jobs.c.id == job["id"]).values(values))
                waiting = and_(deliveries.c.job_id == job["id"], deliveries.c.state == DeliveryState.WAITING)
                connection.execute(update(deliveries).where(waiting).values(state=DeliveryState.CANCELLED))
            connection.execute(update(studies).where(where).values(routed_revision=studies.c.revision))
            self._insert_access(connection, actor, AuditAction.ERASED, study_uid, "erasure begins")
            return self._files(connection, study_uid, paths)

    def _busy(self, connection: Connection, study_uid: str) -> str:
        """What works on the study now; what a dead process held does not count."""
        now = self._clock()
        running = _jobs_of(study_uid, JobState.RUNNING).where(jobs.c.lease_expires_at > now)
        if (job := connection.execute(running).mappings().first()) is not None:
            return f"job {job['id']} is running"
        sending = and_(deliveries.c.state == DeliveryState.SENDING, deliveries.c.lease_expires_at > now)
        query = select(deliveries.c.destination).join(jobs, jobs.c.id == deliveries.c.job_id)
        query = query.where(sending, jobs.c.study_instance_uid == study_uid)
        if (destination := connection.scalar(query.limit(1))) is not None:
            return f"results are being sent to {destination}"
        arriving = and_(series.c.study_instance_uid == study_uid, series.c.state == SeriesState.RECEIVING)
        if connection.scalar(select(series.c.series_instance_uid).where(arriving).limit(1)) is not None:
            return "its images are still arriving"
        asked = and_(
            prior_requests.c.study_instance_uid == study_uid,
            prior_requests.c.state == PriorState.ASKED,
            prior_requests.c.lease_expires_at > now,
        )
        if connection.scalar(select(prior_requests.c.owner).where(asked).limit(1)) is not None:
            return "its earlier studies are being fetched"
        fetching = and_(
            pulls.c.study_instance_uid == study_uid,
            pulls.c.state == PullState.FETCHING,
            pulls.c.lease_expires_at > now,
        )
        if connection.scalar(select(pulls.c.owner).where(fetching).limit(1)) is not None:
            return "its images are being fetched"
        return ""

    @staticmethod
    def _files(connection: Connection, study_uid: str, quarantined: tuple[str, ...]) -> StudyFiles:
        of_study = select(series.c.series_instance_uid).where(series.c.study_instance_uid == study_uid)
        images = select(instances.c.path).where(instances.c.series_instance_uid.in_(of_study))
        ids = select(jobs.c.id).where(jobs.c.study_instance_uid == study_uid)
        accepted = and_(deliveries.c.job_id.in_(ids), deliveries.c.accepted_at.is_not(None))
        to = select(deliveries.c.destination).distinct().where(accepted)
        return StudyFiles(
            study_uid,
            tuple(connection.scalars(images)),
            quarantined,
            tuple(connection.scalars(ids)),
            tuple(sorted(connection.scalars(to))),
        )

    def erase_rows(self, study_uid: str, actor: str) -> dict[str, int]:
        """Remove every row of a study, and a name that the audit quotes; how many rows, by table.

        Raises
        ------
        InputError
            If something works on it again, as images that arrived meanwhile.
        """
        with self._write() as connection:
            _overwrite_what_is_deleted(connection)
            where = studies.c.study_instance_uid == study_uid
            patient = connection.execute(locked(select(studies).where(where))).mappings().one_or_none()
            if busy := self._busy(connection, study_uid):
                raise InputError(f"it cannot be erased now: {busy}", where=f"study {study_uid}", do="try again later")
            removed = _delete_study(connection, study_uid)
            if patient is not None:
                _hide(connection, (patient["patient_name"], patient["patient_id"], patient["accession_number"]))
            kept = ", ".join(f"{number} {name}" for name, number in removed.items() if number)
            self._insert_access(
                connection, actor, AuditAction.ERASED, study_uid, f"erased: {kept or 'nothing was left'}"
            )
        self._truncate_log()
        return removed

    def quarantined_paths(self) -> list[str]:
        """Paths of all objects in quarantine."""
        with self._read() as connection:
            return sorted(set(connection.scalars(select(quarantine.c.path).where(quarantine.c.path != ""))))

    def erase_quarantined(self, paths: Sequence[str], names: Iterable[str], actor: str) -> int:
        """Remove the rows of objects in quarantine, and `names` that the audit quotes; how many rows."""
        removed = 0
        with self._write() as connection:
            _overwrite_what_is_deleted(connection)
            for start in range(0, len(paths), _SOME):
                where = quarantine.c.path.in_(paths[start : start + _SOME])
                ids = [str(one) for one in connection.scalars(select(quarantine.c.id).where(where))]
                _delete_history_of(connection, "quarantine", ids)
                removed += connection.execute(delete(quarantine).where(where)).rowcount
            _hide(connection, names)
            self._insert_access(connection, actor, AuditAction.ERASED, "", f"erased: {removed} objects in quarantine")
        self._truncate_log()
        return removed

    def _truncate_log(self) -> None:
        """Have SQLite's write-ahead log hold nothing of what was deleted."""
        if self.engine.dialect.name == "sqlite":
            with self.engine.connect() as connection:
                raw = connection.connection.cursor()
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                raw.close()

    def outdated_studies(self, before: datetime, limit: int) -> list[str]:
        """Studies whose images were removed before a time, the oldest first."""
        query = select(studies.c.study_instance_uid).where(studies.c.removed_at < before)
        with self._read() as connection:
            return list(connection.scalars(query.order_by(studies.c.removed_at).limit(limit)))

    def forget_history(self, before: datetime, limit: int) -> int:
        """Remove rows of the history from before a time, the oldest first; how many."""
        oldest = select(history.c.id).where(history.c.at < before).order_by(history.c.id).limit(limit)
        with self._write() as connection:
            return connection.execute(delete(history).where(history.c.id.in_(oldest))).rowcount

    def forget_quarantine(self, before: datetime, limit: int) -> list[str]:
        """Remove rows of the quarantine from before a time; the paths of their files."""
        with self._write() as connection:
            old = select(quarantine.c.id, quarantine.c.path).where(quarantine.c.at < before)
            rows = connection.execute(old.order_by(quarantine.c.id).limit(limit)).all()
            connection.execute(delete(quarantine).where(quarantine.c.id.in_([row.id for row in rows])))
            left = set(connection.scalars(select(quarantine.c.path)))
            return [row.path for row in rows if row.path not in left]


def _overwrite_what_is_deleted(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def _jobs_of(study_uid: str, *states: JobState) -> Any:
    return locked(select(jobs).where(jobs.c.study_instance_uid == study_uid, jobs.c.state.in_(states)))


_PRIOR_UIDS = (priors.c.study_instance_uid, priors.c.prior_study_uid)


def _delete_study(connection: Connection, study_uid: str) -> dict[str, int]:
    """Delete the rows of a study, those that refer to others first."""
    of_series = select(series.c.series_instance_uid).where(series.c.study_instance_uid == study_uid)
    of_jobs = select(jobs.c.id).where(jobs.c.study_instance_uid == study_uid)
    removed = {"history rows": _delete_history(connection, study_uid)}
    removed["work items"] = _blank_work_items(connection, study_uid)
    connection.execute(update(jobs).where(jobs.c.prior_job_id.in_(of_jobs)).values(prior_job_id=None))
    unlinked = {"state": JobState.SUPERSEDED, "supersedes": None, "superseded_by": None}
    connection.execute(update(jobs).where(jobs.c.study_instance_uid == study_uid).values(unlinked))
    for name, table, where in (
        ("deliveries", deliveries, deliveries.c.job_id.in_(of_jobs)),
        ("results", results, results.c.job_id.in_(of_jobs)),
        ("findings", findings, findings.c.job_id.in_(of_jobs)),
        ("jobs", jobs, jobs.c.study_instance_uid == study_uid),
        ("associations", associations, associations.c.series_instance_uid.in_(of_series)),
        ("images", instances, instances.c.series_instance_uid.in_(of_series)),
        ("series", series, series.c.study_instance_uid == study_uid),
        ("earlier studies", priors, or_(*(column == study_uid for column in _PRIOR_UIDS))),
        ("requests for earlier studies", prior_requests, prior_requests.c.study_instance_uid == study_uid),
        ("objects in quarantine", quarantine, quarantine.c.study_instance_uid == study_uid),
        ("studies", studies, studies.c.study_instance_uid == study_uid),
    ):
        removed[name] = connection.execute(delete(table).where(where)).rowcount
    erased = {"state": PullState.ERASED, "why": "", "study_date": "", "owner": "", "lease_expires_at": None}
    connection.execute(update(pulls).where(pulls.c.study_instance_uid == study_uid).values(erased))
    return removed


def _blank_work_items(connection: Connection, study_uid: str) -> int:
    """Keep no more than the UIDs of a study's work items, and have those cancelled that are open at the manager.

    Without the UIDs, the node would find an item that is still scheduled there, and fetch the images again.
    """
    of_study = work_items.c.study_instance_uid == study_uid
    blank: dict[str, Any] = {
        "study_instance_uid": "",
        "job_id": None,
        "inputs": [],
        "fetch_at": None,
        "told": "",
        "why": "",
    }
    erased = {"failure": STUDY_ERASED, "told_job_state": "", "next_at": work_items.c.created_at}
    return connection.execute(update(work_items).where(of_study).values(**blank, **erased)).rowcount


def _delete_history(connection: Connection, study_uid: str) -> int:
    """Delete the history of everything that belongs to a study, and what other histories quote of it."""
    of_study = {
        "series": select(series.c.series_instance_uid).where(series.c.study_instance_uid == study_uid),
        "job": select(jobs.c.id).where(jobs.c.study_instance_uid == study_uid),
        "delivery": select(deliveries.c.id)
        .join(jobs, jobs.c.id == deliveries.c.job_id)
        .where(jobs.c.study_instance_uid == study_uid),
        "work item": select(work_items.c.workitem_uid).where(work_items.c.study_instance_uid == study_uid),
        "quarantine": select(quarantine.c.id).where(quarantine.c.study_instance_uid == study_uid),
    }
    number = 0
    for entity, query in of_study.items():
        number += _delete_history_of(connection, entity, [str(one) for one in connection.scalars(query)])
    own = and_(history.c.entity.in_(["study", "prior", "pull"]), history.c.entity_id == study_uid)
    quoting = history.c.why.contains(study_uid, autoescape=True)
    return number + connection.execute(delete(history).where(or_(own, quoting))).rowcount


def _delete_history_of(connection: Connection, entity: str, ids: Sequence[str]) -> int:
    number = 0
    for start in range(0, len(ids), _SOME):
        some = and_(history.c.entity == entity, history.c.entity_id.in_(ids[start : start + _SOME]))
        number += connection.execute(delete(history).where(some)).rowcount
    return number


def _hide(connection: Connection, names: Iterable[str]) -> None:
    """Replace what the audit quotes of a patient, as the words of a search, by a mark."""
    forms = {form.strip() for name in names for form in (name, name.replace("^", " "), wording.person_name(name))}
    for name in forms - {""}:
        quoting = func.lower(audit.c.detail).contains(name.lower(), autoescape=True)
        word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
        for row in connection.execute(select(audit.c.id, audit.c.detail).where(quoting)).all():
            detail = word.sub(ERASED_DETAIL, row.detail)
            connection.execute(update(audit).where(audit.c.id == row.id).values(detail=detail))
