"""What is the state of every analysis? Opened, finished, retried by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from pipeline.errors import InputError

from .claims import MOVING
from .engine import clean, locked
from .findings_columns import findings_columns
from .metrics import STAGE, observe
from .models import deliveries, findings, jobs, results, series, studies
from .records import DeliveryState, Job, JobState, Json, NewJob, Priority, ResultFile
from .rows import Row
from .states import STORED
from .supersession import LIVE, Supersession

OVER = (JobState.DELIVERED, JobState.FAILED, JobState.SUPERSEDED)
_WITH_RESULT = (JobState.DELIVERING, JobState.DELIVERED, JobState.FAILED)
_SENT = (*STORED, DeliveryState.FAILED)
LOST_CORRECTION = "no longer holds: the correction by "
"""How the warning begins that a reader's correction was made to a result that is superseded."""


class Jobs(Supersession):
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
                if (
                    same["state"] == JobState.FAILED and same["input_revision"] != revision
                ):  # its images were sent again
                    self._retry(connection, same, "routing")
                return self._job(connection, int(same["id"]))
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
            why = f"job {job_id} is a new analysis because images or settings changed; review it again"
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
            values = {"job_id": job_id, "document": document, "created_at": now, **findings_columns(document)}
            connection.execute(delete(findings).where(findings.c.job_id == job_id))  # of an analysis that is done again
            connection.execute(insert(findings).values(values))
            if row["correction"] is None:
                stages = document.get("timing_s", {})
                self._tally(connection, [observe(STAGE, seconds, stage=stage) for stage, seconds in stages.items()])
            sends = self._insert_results(connection, row, objects, takes, now)
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
    ) -> bool:
        """One row per object, and one delivery for each of its destinations that takes it; whether any is to be sent.

        An object that the job had before keeps its row and its deliveries.
        """
        before = dict(
            connection.execute(select(results.c.kind, results.c.id).where(results.c.job_id == row["id"])).all()
        )
        for item in objects:
            if item.kind in before:
                made = {"size": item.size, "sha256": item.sha256}
                connection.execute(update(results).where(results.c.id == before[item.kind]).values(made))
                continue
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
        of_job = and_(deliveries.c.job_id == row["id"], deliveries.c.state.in_(MOVING))
        return connection.scalar(select(deliveries.c.id).where(of_job).limit(1)) is not None

    def retry(self, job_id: int, actor: str) -> Job:
        """Try a failed job again, by hand: from where it failed, the analysis or the deliveries that were given up.

        Raises
        ------
        InputError
            If there is no such job or it has not failed.
        """
        with self._write() as connection:
            row = self._lock_job(connection, job_id)
            if row["state"] != JobState.FAILED:
                raise InputError(f"it is {row['state']}; only a failed job can be retried", where=f"job {job_id}")
            self._retry(connection, row, actor)
            return self._job(connection, job_id)

    def _retry(self, connection: Connection, row: Row, actor: str) -> None:
        analysed = row["analysed_at"] is not None
        state = JobState.DELIVERING if analysed else JobState.QUEUED
        values: dict[str, Any] = {"finished_at": None, "not_before": None}
        if not analysed:
            values |= {"attempts": 0, "lost": 0, "postponed": 0}
        self._set_job(connection, row, state, why="", actor=actor, **values)
        again = and_(deliveries.c.job_id == row["id"], deliveries.c.state == DeliveryState.FAILED)
        for delivery in connection.execute(locked(select(deliveries).where(again))).mappings().all():
            self._change(connection, deliveries, delivery, DeliveryState.WAITING, actor=actor, **self._anew())

    def send_again(self, job_id: int, actor: str) -> Job:
        """Send the result of a job to all of its destinations again, by hand, and what waits for an attempt now.

        Raises
        ------
        InputError
            If there is no such job, or it has no result to send: not analysed, superseded, deleted after its retention
            period.
        """
        with self._write() as connection:
            row = self._lock_job(connection, job_id)
            if row["superseded_by"] is not None or row["analysed_at"] is None or row["state"] not in _WITH_RESULT:
                raise InputError("it has no result to send, or a newer one has replaced it", where=f"job {job_id}")
            study = select(studies.c.removed_at).where(studies.c.study_instance_uid == row["study_instance_uid"])
            if connection.scalar(study) is not None:
                raise InputError(
                    "its result was deleted after its retention period",
                    where=f"job {job_id}",
                    do="send the study again, and it is analysed again",
                )
            sent = and_(deliveries.c.job_id == job_id, deliveries.c.state.in_(_SENT))
            again = connection.execute(locked(select(deliveries).where(sent))).mappings().all()
            for delivery in again:
                fresh = {"why": "sent again by hand", **self._anew()}
                self._change(connection, deliveries, delivery, DeliveryState.WAITING, actor=actor, **fresh)
            waiting = and_(deliveries.c.job_id == job_id, deliveries.c.state == DeliveryState.WAITING)
            connection.execute(update(deliveries).where(waiting).values(next_attempt_at=self._clock()))
            if again and row["state"] != JobState.DELIVERING:
                self._set_job(connection, row, JobState.DELIVERING, why="", actor=actor, finished_at=None)
            return self._job(connection, job_id)

    def cancel_job(self, job_id: int, why: str, actor: str) -> bool:
        """Cancel a job that waits for a worker; false if it does not wait (any more). Its study can be routed again."""
        with self._write() as connection:
            row = self._lock_job(connection, job_id)
            if row["state"] != JobState.QUEUED:
                return False
            self._supersede(connection, row, why, None, actor)
            return True

    def set_priority(self, job_id: int, priority: Priority, actor: str) -> Job:
        """Change how urgent a job is, and what it has still to send.

        Raises
        ------
        InputError
            If there is no such job, or it is over.
        """
        with self._write() as connection:
            row = self._lock_job(connection, job_id)
            if row["state"] in OVER:
                raise InputError(f"it is {row['state']}; its priority can no longer be changed", where=f"job {job_id}")
            if row["priority"] != priority:
                why = f"priority {Priority(row['priority']).name.lower()} changed to {priority.name.lower()}"
                self._change(connection, jobs, row, row["state"], actor=actor, why=why, priority=int(priority))
                of_job = deliveries.c.job_id == job_id
                connection.execute(update(deliveries).where(of_job).values(priority=int(priority)))
            return self._job(connection, job_id)

    @staticmethod
    def _lock_job(connection: Connection, job_id: int) -> Row:
        row: Row | None = connection.execute(locked(select(jobs).where(jobs.c.id == job_id))).mappings().one_or_none()
        if row is None:
            raise InputError("no such job", where=f"job {job_id}", do="`cmbnode jobs` lists them")
        return row

    def _anew(self) -> dict[str, Any]:
        """A delivery as it was before its first attempt."""
        now: dict[str, Any] = {"next_attempt_at": self._clock(), "first_attempt_at": None}
        return {**now, "commit_resent": 0, "commit_at": None, "commit_by": None, "commit_transaction": None}
