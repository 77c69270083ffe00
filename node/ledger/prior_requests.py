"""Which earlier studies were requested, and with what outcome? waiting → asked → fetched, none, or failed.

There is one request per study. The process that queries the PACS holds it by a lease, as with jobs, so nothing is lost
if the process dies. A study is *fetched* if it arrived only because it was requested: it is analysed for comparison
only, unless it is also sent.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, func, insert, or_, select, update

from .engine import Store, clean, locked
from .jobs import OVER
from .models import findings, jobs, series, studies
from .patient_matching import earlier_than, same_patient
from .prior_records import EarlierStudy, PriorFetch, PriorRequest, PriorState, TransferCounts
from .prior_tables import prior_requests, priors
from .records import JobState, Priority, SeriesState, StudyRecord
from .rows import Row, study_of

STRAGGLERS_S = 300.0
"""Time for which images of a retrieval that was given up may still arrive, seconds."""

_FREE: dict[str, Any] = {"owner": "", "lease_expires_at": None}
_OPEN = (PriorState.WAITING, PriorState.ASKED)


class PriorRequests(Store):
    """Requests for earlier studies."""

    def ask_for_priors(
        self, study_uid: str, priority: Priority, wait_s: float, *, ask: bool = True, why: str = ""
    ) -> PriorRequest:
        """Open the request of a study, or reopen it if it has ended and the study has changed since.

        Parameters
        ----------
        wait_s : float
            Longest wait of the study from now, seconds.
        ask : bool
            Whether there is a PACS to query; otherwise the request ends at once (state none), and only its deadline
            counts.
        """
        with self._write() as connection:
            where = studies.c.study_instance_uid == study_uid
            revision = connection.execute(locked(select(studies.c.revision).where(where))).scalar_one()
            row = self._request(connection, study_uid)
            now = self._clock()
            values = {
                "state": PriorState.WAITING if ask else PriorState.NONE,
                "why": clean(why),
                "priority": int(priority),
                "study_revision": revision,
                "attempts": 0,
                "next_attempt_at": now,
                "deadline_at": now + timedelta(seconds=wait_s),
                "late": False,
                "finished_at": None if ask else now,
                **_FREE,
            }
            if row is None:
                connection.execute(
                    insert(prior_requests).values(study_instance_uid=study_uid, created_at=now, **values)
                )
                self._log(connection, "prior", study_uid, "", str(values["state"]), why, "routing")
            elif row["study_revision"] != revision and not PriorState(row["state"]).is_over:
                where = prior_requests.c.study_instance_uid == study_uid
                connection.execute(update(prior_requests).where(where).values(study_revision=revision))
            elif row["study_revision"] != revision:
                state = values.pop("state")
                self._change(connection, prior_requests, row, state, actor="routing", **{**values, "why": why})
            return _request_of(connection.execute(_of(study_uid)).mappings().one())

    def claim_prior_request(self, owner: str, lease_s: float) -> PriorRequest | None:
        """Claim the most urgent request that is due (attempts + 1, state asked); ``None`` if there is none."""
        with self._write() as connection:
            now = self._clock()
            due = and_(prior_requests.c.state == PriorState.WAITING, prior_requests.c.next_attempt_at <= now)
            first = select(prior_requests).where(due).order_by(prior_requests.c.priority, prior_requests.c.created_at)
            row = connection.execute(locked(first.limit(1), free=True)).mappings().one_or_none()
            if row is None:
                return None
            values = {
                "owner": owner,
                "lease_expires_at": now + timedelta(seconds=lease_s),
                "attempts": row["attempts"] + 1,
            }
            why = f"attempt {row['attempts'] + 1}"
            self._change(connection, prior_requests, row, PriorState.ASKED, actor=owner, why=why, **values)
            return _request_of(connection.execute(_of(row["study_instance_uid"])).mappings().one())

    def prolong_prior_request(self, study_uid: str, owner: str, lease_s: float) -> bool:
        """Prolong the lease; false if it is lost. Not a change of state."""
        mine = and_(
            prior_requests.c.study_instance_uid == study_uid,
            prior_requests.c.owner == owner,
            prior_requests.c.state == PriorState.ASKED,
        )
        values = {"lease_expires_at": self._clock() + timedelta(seconds=lease_s)}
        with self._write() as connection:
            return connection.execute(update(prior_requests).where(mine).values(values)).rowcount == 1

    def begin_prior(self, study_uid: str, owner: str, prior_uid: str, study_date: str, expected: int) -> bool:
        """Record which study is about to be fetched, before its images arrive; false if the lease is lost."""
        with self._write() as connection:
            if self._owned_request(connection, study_uid, owner) is None:
                return False
            now = self._clock()
            values: dict[str, Any] = {
                "study_date": clean(study_date),
                "state": PriorState.ASKED,
                "why": "",
                "expected": expected,
                "completed": 0,
                "failed": 0,
                "warnings": 0,
                "created_at": now,
                "ended_at": None,
            }
            key = {"study_instance_uid": study_uid, "prior_study_uid": prior_uid}
            where = and_(priors.c.study_instance_uid == study_uid, priors.c.prior_study_uid == prior_uid)
            if connection.execute(update(priors).where(where).values(values)).rowcount == 0:
                connection.execute(insert(priors).values(**key, **values))
            why = f"fetching study {prior_uid} of {study_date}, {expected} images"
            self._log(connection, "prior", study_uid, PriorState.ASKED, PriorState.ASKED, why, owner)
            return True

    def end_prior(
        self, study_uid: str, owner: str, prior_uid: str, state: PriorState, why: str, counts: TransferCounts
    ) -> bool:
        """Record how the retrieval of one study ended; false if the lease is lost."""
        with self._write() as connection:
            if self._owned_request(connection, study_uid, owner) is None:
                return False
            where = and_(priors.c.study_instance_uid == study_uid, priors.c.prior_study_uid == prior_uid)
            values: dict[str, Any] = {
                "state": state,
                "why": clean(why),
                "completed": counts.completed,
                "failed": counts.failed,
                "warnings": counts.warnings,
                "ended_at": self._clock(),
            }
            connection.execute(update(priors).where(where).values(values))
            words = f"study {prior_uid}: {state}, {counts.completed} of {counts.expected} images"
            words += f", {counts.failed} failed" if counts.failed else ""
            words += f", {counts.warnings} with warnings" if counts.warnings else ""
            words += f" ({why})" if why else ""
            self._log(connection, "prior", study_uid, PriorState.ASKED, PriorState.ASKED, words, owner)
            return True

    def finish_prior_request(self, study_uid: str, owner: str, state: PriorState, why: str) -> bool:
        """End a request; false if the lease is lost."""
        with self._write() as connection:
            row = self._owned_request(connection, study_uid, owner)
            if row is None:
                return False
            self._end_request(connection, row, state, why, owner)
            return True

    def put_off_prior_request(
        self, study_uid: str, owner: str, why: str, next_attempt_at: datetime | None, *, counted: bool = True
    ) -> bool:
        """End an attempt: the next one is at that time, or the request has failed; false if the lease is lost."""
        with self._write() as connection:
            row = self._owned_request(connection, study_uid, owner)
            if row is None:
                return False
            if next_attempt_at is None:
                self._end_request(connection, row, PriorState.FAILED, why, owner)
                return True
            values = {"next_attempt_at": next_attempt_at, "attempts": row["attempts"] - (not counted), **_FREE}
            self._set_request(connection, row, PriorState.WAITING, why, owner, **values)
            return True

    def expire_prior_requests(self, now: datetime, max_attempts: int) -> list[str]:
        """Take back requests whose lease has expired; return their studies."""
        with self._write() as connection:
            lost = and_(prior_requests.c.state == PriorState.ASKED, prior_requests.c.lease_expires_at < now)
            rows = connection.execute(locked(select(prior_requests).where(lost), free=True)).mappings().all()
            for row in rows:
                why = f"{row['owner']} stopped responding during attempt {row['attempts']}"
                if row["attempts"] >= max_attempts:
                    self._end_request(connection, row, PriorState.FAILED, why, "sweep")
                else:
                    self._set_request(connection, row, PriorState.WAITING, why, "sweep", next_attempt_at=now, **_FREE)
            return [str(row["study_instance_uid"]) for row in rows]

    def hold_study(self, study_uid: str, why: str) -> None:
        """Record that a study waits for an earlier one, until it is routed."""
        with self._write() as connection:
            where = studies.c.study_instance_uid == study_uid
            row = connection.execute(locked(select(studies).where(where))).mappings().one()
            if row["held_since"] is None:
                self._log(connection, "study", study_uid, "", "waits for an earlier study", why, "routing")
            values = {"why": clean(why), "held_since": row["held_since"] or self._clock()}
            connection.execute(update(studies).where(where).values(values))

    def mark_late(self, study_uid: str, why: str) -> None:
        """Record that a study is routed at the deadline, without its earlier studies."""
        with self._write() as connection:
            row = self._request(connection, study_uid)
            if row is not None and not row["late"]:
                where = prior_requests.c.study_instance_uid == study_uid
                connection.execute(update(prior_requests).where(where).values(late=True))
                self._log(connection, "prior", study_uid, row["state"], row["state"], why, "routing")

    def late_requests(self) -> list[PriorRequest]:
        """Requests that ended after their study was routed without them."""
        late = and_(prior_requests.c.late, prior_requests.c.state.not_in(_OPEN))
        with self._read() as connection:
            return [_request_of(row) for row in connection.execute(select(prior_requests).where(late)).mappings()]

    def settle_late(self, study_uid: str, why: str, *, route: bool) -> None:
        """Close a late request; with `route` its study is routed again."""
        with self._write() as connection:
            where = studies.c.study_instance_uid == study_uid
            revision = connection.execute(locked(select(studies.c.revision).where(where))).scalar_one() + bool(route)
            values = {"late": False, "study_revision": revision}
            connection.execute(
                update(prior_requests).where(prior_requests.c.study_instance_uid == study_uid).values(values)
            )
            if route:
                connection.execute(update(studies).where(where).values(revision=revision))
                self._log(connection, "study", study_uid, "routed", "to be routed again", why, "sweep")

    def prior_request(self, study_uid: str) -> PriorRequest | None:
        """The request of a study, if there is one."""
        with self._read() as connection:
            row = connection.execute(_of(study_uid)).mappings().one_or_none()
        return None if row is None else _request_of(row)

    def prior_fetches(self, study_uid: str) -> list[PriorFetch]:
        """The studies that were fetched for this one, and those whose retrieval failed."""
        query = select(priors).where(priors.c.study_instance_uid == study_uid).order_by(priors.c.created_at)
        with self._read() as connection:
            return [_fetch_of(row) for row in connection.execute(query).mappings()]

    def fetched_for(self, prior_uid: str) -> tuple[list[StudyRecord], Priority]:
        """The studies that this one was fetched for, and the highest of their priorities."""
        query = (
            select(studies, prior_requests.c.priority)
            .join(prior_requests, prior_requests.c.study_instance_uid == studies.c.study_instance_uid)
            .join(priors, priors.c.study_instance_uid == studies.c.study_instance_uid)
            .where(priors.c.prior_study_uid == prior_uid)
            .order_by(studies.c.study_date, studies.c.study_time)
        )
        with self._read() as connection:
            rows = connection.execute(query).mappings().all()
        urgency = min((row["priority"] for row in rows), default=Priority.ROUTINE)
        return [study_of(row) for row in rows], Priority(urgency)

    def earlier_studies(self, study_uid: str) -> list[EarlierStudy]:
        """Earlier studies of the same patient in the ledger, the latest first."""
        receiving = (
            select(series.c.series_instance_uid)
            .where(series.c.study_instance_uid == studies.c.study_instance_uid)
            .where(series.c.state == SeriesState.RECEIVING)
            .exists()
        )
        with self._read() as connection:
            where = studies.c.study_instance_uid == study_uid
            this = connection.execute(select(studies).where(where)).mappings().one()
            query = (
                select(
                    studies,
                    receiving.label("receiving"),
                    func.coalesce(jobs.c.state, "").label("job_state"),
                    func.coalesce(jobs.c.why, "").label("job_why"),
                    findings.c.job_id.label("findings"),
                )
                .outerjoin(jobs, jobs.c.id == studies.c.current_job_id)
                .outerjoin(findings, findings.c.job_id == studies.c.current_job_id)
                .where(same_patient(this), earlier_than(this), studies.c.study_instance_uid != study_uid)
                .order_by(studies.c.study_date.desc(), studies.c.study_time.desc())
            )
            return [_earlier_of(row) for row in connection.execute(query).mappings()]

    def prior_counts(self) -> dict[str, int]:
        """Number of requests in each state."""
        query = select(prior_requests.c.state, func.count()).group_by(prior_requests.c.state)
        with self._read() as connection:
            return {str(state): int(number) for state, number in connection.execute(query)}

    @staticmethod
    def _request(connection: Connection, study_uid: str) -> Row | None:
        return connection.execute(locked(_of(study_uid))).mappings().one_or_none()

    @staticmethod
    def _owned_request(connection: Connection, study_uid: str, owner: str) -> Row | None:
        mine = and_(prior_requests.c.state == PriorState.ASKED, prior_requests.c.owner == owner)
        return connection.execute(locked(_of(study_uid).where(mine))).mappings().one_or_none()

    def _end_request(self, connection: Connection, row: Row, state: PriorState, why: str, actor: str) -> None:
        """End a request; retrievals that did not finish have failed."""
        self._set_request(connection, row, state, why, actor, finished_at=self._clock(), **_FREE)
        unfinished = and_(priors.c.study_instance_uid == row["study_instance_uid"], priors.c.state == PriorState.ASKED)
        values = {"state": PriorState.FAILED, "why": clean(why), "ended_at": self._clock()}
        connection.execute(update(priors).where(unfinished).values(values))

    def _set_request(
        self, connection: Connection, row: Row, state: PriorState, why: str, actor: str, **values: Any
    ) -> None:
        where = prior_requests.c.study_instance_uid == row["study_instance_uid"]
        connection.execute(update(prior_requests).where(where).values(why=clean(why)))
        self._change(connection, prior_requests, row, state, actor=actor, why=why, **values)


def is_being_fetched(connection: Connection, study_uid: str, now: datetime, *, named: bool) -> bool:
    """Whether an image of this study that arrives now was requested by the node.

    Parameters
    ----------
    named : bool
        The sender says that it acts on a C-MOVE of this node (PS3.7 9.1.1.1.6); many senders do not say.
    """
    recently = priors.c.ended_at > now - timedelta(seconds=STRAGGLERS_S)
    expected = or_(priors.c.state == PriorState.ASKED, and_(priors.c.state == PriorState.FAILED, recently))
    query = select(priors.c.prior_study_uid).where(priors.c.prior_study_uid == study_uid)
    return connection.execute((query if named else query.where(expected)).limit(1)).first() is not None


def _of(study_uid: str) -> Select[Any]:
    return select(prior_requests).where(prior_requests.c.study_instance_uid == study_uid)


def _request_of(row: Row) -> PriorRequest:
    return PriorRequest(**{**row, "state": PriorState(row["state"]), "priority": Priority(row["priority"])})


def _fetch_of(row: Row) -> PriorFetch:
    return PriorFetch(
        study_instance_uid=row["study_instance_uid"],
        prior_study_uid=row["prior_study_uid"],
        study_date=row["study_date"],
        state=PriorState(row["state"]),
        why=row["why"],
        counts=TransferCounts(row["expected"], row["completed"], row["failed"], row["warnings"]),
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )


def _earlier_of(row: Row) -> EarlierStudy:
    over = not row["job_state"] or JobState(row["job_state"]) in (*OVER, JobState.ANALYSED, JobState.DELIVERING)
    return EarlierStudy(
        study_instance_uid=row["study_instance_uid"],
        study_date=row["study_date"],
        study_time=row["study_time"],
        settled=bool(over and not row["receiving"] and row["routed_revision"] == row["revision"]),
        job_state=row["job_state"],
        analysed=row["findings"] is not None,
        why=row["job_why"] or row["why"],
    )
