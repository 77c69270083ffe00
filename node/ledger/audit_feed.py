"""What of the audit and the history has the audit repository not been told? A position in each, and what comes after.

The rows are there anyway, so a repository that is down costs no space: whatever is not yet sent is buffered for as long
as the ledger keeps its rows. One process at a time sends; if it dies, another takes over when its lease has expired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise, takewhile
from typing import Any, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, or_, select, true, update

from .access_records import AuditEntry
from .access_tables import audit, audit_feed
from .audit_events import (
    AuditEvent,
    FeedBatch,
    FeedState,
    NewStudiesQuery,
    ObjectRefused,
    PriorQuery,
    ResultSent,
    SeriesReceived,
)
from .audit_trail import select_audit
from .engine import Store, clean
from .models import deliveries, history, instances, jobs, quarantine, results, series, studies
from .prior_records import PriorState
from .pulls import PULL_QUERY
from .rows import Row, study_of
from .states import DeliveryState, SeriesState

MOST = 200
"""Rows of the audit, and of the history, that are sent at once."""
_NAME = "syslog"
_LEASE = timedelta(seconds=120)
_PATIENCE = timedelta(seconds=30)
"""PostgreSQL numbers a row before others can see it: a missing number may still appear within this time."""
_RECENT = 5000
"""Rows in which such a number is looked for; older ones appeared long ago."""

_TOLD = or_(
    and_(history.c.entity == "series", history.c.to_state == SeriesState.SETTLED),
    and_(
        history.c.entity == "delivery",
        history.c.to_state.in_((DeliveryState.ACCEPTED, DeliveryState.FAILED)),
        history.c.from_state != history.c.to_state,
    ),
    and_(
        history.c.entity == "prior",
        history.c.from_state == PriorState.WAITING,
        history.c.to_state == PriorState.ASKED,
    ),
    and_(history.c.entity == "quarantine", history.c.to_state == "quarantined"),
    history.c.entity == PULL_QUERY,
)
"""The changes of state that an audit repository is told of."""


class AuditFeed(Store):
    """What an audit repository is still to be told."""

    def begin_feed(self) -> bool:
        """Tell what happens from now on; whether this is new. What happened before is not told."""
        now = self._clock()
        with self._write() as connection:
            values = {
                "name": _NAME,
                "audit_id": connection.scalar(select(func.max(audit.c.id))) or 0,
                "history_id": connection.scalar(select(func.max(history.c.id))) or 0,
                "next_at": now,
                "begun_at": now,
            }
            return self._insert_missing(connection, audit_feed, values)

    def end_feed(self) -> None:
        """Tell nothing more: there is no repository. If there is one again, it is told what happens from then on."""
        with self._write() as connection:
            connection.execute(delete(audit_feed))

    def claim_feed(self) -> FeedBatch | None:
        """What to send now, in the order in which it happened; ``None`` if nothing is due.

        It has to be followed by :meth:`feed_sent` or :meth:`postpone_feed`.
        """
        now = self._clock()
        with self._read() as connection:
            due = and_(audit_feed.c.name == _NAME, audit_feed.c.next_at <= now)
            row = connection.execute(select(audit_feed).where(due)).mappings().one_or_none()
            if row is None:
                return None
            batch = _batch(connection, row, now)
        if batch.after == batch.before:
            return None
        values: dict[str, Any] = {"attempts": batch.attempts, "next_at": now + _LEASE}
        if not batch.events:
            values = {"audit_id": batch.after[0], "history_id": batch.after[1]}
        with self._write() as connection:
            unclaimed = and_(_at(batch), audit_feed.c.next_at == row["next_at"])
            is_mine = connection.execute(update(audit_feed).where(unclaimed).values(values)).rowcount > 0
        return batch if is_mine and batch.events else None

    def feed_sent(self, batch: FeedBatch) -> bool:
        """Record that a batch was sent; false if another process has sent it meanwhile."""
        now = self._clock()
        audit_id, history_id = batch.after
        values = {"audit_id": audit_id, "history_id": history_id, "attempts": 0, "why": "", "next_at": now}
        with self._write() as connection:
            return connection.execute(update(audit_feed).where(_at(batch)).values(**values, sent_at=now)).rowcount > 0

    def postpone_feed(self, batch: FeedBatch, pause_s: float, why: str) -> None:
        """Record that a batch could not be sent, and why; it is sent again after a pause."""
        values = {"next_at": self._clock() + timedelta(seconds=pause_s), "why": clean(why)}
        with self._write() as connection:
            connection.execute(update(audit_feed).where(_at(batch)).values(values))

    def feed_state(self) -> FeedState | None:
        """How much waits for the repository, since when, and why; ``None`` if nothing is told."""
        with self._read() as connection:
            row = connection.execute(select(audit_feed)).mappings().one_or_none()
            if row is None:
                return None
            waiting, times = 0, []
            for table, position, told in ((audit, row["audit_id"], true()), (history, row["history_id"], _TOLD)):
                query = select(func.count(), func.min(table.c.at)).where(table.c.id > position, told)
                number, at = connection.execute(query).one()
                waiting += number
                times += [at] if at is not None else []
            return FeedState(waiting, min(times, default=None), row["why"], row["sent_at"])


def _batch(connection: Connection, row: Row, now: datetime) -> FeedBatch:
    """What comes after the positions of the feed."""
    actions, audit_id = _unsent_actions(connection, row["audit_id"], now)
    changes, history_id = _unsent_changes(connection, row["history_id"], now)
    # A backlog is told in order: beyond the end of what was read of one, the other has to wait.
    ends = [rows[-1].at for rows in (actions, changes) if len(rows) == MOST]
    if ends:
        actions, audit_id = _until(min(ends), actions, row["audit_id"], audit_id)
        changes, history_id = _until(min(ends), changes, row["history_id"], history_id)
    events: list[AuditEvent] = [*actions, *(event for change in changes for event in _events(connection, change))]
    events.sort(key=lambda event: event.at)
    before = (row["audit_id"], row["history_id"])
    return FeedBatch(tuple(events), row["attempts"] + 1, before, (audit_id, history_id))


def _at(batch: FeedBatch) -> ColumnElement[bool]:
    return and_(audit_feed.c.audit_id == batch.before[0], audit_feed.c.history_id == batch.before[1])


def _visible_to(connection: Connection, table: Table, position: int, now: datetime) -> tuple[int, int]:
    """Where to begin after a position, and the last row before which none can still appear."""
    highest = connection.scalar(select(func.max(table.c.id))) or 0
    if highest < position:  # the table was emptied, and SQLite counts from the beginning
        position = 0
    if connection.dialect.name == "sqlite":  # has one writer: rows appear in the order of their numbers
        return position, max(position, highest)
    query = select(table.c.id, table.c.at).where(table.c.id > position).order_by(table.c.id.desc()).limit(_RECENT)
    rows = connection.execute(query).all()[::-1]
    if not rows:
        return position, position
    if len(rows) < _RECENT and rows[0].id > position + 1 and rows[0].at > now - _PATIENCE:
        return position, position
    for row, following in pairwise(rows):
        if following.id > row.id + 1 and following.at > now - _PATIENCE:
            return position, int(row.id)
    return position, int(rows[-1].id)


def _unsent_actions(connection: Connection, position: int, now: datetime) -> tuple[list[AuditEntry], int]:
    first, last = _visible_to(connection, audit, position, now)
    query = select_audit().where(audit.c.id > first, audit.c.id <= last).order_by(audit.c.id).limit(MOST)
    return [AuditEntry(**row) for row in connection.execute(query).mappings()], last


def _unsent_changes(connection: Connection, position: int, now: datetime) -> tuple[list[Any], int]:
    first, last = _visible_to(connection, history, position, now)
    query = select(history).where(history.c.id > first, history.c.id <= last, _TOLD)
    return list(connection.execute(query.order_by(history.c.id).limit(MOST)).all()), last


class _Numbered(Protocol):
    @property
    def id(self) -> int: ...

    @property
    def at(self) -> datetime: ...


_Line = TypeVar("_Line", bound=_Numbered)


def _until(end: datetime, rows: Sequence[_Line], before: int, after: int) -> tuple[list[_Line], int]:
    """The rows up to a time, and the position behind them."""
    kept = list(takewhile(lambda row: row.at <= end, rows))
    if len(kept) == len(rows) < MOST:
        return kept, after
    return kept, kept[-1].id if kept else before


def _events(connection: Connection, change: Any) -> Iterator[AuditEvent]:
    """What a change of state means; nothing if its rows were erased since."""
    make = {
        "series": _received, "delivery": _sent, "prior": _queried, "quarantine": _refused, PULL_QUERY: _pulled,
    }  # fmt: skip
    return make[change.entity](connection, change)


def _received(connection: Connection, change: Any) -> Iterator[AuditEvent]:
    """What arrived of a series since it settled the last time, by sender."""
    settled = and_(history.c.entity == "series", history.c.to_state == SeriesState.SETTLED)
    of_series = and_(settled, history.c.entity_id == change.entity_id, history.c.id < change.id)
    before = connection.scalar(select(func.max(history.c.at)).where(of_series))
    series_uid = instances.c.series_instance_uid
    query = (
        select(
            studies.c.study_instance_uid, studies.c.patient_id, instances.c.calling_ae, instances.c.peer,
            instances.c.sop_class_uid, func.count().label("number"), func.max(instances.c.received_at).label("at"),
        )
        .join(series, series.c.series_instance_uid == series_uid)
        .join(studies, studies.c.study_instance_uid == series.c.study_instance_uid)
        .where(series_uid == change.entity_id, instances.c.received_at <= change.at)
        .group_by(
            studies.c.study_instance_uid, studies.c.patient_id, instances.c.calling_ae, instances.c.peer,
            instances.c.sop_class_uid,
        )
        .order_by(instances.c.calling_ae, instances.c.peer, instances.c.sop_class_uid)
    )  # fmt: skip
    if before is not None:
        query = query.where(instances.c.received_at > before)
    for (calling_ae, peer), found in groupby(connection.execute(query).all(), lambda row: (row.calling_ae, row.peer)):
        rows = list(found)
        classes = tuple((row.sop_class_uid, row.number) for row in rows)
        study_uid, patient_id = rows[0].study_instance_uid, rows[0].patient_id
        at = max(row.at for row in rows)
        yield SeriesReceived(at, study_uid, patient_id, calling_ae, peer, classes, before is not None)


def _sent(connection: Connection, change: Any) -> Iterator[AuditEvent]:
    query = (
        select(
            studies.c.study_instance_uid, studies.c.patient_id, deliveries.c.destination, results.c.sop_class_uid,
            results.c.sop_instance_uid,
        )
        .join(results, results.c.id == deliveries.c.result_id)
        .join(jobs, jobs.c.id == deliveries.c.job_id)
        .join(studies, studies.c.study_instance_uid == jobs.c.study_instance_uid)
        .where(deliveries.c.id == int(change.entity_id))
    )  # fmt: skip
    is_accepted = change.to_state == DeliveryState.ACCEPTED
    for row in connection.execute(query):
        yield ResultSent(change.at, *row, is_accepted=is_accepted, answer=change.why)


def _queried(connection: Connection, change: Any) -> Iterator[AuditEvent]:
    query = select(studies).where(studies.c.study_instance_uid == change.entity_id)
    for row in connection.execute(query).mappings():
        yield PriorQuery(change.at, study_of(row))


def _pulled(_connection: Connection, change: Any) -> Iterator[AuditEvent]:
    first, _, last = change.why.partition("-")
    yield NewStudiesQuery(change.at, change.entity_id, first, last)


def _refused(connection: Connection, change: Any) -> Iterator[AuditEvent]:
    columns = (quarantine.c.study_instance_uid, quarantine.c.calling_ae, quarantine.c.peer, quarantine.c.why)
    for row in connection.execute(select(*columns).where(quarantine.c.id == int(change.entity_id))):
        yield ObjectRefused(change.at, *row)
