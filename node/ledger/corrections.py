"""May this result be corrected? A correction is a job that supersedes the one that it corrects."""

from __future__ import annotations

import math

from sqlalchemy import Connection, func, select, update

from pipeline.errors import InputError

from .claims import inputs_unchanged
from .correction import Correction
from .engine import locked
from .jobs import LOST_CORRECTION, Jobs
from .models import findings, instances, jobs, studies
from .records import Job, JobState, Json, NewJob, Priority
from .rows import Row, job_of


class Corrections(Jobs):
    """Corrections by readers."""

    def open_correction(self, job_id: int, correction: Correction, actor: str) -> Job:
        """Open the job that applies a correction to the result of another, which it supersedes.

        The new job has the same destinations and at least high priority, because a person is waiting for it. The same
        correction twice is one job.

        Parameters
        ----------
        job_id : int
            The result that the reader has seen.
        correction : Correction
            The reader's verdicts and additions.
        actor : str
            The user, for the history.

        Raises
        ------
        InputError
            If there is no such result (not analysed, superseded in the meantime, its images changing or removed), or
            the correction does not fit it. The ledger is then unchanged.
        """
        correction.check()
        with self._write() as connection:
            study = select(jobs.c.study_instance_uid).where(jobs.c.id == job_id).scalar_subquery()
            where = studies.c.study_instance_uid == study
            connection.execute(locked(select(studies.c.revision).where(where))).one_or_none()  # the order of `open_job`
            row = connection.execute(locked(select(jobs).where(jobs.c.id == job_id))).mappings().one_or_none()
            if row is None:
                raise InputError("no such job", where=f"job {job_id}", do="`cmbnode jobs` lists them")
            if (same := self._same(connection, row, correction)) is not None:
                return same
            base = self._correctable(connection, row, correction)
            new = _new_job(job_of(row), correction.key(base["key"]), row["input_revision"])
            why = f"correction of job {base['id']} by {correction.summary}"
            opened = self._insert_job(connection, new, row["input_revision"], why, actor, correction.to_json())
            self._supersede_others(connection, new.study_instance_uid, opened, actor)
            current = studies.c.study_instance_uid == new.study_instance_uid
            connection.execute(update(studies).where(current).values(current_job_id=opened))
            return self._job(connection, opened)

    def check_correction(self, job_id: int, correction: Correction) -> None:
        """Raise what :meth:`open_correction` would raise now, without opening anything."""
        correction.check()
        with self._read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one_or_none()
            if row is None:
                raise InputError("no such job", where=f"job {job_id}", do="`cmbnode jobs` lists them")
            if self._same(connection, row, correction) is None:
                self._correctable(connection, row, correction)

    def corrected(self, job_id: int) -> list[Job]:
        """The results that a correction is based on, the newest first; the last is the detector's own."""
        with self._read() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one()
            chain = []
            while row["correction"] is not None:
                row = connection.execute(select(jobs).where(jobs.c.id == row["supersedes"])).mappings().one()
                if row["analysed_at"] is not None:
                    chain.append(job_of(row))
            return chain

    def _correctable(self, connection: Connection, row: Row, correction: Correction) -> Row:
        """The job whose findings are corrected; raises an error if they cannot be."""
        self._require_current(connection, row)
        base = self._analysed(connection, row)
        self._require_images(connection, row)
        self._require_fit(connection, base, correction)
        return base

    def _same(self, connection: Connection, row: Row, correction: Correction) -> Job | None:
        """The job of the same correction, if it was submitted before."""
        successor = row["superseded_by"]
        if successor is None:
            return None
        other = connection.execute(select(jobs).where(jobs.c.id == successor)).mappings().one()
        return job_of(other) if other["correction"] == correction.to_json() else None

    @staticmethod
    def _require_current(connection: Connection, row: Row) -> None:
        newest: Row = row
        while newest["superseded_by"] is not None:
            newest = connection.execute(select(jobs).where(jobs.c.id == newest["superseded_by"])).mappings().one()
        where = f"job {row['id']}"
        if newest is not row:
            by = f"job {newest['id']}"
            if newest["correction"] is not None:
                by += f", the correction by {newest['correction']['observer']}"
            raise InputError(f"superseded meanwhile by {by}", where=where, do="look at that result and correct it")
        if row["state"] == JobState.SUPERSEDED:
            raise InputError("superseded meanwhile: its images changed", where=where, do="wait for the new result")

    @staticmethod
    def _analysed(connection: Connection, row: Row) -> Row:
        """The job whose findings are corrected: this one, or the one that a failed correction was about."""
        base = row
        while base["analysed_at"] is None:
            if base["correction"] is None or base["state"] != JobState.FAILED:
                do = "retry it first" if base["state"] == JobState.FAILED else "wait until it is analysed"
                raise InputError(f"it is {base['state']}, not analysed", where=f"job {row['id']}", do=do)
            base = connection.execute(select(jobs).where(jobs.c.id == base["supersedes"])).mappings().one()
        return base

    @staticmethod
    def _require_images(connection: Connection, row: Row) -> None:
        where = f"job {row['id']}"
        if connection.scalar(select(jobs.c.id).where(jobs.c.id == row["id"], inputs_unchanged())) is None:
            raise InputError("images arrived after it was analysed", where=where, do="wait for the new result")
        job = job_of(row)
        of_job = instances.c.series_instance_uid.in_(job.series_uids)
        there, gone = connection.execute(
            select(func.count(), func.count(instances.c.removed_at)).select_from(instances).where(of_job)
        ).one()
        if gone or not there:
            what = "its images are no longer in the archive and cannot be measured"
            raise InputError(what, where=where, do="send the study again, then correct the new result")

    @staticmethod
    def _require_fit(connection: Connection, base: Row, correction: Correction) -> None:
        """Refuse verdicts on microbleeds that the result does not have, and additions where there is one already."""
        query = select(findings.c.document).where(findings.c.job_id == base["id"])
        document: Json = connection.scalar(query) or {}
        lesions = {lesion["tracking_uid"]: lesion for lesion in document.get("lesions", ())}
        known = {*lesions, *(lesion["tracking_uid"] for lesion in document.get("rejected", ()))}
        where = f"job {base['id']}"
        judged = [*(v.tracking_uid for v in correction.verdicts), *(c.tracking_uid for c in correction.certainties)]
        for uid in judged:
            if uid not in known:
                raise InputError(f"it has no microbleed {uid}", where=where)
        dropped = {verdict.tracking_uid for verdict in correction.verdicts if not verdict.accepted}
        for added in correction.added:
            for uid, lesion in lesions.items():
                near = math.dist(added.centroid_lps_mm, lesion["centroid_lps_mm"]) <= lesion["diameter_mm"] / 2
                if uid not in dropped and near:
                    place = ", ".join(f"{v:.1f}" for v in added.centroid_lps_mm)
                    raise InputError(f"microbleed {lesion['id']} is already at {place} mm", where=where)


def _new_job(job: Job, key: str, revision: int) -> NewJob:
    """The same images, profile and destinations, without the warnings about an earlier correction."""
    return NewJob(
        key=key,
        study_instance_uid=job.study_instance_uid,
        swi_series_uid=job.swi_series_uid,
        phase_series_uid=job.phase_series_uid,
        magnitude_series_uid=job.magnitude_series_uid,
        profile=job.profile,
        priority=min(job.priority, Priority.HIGH),
        destinations=job.destinations,
        warnings=tuple(w for w in job.warnings if not w.startswith(LOST_CORRECTION)),
        input_revision=revision,
        prior_job_id=job.prior_job_id,
    )
