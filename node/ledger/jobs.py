"""What is the state of every analysis? Opened, claimed, finished, tried again, superseded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, select, update

from node.ledger.engine import Store, clean, locked
from node.ledger.headline import headline
from node.ledger.models import deliveries, findings, jobs, results, series, studies
from node.ledger.records import DeliveryState, Job, JobState, Json, NewJob, ResultFile
from node.ledger.rows import Row, job_of
from pipeline.errors import InputError

UNDELIVERED = (JobState.QUEUED, JobState.RUNNING, JobState.ANALYSED, JobState.DELIVERING, JobState.FAILED)
OVER = (JobState.DELIVERED, JobState.FAILED, JobState.SUPERSEDED)
LIVE = and_(jobs.c.superseded_by.is_(None), jobs.c.state != JobState.SUPERSEDED)
LOST_CORRECTION = "no longer holds: the correction by "
"""How the warning begins that a reader's correction was made to a result that is superseded."""


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


class Jobs(Store):
    """Analyses: queued → running → analysed → delivering → delivered, or failed, or superseded."""

    def open_job(self, new: NewJob) -> Job:
        """Open a job, or find the live one with the same key, or the correction that stands for it.

        A reader's correction stands until its images or the name of its profile change. Every other live job of the
        study is superseded: one that was not delivered goes to state superseded and what it had still to send is
        cancelled; a delivered one stays delivered and names its successor. If that undoes what a reader corrected, the
        new job warns of it. A job for comparison only makes way for one that has destinations.
        """
        with self._write() as connection:
            where = studies.c.study_instance_uid == new.study_instance_uid
            connection.execute(locked(select(studies.c.revision).where(where))).one()
            revision = self._input_revision(connection, new)
            same = self._standing(connection, new, revision)
            makes_way = same is not None and bool(new.destinations) and not same["destinations"]
            if same is not None and not makes_way:
                connection.execute(update(jobs).where(jobs.c.id == same["id"]).values(input_revision=revision))
                return job_of({**same, "input_revision": revision})
            if same is not None:  # two live jobs never have one key, and its successor has no number yet
                connection.execute(update(jobs).where(jobs.c.id == same["id"]).values(superseded_by=same["id"]))
            job_id = self._insert_job(connection, new, revision, f"profile {new.profile}", "routing")
            if same is not None:
                self._supersede(connection, same, f"job {job_id} has destinations", job_id, "routing")
                connection.execute(update(jobs).where(jobs.c.id == job_id).values(supersedes=same["id"]))
            self._supersede_others(connection, new.study_instance_uid, job_id, "routing")
            self._warn_of_corrections(connection, job_id)
            connection.execute(update(studies).where(where).values(current_job_id=job_id))
            return self._job(connection, job_id)

    @staticmethod
    def _standing(connection: Connection, new: NewJob, revision: int) -> Row | None:
        """The live job that stands for `new` already: itself, or what a reader made of the same images.

        That an earlier study was corrected, or new weights were installed, undoes nobody's reading.
        """
        same: Row | None = connection.execute(select(jobs).where(jobs.c.key == new.key, LIVE)).mappings().one_or_none()
        if same is not None:
            return same
        of_study = and_(jobs.c.study_instance_uid == new.study_instance_uid, LIVE, jobs.c.correction.is_not(None))
        for live in connection.execute(select(jobs).where(of_study)).mappings().all():
            root: Row = live
            while root["correction"] is not None:
                root = connection.execute(select(jobs).where(jobs.c.id == root["supersedes"])).mappings().one()
            series_uids = (new.swi_series_uid, new.phase_series_uid, new.magnitude_series_uid)
            same_images = live["input_revision"] == revision and series_uids == (
                live["swi_series_uid"], live["phase_series_uid"], live["magnitude_series_uid"]
            )  # fmt: skip
            if root["key"] == new.key or (same_images and live["profile"] == new.profile):
                return live
        return None

    @staticmethod
    def _warn_of_corrections(connection: Connection, job_id: int) -> None:
        """Say in a new job which reader's correction is not in it, though one of the results before had it."""
        new = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one()
        same_study = jobs.c.study_instance_uid == new["study_instance_uid"]
        of_study = select(jobs).where(same_study, jobs.c.correction.is_not(None), jobs.c.id != job_id)
        lost = connection.execute(of_study.order_by(jobs.c.id.desc()).limit(1)).mappings().one_or_none()
        if lost is not None:
            by, at = lost["correction"]["observer"], lost["created_at"].date().isoformat()
            why = f"job {job_id} is a new analysis, its images or settings changed; read it anew"
            warnings = [*new["warnings"], clean(f"{LOST_CORRECTION}{by} of {at} (job {lost['id']}): {why}")]
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(warnings=warnings))

    @staticmethod
    def _input_revision(connection: Connection, new: NewJob) -> int:
        if new.input_revision is not None:
            return new.input_revision
        uids = [uid for uid in (new.swi_series_uid, new.phase_series_uid, new.magnitude_series_uid) if uid]
        query = select(func.sum(series.c.revision)).where(series.c.series_instance_uid.in_(uids))
        return int(connection.scalar(query) or 0)

    def _insert_job(
        self, connection: Connection, new: NewJob, revision: int, why: str, actor: str, correction: Json | None = None
    ) -> int:
        values = {
            "key": new.key,
            "study_instance_uid": new.study_instance_uid,
            "swi_series_uid": new.swi_series_uid,
            "phase_series_uid": new.phase_series_uid,
            "magnitude_series_uid": new.magnitude_series_uid,
            "profile": new.profile,
            "priority": int(new.priority),
            "destinations": list(new.destinations),
            "warnings": [clean(warning) for warning in new.warnings],
            "input_revision": revision,
            "correction": correction,
            "prior_job_id": new.prior_job_id,
            "state": JobState.QUEUED,
            "created_at": self._clock(),
        }
        inserted = connection.execute(insert(jobs).values(values)).inserted_primary_key
        assert inserted is not None  # noqa: S101 - for the type checker: one row was inserted
        job_id = int(inserted[0])
        self._log(connection, "job", job_id, "", JobState.QUEUED, why, actor)
        return job_id

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

    def queued_jobs(self) -> list[Job]:
        """Jobs that wait for a worker, the most urgent first; not those whose images are still changing."""
        query = select(jobs).where(jobs.c.state == JobState.QUEUED, inputs_unchanged())
        with self._read() as connection:
            rows = connection.execute(query.order_by(jobs.c.priority, jobs.c.id)).mappings()
            return [job_of(row) for row in rows]

    def claim_job(self, job_id: int, owner: str, lease_s: float) -> Job | None:
        """Take a queued job (attempts + 1, state running); none if it is not there to be taken."""
        with self._write() as connection:
            where = and_(jobs.c.id == job_id, jobs.c.state == JobState.QUEUED, inputs_unchanged())
            query = locked(select(jobs).where(where), free=True)
            row = connection.execute(query).mappings().one_or_none()
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
            return self._job(connection, job_id)

    def heartbeat(self, job_id: int, owner: str, lease_s: float, progress: str = "") -> bool:
        """Prolong the lease; false if the job is no longer the owner's, who should stop. Not a change of state."""
        values: dict[str, Any] = {"lease_expires_at": self._clock() + timedelta(seconds=lease_s)}
        if progress:
            values["progress"] = clean(progress)
        where = and_(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.owner == owner)
        with self._write() as connection:
            return connection.execute(update(jobs).where(where).values(values)).rowcount == 1

    def finish_analysis(
        self,
        job_id: int,
        owner: str,
        document: Json,
        objects: Sequence[ResultFile],
        takes: Callable[[str, str], bool] = lambda _destination, _kind: True,
    ) -> bool:
        """Commit the findings, the result objects and what is to be delivered, in one transaction.

        Parameters
        ----------
        document : dict
            ``findings.json``.
        objects : sequence of ResultFile
            What lies in the job's outbox.
        takes : callable
            Whether a destination takes result files of a kind; by default all take all.

        Returns
        -------
        bool
            False if the job is no longer the owner's (lease lost, superseded): nothing was committed.
        """
        with self._write() as connection:
            row = self._owned(connection, job_id, owner)
            if row is None:
                return False
            now = self._clock()
            values = {"job_id": job_id, "document": document, "created_at": now, **headline(document)}
            connection.execute(insert(findings).values(values))
            sends = self._insert_results(connection, row, objects, takes, now) > 0
            ended = {"owner": "", "lease_expires_at": None, "progress": "", "analysed_at": now}
            self._set_job(connection, row, JobState.ANALYSED, actor=owner, why="", **ended)
            after = JobState.DELIVERING if sends else JobState.DELIVERED
            why = "" if sends else "nothing to send, or nowhere to send it"
            over = {} if sends else {"finished_at": now}
            self._change(connection, jobs, {**row, "state": JobState.ANALYSED}, after, actor=owner, why=why, **over)
            return True

    @staticmethod
    def _insert_results(
        connection: Connection,
        row: Row,
        objects: Sequence[ResultFile],
        takes: Callable[[str, str], bool],
        now: datetime,
    ) -> int:
        """One row an object, and one delivery for each of its destinations that takes it; how many deliveries."""
        sent = 0
        for item in objects:
            values = {
                "job_id": row["id"],
                "kind": item.kind,
                "sop_instance_uid": item.sop_instance_uid,
                "sop_class_uid": item.sop_class_uid,
                "path": item.path,
                "size": item.size,
                "sha256": item.sha256,
            }
            inserted = connection.execute(insert(results).values(values)).inserted_primary_key
            assert inserted is not None  # noqa: S101 - for the type checker
            for destination in row["destinations"]:
                if not takes(destination, item.kind):
                    continue
                waiting = {
                    "job_id": row["id"],
                    "result_id": inserted[0],
                    "destination": destination,
                    "priority": row["priority"],
                    "state": DeliveryState.WAITING,
                    "next_attempt_at": now,
                    "created_at": now,
                }
                connection.execute(insert(deliveries).values(waiting))
                sent += 1
        return sent

    def fail_attempt(
        self, job_id: int, owner: str, why: str, max_attempts: int, permanent: bool = False
    ) -> JobState | None:
        """Give up an attempt: the job is queued again, or failed if that was the last one or trying again is no use.

        Returns the state it is in now; none if the job is no longer the owner's.
        """
        with self._write() as connection:
            row = self._owned(connection, job_id, owner)
            return None if row is None else self._end_attempt(connection, row, why, max_attempts, permanent, owner)

    def _end_attempt(
        self, connection: Connection, row: Row, why: str, max_attempts: int, permanent: bool, actor: str
    ) -> JobState:
        over = permanent or row["attempts"] >= max_attempts
        state = JobState.FAILED if over else JobState.QUEUED
        values: dict[str, Any] = {"owner": "", "lease_expires_at": None, "progress": ""}
        if over:
            values["finished_at"] = self._clock()
        self._set_job(connection, row, state, actor=actor, why=why, **values)
        return state

    def _set_job(self, connection: Connection, row: Row, state: JobState, why: str, **values: Any) -> None:
        """Change the state of a job and show why on the job itself too."""
        connection.execute(update(jobs).where(jobs.c.id == row["id"]).values(why=clean(why)))
        self._change(connection, jobs, row, state, why=why, **values)

    def release_job(self, job_id: int, owner: str) -> bool:
        """Put a running job back without counting the attempt, for a worker that is asked to stop."""
        with self._write() as connection:
            row = self._owned(connection, job_id, owner)
            if row is None:
                return False
            values = {"owner": "", "lease_expires_at": None, "progress": "", "attempts": row["attempts"] - 1}
            why = "given back: the worker stops"
            self._change(connection, jobs, row, JobState.QUEUED, actor=owner, why=why, **values)
            return True

    def expire_leases(self, now: datetime, max_attempts: int) -> list[int]:
        """Take back what silent workers held: jobs are queued again or failed, deliveries wait again.

        Returns the ids of the jobs that were queued again.
        """
        with self._write() as connection:
            lost = and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_expires_at < now)
            query = locked(select(jobs).where(lost).order_by(jobs.c.id), free=True)
            again = []
            for row in connection.execute(query).mappings().all():
                why = f"worker {row['owner']} fell silent during attempt {row['attempts']}"
                if self._end_attempt(connection, row, why, max_attempts, False, "sweep") == JobState.QUEUED:
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

    def retry(self, job_id: int, actor: str) -> Job:
        """Try a failed job again, by hand: from where it failed, the analysis or the deliveries that were given up.

        Raises
        ------
        InputError
            If there is no such job or it has not failed.
        """
        with self._write() as connection:
            row = connection.execute(locked(select(jobs).where(jobs.c.id == job_id))).mappings().one_or_none()
            if row is None:
                raise InputError("no such job", where=f"job {job_id}", do="`cmbnode jobs` lists them")
            if row["state"] != JobState.FAILED:
                raise InputError(f"it is {row['state']}; only a failed job can be retried", where=f"job {job_id}")
            analysed = connection.scalar(select(findings.c.job_id).where(findings.c.job_id == job_id)) is not None
            state = JobState.DELIVERING if analysed else JobState.QUEUED
            values: dict[str, Any] = {"attempts": row["attempts"] if analysed else 0, "finished_at": None}
            self._set_job(connection, row, state, why="", actor=actor, **values)
            again = and_(deliveries.c.job_id == job_id, deliveries.c.state == DeliveryState.FAILED)
            for delivery in connection.execute(locked(select(deliveries).where(again))).mappings().all():
                fresh: dict[str, Any] = {"next_attempt_at": self._clock(), "first_attempt_at": None}
                self._change(connection, deliveries, delivery, DeliveryState.WAITING, actor=actor, **fresh)
            return self._job(connection, job_id)

    @staticmethod
    def _owned(connection: Connection, job_id: int, owner: str) -> Row | None:
        """The running job of this owner, locked."""
        where = and_(jobs.c.id == job_id, jobs.c.state == JobState.RUNNING, jobs.c.owner == owner)
        return connection.execute(locked(select(jobs).where(where))).mappings().one_or_none()

    @staticmethod
    def _job(connection: Connection, job_id: int) -> Job:
        return job_of(connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one())
