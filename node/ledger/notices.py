"""Who has been told of what? Every event is noted once for each way of telling it, and kept until it was sent.

A condition (a destination that is down) is noted when it begins, stays open, and is noted again when it is over. What
is to be told is gathered into messages; a message that could not be sent is sent again with the same content.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select, update

from .engine import Store, clean, locked
from .models import findings, jobs, notices, studies
from .records import JobState, Priority

STAT, FAILED = "stat", "failed"
"""Kinds of notices about jobs; every other kind is a condition."""
_BEGIN = "begin"
"""The row of a way of telling that says since when it is used; what happened before is not told."""
_LOOK_BACK = timedelta(days=2)
_LEAST_OPEN = timedelta(minutes=10)
"""A condition is not over sooner: free space that goes up and down round its limit is no news each time."""
_LEASE = timedelta(seconds=120)
"""Who was given a message has this long to send it; if nothing is heard of it, it is given again."""
_WAITING = and_(notices.c.sent_at.is_(None), notices.c.kind != _BEGIN)


@dataclass(frozen=True)
class NoticeCondition:
    """Something that is wrong now.

    Parameters
    ----------
    kind, subject : str
        What it is, and of what; the same condition has the same two as long as it lasts.
    detail : str
        What to tell people.
    """

    kind: str
    subject: str
    detail: str


@dataclass(frozen=True)
class NoticedJob:
    """What may be told of a job, as the ledger has it now."""

    id: int
    study_instance_uid: str
    accession_number: str
    patient_name: str
    patient_id: str
    why: str
    total: int | None
    definite: int | None
    possible: int | None


@dataclass(frozen=True)
class Notice:
    """Something to tell.

    Parameters
    ----------
    detail : str
        What to tell people of a condition; of a job, the step: ``analysis`` or ``delivery``.
    is_over : bool
        The condition is over.
    job : NoticedJob or None
        The job that it is about; ``None`` if it is about none, or its study was erased.
    """

    id: int
    kind: str
    subject: str
    detail: str
    is_over: bool
    at: datetime
    job: NoticedJob | None


@dataclass(frozen=True)
class NoticeMessage:
    """What is told at once, to everybody of one channel."""

    id: str
    channel: str
    attempts: int
    notices: tuple[Notice, ...]


class Notices(Store):
    """Notices by webhook and e-mail."""

    def note(self, channel: str, kinds: Collection[str], conditions: Iterable[NoticeCondition]) -> int:
        """Note what happened since the last time, and which conditions began or are over; returns how much that is.

        The first time nothing is noted but the conditions of now. Conditions of other kinds than `kinds` are left out.
        """
        now = self._clock()
        with self._write() as connection:
            since = self._since(connection, channel, now)
            new = [
                {"kind": kind, "subject": subject, "detail": step, "is_open": False, "is_over": False}
                for kind, subject, step in self._of_jobs(connection, channel, kinds, since)
            ]
            new += self._of_conditions(connection, channel, now, [one for one in conditions if one.kind in kinds])
            if new:
                common = {"channel": channel, "at": now, "next_attempt_at": now}
                connection.execute(insert(notices), [{**common, **values} for values in new])
            return len(new)

    def _since(self, connection: Connection, channel: str, now: datetime) -> datetime:
        """Since when this way of telling is used; its row is locked, so that nothing is noted twice."""
        begin = locked(select(notices.c.at).where(notices.c.channel == channel, notices.c.kind == _BEGIN))
        at = connection.scalar(begin)
        if at is None:
            values = {"channel": channel, "kind": _BEGIN, "is_open": False, "is_over": False, "at": now}
            connection.execute(insert(notices).values(**values, next_attempt_at=now, sent_at=now))
            return now
        return max(at, now - _LOOK_BACK)

    @staticmethod
    def _of_jobs(
        connection: Connection, channel: str, kinds: Collection[str], since: datetime
    ) -> list[tuple[str, str, str]]:
        """STAT results and failures that were not noted yet, and the step; a job that fails again is noted again."""
        any_state = jobs.c.state.in_(list(JobState))  # for the index, which begins with the state
        stat = and_(
            any_state,
            jobs.c.priority == int(Priority.STAT),
            jobs.c.correction.is_(None),
            jobs.c.analysed_at > since,
        )
        failed = and_(jobs.c.state == JobState.FAILED, jobs.c.finished_at > since)
        found: list[tuple[str, str, str]] = []
        for kind, where, at in ((STAT, stat, jobs.c.analysed_at), (FAILED, failed, jobs.c.finished_at)):
            if kind not in kinds:
                continue
            noted = and_(notices.c.channel == channel, notices.c.kind == kind, notices.c.at > since - _LOOK_BACK)
            rows = select(notices.c.subject, notices.c.at).where(noted).order_by(notices.c.at)
            known = dict(connection.execute(rows).all())
            query = select(jobs.c.id, at, jobs.c.analysed_at.is_not(None)).where(where).order_by(jobs.c.id)
            for number, when, analysed in connection.execute(query).all():
                before = known.get(str(number))
                if before is None or (kind == FAILED and when > before):
                    found.append((kind, str(number), "delivery" if analysed else "analysis"))
        return found

    @staticmethod
    def _of_conditions(
        connection: Connection, channel: str, now: datetime, conditions: Collection[NoticeCondition]
    ) -> list[dict[str, Any]]:
        """Conditions that began, and those that are over."""
        is_open = and_(notices.c.channel == channel, notices.c.is_open)
        columns = (notices.c.id, notices.c.kind, notices.c.subject, notices.c.at)
        rows = connection.execute(select(*columns).where(is_open)).all()
        before = {(row.kind, row.subject) for row in rows}
        lasting = {(one.kind, one.subject) for one in conditions}
        ended = [row for row in rows if (row.kind, row.subject) not in lasting]
        over = [row for row in ended if row.at <= now - _LEAST_OPEN]
        connection.execute(update(notices).where(notices.c.id.in_([row.id for row in over])).values(is_open=False))
        began = [one for one in conditions if (one.kind, one.subject) not in before]
        return [
            *({"kind": one.kind, "subject": clean(one.subject), "detail": clean(one.detail), "is_open": True,
               "is_over": False} for one in began),
            *({"kind": row.kind, "subject": row.subject, "detail": "", "is_open": False, "is_over": True}
              for row in over),
        ]  # fmt: skip

    def next_message(self, channel: str, gather_s: float) -> NoticeMessage | None:
        """The message to send now, if there is one: the one that was not sent, or all that waits.

        A STAT result does not wait; anything else does until the oldest has waited for `gather_s` seconds.
        """
        now = self._clock()
        mine = and_(notices.c.channel == channel, _WAITING)
        with self._write() as connection:
            rows = connection.execute(locked(select(notices).where(mine).order_by(notices.c.id))).mappings().all()
            begun = [row for row in rows if row["message"]]
            if begun:
                rows = [row for row in begun if row["message"] == begun[0]["message"]]
                if rows[0]["next_attempt_at"] > now:
                    return None
            elif not any(row["kind"] == STAT or row["at"] <= now - timedelta(seconds=gather_s) for row in rows):
                return None
            message = rows[0]["message"] or secrets.token_hex(16)
            these = notices.c.id.in_([row["id"] for row in rows])
            attempts = int(rows[0]["attempts"]) + 1
            connection.execute(
                update(notices).where(these).values(message=message, attempts=attempts, next_attempt_at=now + _LEASE)
            )
            about = self._jobs_of(connection, {row["subject"] for row in rows if row["kind"] in (STAT, FAILED)})
            told = [
                Notice(
                    int(row["id"]), row["kind"], row["subject"], row["detail"], row["is_over"], row["at"],
                    about.get(row["subject"]) if row["kind"] in (STAT, FAILED) else None,
                )
                for row in rows
            ]  # fmt: skip
            return NoticeMessage(message, channel, attempts, tuple(told))

    @staticmethod
    def _jobs_of(connection: Connection, subjects: Collection[str]) -> Mapping[str, NoticedJob]:
        columns = (studies.c.study_instance_uid, studies.c.accession_number, studies.c.patient_name)
        query = (
            select(jobs.c.id, *columns, studies.c.patient_id, jobs.c.why)
            .add_columns(findings.c.total, findings.c.definite, findings.c.possible)
            .join(studies, studies.c.study_instance_uid == jobs.c.study_instance_uid)
            .outerjoin(findings, findings.c.job_id == jobs.c.id)
            .where(jobs.c.id.in_([int(subject) for subject in subjects]))
        )
        return {str(row["id"]): NoticedJob(**row) for row in connection.execute(query).mappings()}

    def message_sent(self, message: str) -> None:
        """Record that a message was sent."""
        self._update_message(message, sent_at=self._clock())

    def postpone_message(self, message: str, pause_s: float) -> None:
        """Record that a message could not be sent; it is sent again after a pause."""
        self._update_message(message, next_attempt_at=self._clock() + timedelta(seconds=pause_s))

    def _update_message(self, message: str, **values: Any) -> None:
        with self._write() as connection:
            connection.execute(update(notices).where(notices.c.message == message).values(values))

    def forget_notices(self, before: datetime, channels: Collection[str]) -> int:
        """Delete what was told before that time and is not open, and all of ways that are no longer used."""
        told: ColumnElement[bool] = and_(notices.c.sent_at < before, ~notices.c.is_open, notices.c.kind != _BEGIN)
        with self._write() as connection:
            return connection.execute(delete(notices).where(or_(told, notices.c.channel.not_in(channels)))).rowcount
