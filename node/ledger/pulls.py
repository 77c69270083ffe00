"""Which studies of a PACS that does not route were found, and which were fetched? waiting → fetching → fetched.

A study is entered once, whoever finds it. It is looked at again only if its number of images has changed. The process
that queries a PACS or fetches a study holds it by a lease, as with jobs, so several sweeps do not do it twice and
nothing is lost if one dies.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, func, or_, select, update

from pipeline.errors import InputError

from .access_tables import audit_feed
from .engine import Store, clean, locked
from .models import series
from .prior_records import TransferCounts
from .pull_records import AnnouncedStudy, Pull, PullSource, PullState
from .pull_tables import pull_sources, pulls
from .rows import Row

STRAGGLERS_S = 300.0
"""Time for which images of a retrieval that has ended may still arrive, seconds."""
UNCOUNTED_AGAIN_S = 3600.0
"""A study of a PACS that does not count images is looked at again after this time, seconds."""
PULL_QUERY = "pull_query"
"""What the history calls a query for new studies; it notes them only for an audit repository."""

_FREE: dict[str, Any] = {"owner": "", "lease_expires_at": None}


class Pulls(Store):
    """Studies that are fetched from a PACS that does not route."""

    def claim_pull_query(self, source: str, owner: str, lease_s: float, days: tuple[str, str] = ("", "")) -> bool:
        """Claim the next query of a PACS; false if it is not due or another process makes it.

        Parameters
        ----------
        days : tuple of (str, str)
            First and last date of the studies that are queried, for the audit repository if there is one.
        """
        with self._write() as connection:
            now = self._clock()
            self._insert_missing(connection, pull_sources, {"name": source, "next_query_at": now})
            free = or_(pull_sources.c.owner == "", pull_sources.c.lease_expires_at < now)
            due = and_(pull_sources.c.name == source, pull_sources.c.next_query_at <= now, free)
            values = {"owner": owner, "lease_expires_at": now + timedelta(seconds=lease_s)}
            if connection.execute(update(pull_sources).where(due).values(values)).rowcount == 0:
                return False
            if connection.scalar(select(audit_feed.c.name).limit(1)) is not None:
                self._log(connection, PULL_QUERY, source, "", "queried", "-".join(days), owner)
            return True

    def prolong_pull_query(self, source: str, owner: str, lease_s: float) -> bool:
        """Prolong the lease of a query; false if it is lost."""
        with self._write() as connection:
            values = {"lease_expires_at": self._clock() + timedelta(seconds=lease_s)}
            return connection.execute(update(pull_sources).where(_owned(source, owner)).values(values)).rowcount == 1

    def end_pull_query(
        self, source: str, owner: str, found: Sequence[AnnouncedStudy], every_s: float, quiet_s: float, note: str = ""
    ) -> int | None:
        """Enter the studies of an answer; the number that are new or have changed, ``None`` if the lease is lost.

        Parameters
        ----------
        every_s : float
            The next query is made after this time.
        quiet_s : float
            A study is looked at when it has not changed for this time.
        """
        with self._write() as connection:
            query = locked(select(pull_sources).where(_owned(source, owner)))
            if connection.execute(query).first() is None:
                return None
            now = self._clock()
            entered = [self._enter_found(connection, source, one, quiet_s, owner) for one in found]
            values = {
                "next_query_at": now + timedelta(seconds=every_s),
                "attempts": 0,
                "why": "",
                "failing_since": None,
                "queried_at": now,
                "found": len(found),
                "note": clean(note),
                **_FREE,
            }
            connection.execute(update(pull_sources).where(pull_sources.c.name == source).values(values))
            return sum(entered)

    def fail_pull_query(self, source: str, owner: str, why: str, pause_s: float, *, counted: bool = True) -> None:
        """End a query that failed; the next one is made after a pause."""
        with self._write() as connection:
            row = connection.execute(locked(select(pull_sources).where(_owned(source, owner)))).mappings().first()
            if row is None:
                return
            now = self._clock()
            values: dict[str, Any] = {"next_query_at": now + timedelta(seconds=pause_s), **_FREE}
            if counted:
                since = row["failing_since"] or now
                values |= {"attempts": row["attempts"] + 1, "why": clean(why), "failing_since": since}
            connection.execute(update(pull_sources).where(pull_sources.c.name == source).values(values))

    def _enter_found(
        self, connection: Connection, source: str, study: AnnouncedStudy, quiet_s: float, actor: str
    ) -> bool:
        """Enter a study of an answer, or note that it was returned again; whether it is new or has changed."""
        now, uid = self._clock(), study.study_instance_uid
        due = now + timedelta(seconds=quiet_s)
        new = {
            "study_instance_uid": uid,
            "source": source,
            "study_date": clean(study.study_date),
            "state": PullState.WAITING,
            "announced": study.instances,
            "next_attempt_at": due,
            "found_at": now,
            "seen_at": now,
        }
        if self._insert_missing(connection, pulls, new):
            self._log(connection, "pull", uid, "", PullState.WAITING, f"found in {source}", actor)
            return True
        row = connection.execute(locked(_of(uid))).mappings().one()
        values: dict[str, Any] = {"seen_at": now, "announced": study.instances}
        changed, state = _change(row, study, now), PullState(row["state"])
        if changed and state.is_over:
            values |= {"source": source, "next_attempt_at": due, "attempts": 0, "first_attempt_at": None}
            self._set(connection, row, PullState.WAITING, changed, actor, **values)
            return True
        if changed and state is PullState.WAITING and not row["attempts"]:
            values["next_attempt_at"] = due  # it is still growing
        connection.execute(update(pulls).where(pulls.c.study_instance_uid == uid).values(values))
        return False

    def claim_pull(self, source: str, owner: str, lease_s: float) -> Pull | None:
        """Claim the study of a PACS that has been due for longest; ``None`` if none is."""
        with self._write() as connection:
            now = self._clock()
            due = and_(pulls.c.state == PullState.WAITING, pulls.c.source == source, pulls.c.next_attempt_at <= now)
            first = select(pulls).where(due).order_by(pulls.c.next_attempt_at, pulls.c.found_at).limit(1)
            row = connection.execute(locked(first, free=True)).mappings().one_or_none()
            if row is None:
                return None
            values = {
                "owner": owner,
                "lease_expires_at": now + timedelta(seconds=lease_s),
                "attempts": row["attempts"] + 1,
                "first_attempt_at": row["first_attempt_at"] or now,
            }
            self._set(connection, row, PullState.FETCHING, f"attempt {row['attempts'] + 1}", owner, **values)
            return _pull_of(connection.execute(_of(row["study_instance_uid"])).mappings().one())

    def prolong_pull(self, study_uid: str, owner: str, lease_s: float) -> bool:
        """Prolong the lease of a study; false if it is lost. Not a change of state."""
        with self._write() as connection:
            values = {"lease_expires_at": self._clock() + timedelta(seconds=lease_s)}
            return connection.execute(update(pulls).where(_held(study_uid, owner)).values(values)).rowcount == 1

    def postpone_pull(
        self, study_uid: str, owner: str, why: str, pause_s: float, *, counted: int | None = None, failed: bool = True
    ) -> bool:
        """End an attempt; the next one is made after a pause. False if the lease is lost.

        Parameters
        ----------
        counted : int, optional
            Images of the study, the sum over its series, if they were counted.
        failed : bool
            Whether the attempt failed; if not, it does not count.
        """
        with self._write() as connection:
            row = connection.execute(locked(select(pulls).where(_held(study_uid, owner)))).mappings().one_or_none()
            if row is None:
                return False
            values: dict[str, Any] = {"next_attempt_at": self._clock() + timedelta(seconds=pause_s), **_FREE}
            if not failed:
                attempts = row["attempts"] - 1
                values |= {"attempts": attempts, "first_attempt_at": row["first_attempt_at"] if attempts else None}
            if counted is not None:
                values["counted"] = counted
            self._set(connection, row, PullState.WAITING, why, owner, **values)
            return True

    def finish_pull(
        self,
        study_uid: str,
        owner: str,
        state: PullState,
        why: str,
        counts: TransferCounts | None = None,
        counted: int | None = None,
    ) -> bool:
        """End the work on a study; false if the lease is lost."""
        with self._write() as connection:
            row = connection.execute(locked(select(pulls).where(_held(study_uid, owner)))).mappings().one_or_none()
            if row is None:
                return False
            values: dict[str, Any] = {"ended_at": self._clock(), **_FREE}
            if counts is not None:
                values |= {"expected": counts.expected, "completed": counts.completed}
                values |= {"failed": counts.failed, "warnings": counts.warnings}
            if counted is not None:
                values["counted"] = counted
            self._set(connection, row, state, why, owner, **values)
            return True

    def expire_pulls(self, now: datetime) -> list[str]:
        """Take back studies whose lease has expired; return them."""
        with self._write() as connection:
            lost = and_(pulls.c.state == PullState.FETCHING, pulls.c.lease_expires_at < now)
            rows = connection.execute(locked(select(pulls).where(lost), free=True)).mappings().all()
            for row in rows:
                why = f"{row['owner']} stopped responding during attempt {row['attempts']}"
                self._set(connection, row, PullState.WAITING, why, "sweep", next_attempt_at=now, **_FREE)
            return [str(row["study_instance_uid"]) for row in rows]

    def retry_pull(self, study_uid: str, actor: str) -> None:
        """Have a study looked at again that was fetched, ignored or given up.

        Raises
        ------
        InputError
            If no query has returned it, or it waits already.
        """
        with self._write() as connection:
            row = connection.execute(locked(_of(study_uid))).mappings().one_or_none()
            if row is None:
                raise InputError("no query has returned this study", where=study_uid, do="`cmbnode pull` lists them")
            if not PullState(row["state"]).is_over:
                raise InputError(f"it is {row['state']} already", where=f"study {study_uid}")
            values = {"next_attempt_at": self._clock(), "attempts": 0, "first_attempt_at": None, "counted": None}
            self._set(connection, row, PullState.WAITING, f"by {actor}", actor, **values)

    def forget_pulls(self, before: datetime) -> int:
        """Remove studies that no query has returned since a time; how many."""
        old = and_(pulls.c.seen_at < before, pulls.c.state != PullState.FETCHING)
        with self._write() as connection:
            return connection.execute(delete(pulls).where(old)).rowcount

    def pulls(self, states: Sequence[PullState] = (), limit: int = 50) -> list[Pull]:
        """The studies that were found last, in these states if any are given."""
        query = select(pulls).order_by(pulls.c.found_at.desc(), pulls.c.study_instance_uid).limit(limit)
        if states:
            query = query.where(pulls.c.state.in_(states))
        with self._read() as connection:
            return [_pull_of(row) for row in connection.execute(query).mappings()]

    def pull(self, study_uid: str) -> Pull | None:
        """A study that a query has returned."""
        with self._read() as connection:
            row = connection.execute(_of(study_uid)).mappings().one_or_none()
        return None if row is None else _pull_of(row)

    def pull_sources(self) -> dict[str, PullSource]:
        """How the last query of each PACS ended, by its name."""
        columns = [column for column in pull_sources.c if column.name not in _FREE]
        with self._read() as connection:
            rows = connection.execute(select(*columns)).mappings().all()
        return {row["name"]: PullSource(**row) for row in rows}

    def pull_counts(self) -> dict[tuple[str, str], int]:
        """Number of studies by source and state."""
        query = select(pulls.c.source, pulls.c.state, func.count()).group_by(pulls.c.source, pulls.c.state)
        with self._read() as connection:
            return {(str(source), str(state)): int(number) for source, state, number in connection.execute(query)}

    def images_received(self, study_uid: str) -> dict[str, int]:
        """Number of images that were received of each series of a study, also those deleted since."""
        query = select(series.c.series_instance_uid, series.c.instance_count)
        with self._read() as connection:
            rows = connection.execute(query.where(series.c.study_instance_uid == study_uid)).all()
        return {str(uid): int(number) for uid, number in rows}

    def _set(self, connection: Connection, row: Row, state: PullState, why: str, actor: str, **values: Any) -> None:
        connection.execute(
            update(pulls).where(pulls.c.study_instance_uid == row["study_instance_uid"]).values(why=clean(why))
        )
        self._change(connection, pulls, row, state, actor=actor, why=why, **values)


def is_being_pulled(connection: Connection, study_uid: str, now: datetime) -> bool:
    """Whether an image of this study that arrives now was fetched as a new study, to be analysed like a routed one."""
    recently = and_(pulls.c.ended_at > now - timedelta(seconds=STRAGGLERS_S), pulls.c.state == PullState.FETCHED)
    fetching = or_(pulls.c.state == PullState.FETCHING, recently)
    query = select(pulls.c.state).where(pulls.c.study_instance_uid == study_uid, fetching)
    return connection.execute(query.limit(1)).first() is not None


def _change(row: Row, study: AnnouncedStudy, now: datetime) -> str:
    """What has changed since a study was last seen; empty if nothing has, or if it is not to be fetched again."""
    if row["state"] == PullState.ERASED:
        return ""
    if study.instances != row["announced"] and study.instances is not None:
        return f"it has {study.instances} images, and had {row['announced'] or 'an unknown number'}"
    uncounted = study.instances is None and row["ended_at"] is not None
    if uncounted and row["ended_at"] < now - timedelta(seconds=UNCOUNTED_AGAIN_S):
        return "the PACS does not count its images: it may have changed"
    return ""


def _of(study_uid: str) -> Select[Any]:
    return select(pulls).where(pulls.c.study_instance_uid == study_uid)


def _held(study_uid: str, owner: str) -> Any:
    return and_(pulls.c.study_instance_uid == study_uid, pulls.c.owner == owner, pulls.c.state == PullState.FETCHING)


def _owned(source: str, owner: str) -> Any:
    return and_(pull_sources.c.name == source, pull_sources.c.owner == owner)


def _pull_of(row: Row) -> Pull:
    names = (
        "study_instance_uid", "source", "study_date", "why", "announced", "counted", "attempts", "next_attempt_at",
        "first_attempt_at", "found_at", "ended_at",
    )  # fmt: skip
    counts = TransferCounts(row["expected"], row["completed"], row["failed"], row["warnings"])
    return Pull(**{name: row[name] for name in names}, state=PullState(row["state"]), counts=counts)
