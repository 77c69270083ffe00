"""What has been received? Instances, the associations that sent them, series that settle, the quarantine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from math import isfinite
from typing import Any

from sqlalchemy import Connection, Executable, and_, bindparam, exists, insert, or_, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from .engine import Store, clean, locked
from .group_commit import GroupCommit
from .models import associations, instances, quarantine, series, studies
from .prior_requests import is_being_fetched
from .pulls import is_being_pulled
from .records import NewInstance, ReceivingSeries, SeriesState, StorageOutcome, StudyRecord
from .rows import study_of

_MAX_INTEGER = 2**31 - 1
_ACTOR = "receiver"
_STUDY_TEXT = (
    "patient_id",
    "issuer_of_patient_id",
    "patient_name",
    "patient_birth_date",
    "patient_sex",
    "accession_number",
    "study_date",
    "study_time",
    "study_description",
    "referring_physician",
)
_SERIES_TEXT = ("modality", "manufacturer", "body_part", "station_name", "institution", "calling_ae")


# Statements for every instance that arrives, made once: SQLAlchemy takes longer to make one than the database to do it.
_COUNT = (
    update(series)
    .where(series.c.series_instance_uid == bindparam("of_series"))
    .values(instance_count=series.c.instance_count + 1, last_instance_at=bindparam("at"))
)


@cache
def _insert_next(dialect: str) -> Executable:
    """The statement that inserts a new instance of a series that is being received, and locks that series."""
    insert_into = postgresql.insert if dialect == "postgresql" else sqlite.insert
    receiving = locked(
        select(series.c.series_instance_uid)
        .join(studies)
        .where(
            series.c.series_instance_uid == bindparam("of_series"),
            series.c.study_instance_uid == bindparam("of_study"),
            series.c.state == SeriesState.RECEIVING,
            studies.c.fetched.is_(False),
        ),
        of=series,
    ).subquery()
    columns = [column for column in instances.c if column is not instances.c.removed_at]
    values = [bindparam(column.name, type_=column.type) for column in columns]
    rows = select(*values).select_from(receiving).where(true())  # SQLite needs a WHERE before ON CONFLICT
    return (
        insert_into(instances)
        .from_select(columns, rows, include_defaults=False)
        .on_conflict_do_nothing()
        .returning(instances.c.sop_instance_uid)
    )


@cache
def _note_sending(dialect: str) -> Executable:
    """The statement by which an association sends images of a series, and has not ended."""
    insert_into = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert_into(associations).on_conflict_do_update(
        index_elements=[associations.c.series_instance_uid, associations.c.association],
        set_={"ended_at": None, "released": False},
        where=associations.c.ended_at.is_not(None),
    )


class _RacedError(Exception):
    """Another transaction inserted the same instance first."""


class Intake(Store):
    """Instances and series as they arrive."""

    def _take_turns(self) -> None:
        super()._take_turns()
        self._group_commit = GroupCommit(self._record_all, self._record_alone)

    def record_instance(self, record: NewInstance) -> StorageOutcome:
        """Enter an instance that the archive holds, in one transaction.

        A new instance of a settled series reopens the series (state receiving, revision + 1). The same instance again
        changes nothing; the same UID with other content, or a series UID of another study, is a conflict and changes
        nothing. On SQLite the instances that several threads enter at the same moment share one commit.
        """
        if self.engine.dialect.name == "sqlite":
            return self._group_commit.do(record)
        try:
            return self._record_alone(record)
        except _RacedError:  # now it exists
            return self._record_alone(record)

    def _record_alone(self, record: NewInstance) -> StorageOutcome:
        with self._write() as connection:
            return self._record(connection, record)

    def _record_all(self, records: Sequence[NewInstance]) -> list[StorageOutcome]:
        with self._write() as connection:
            return [self._record(connection, record) for record in records]

    def _record(self, connection: Connection, record: NewInstance) -> StorageOutcome:
        if self._enter_next(connection, record):
            return StorageOutcome.NEW
        outcome = self._enter(connection, record)
        self._note_sent(connection, record)  # last: the row of a study is locked after those of its series
        return outcome

    def _enter_next(self, connection: Connection, record: NewInstance) -> bool:
        """Enter a new instance of a series that is being received, in few statements: nearly all are.

        Any other instance changes nothing here.
        """
        uids = {"of_series": record.series_instance_uid, "of_study": record.study_instance_uid}
        if connection.scalar(_insert_next(connection.dialect.name), _values(record) | uids) is None:
            return False
        connection.execute(_COUNT, {"of_series": record.series_instance_uid, "at": record.received_at})
        self._note_association(connection, record)
        return True

    def _enter(self, connection: Connection, record: NewInstance) -> StorageOutcome:
        columns = (instances.c.sha256, instances.c.removed_at, instances.c.series_instance_uid)
        known = connection.execute(
            select(*columns).where(instances.c.sop_instance_uid == record.sop_instance_uid)
        ).one_or_none()
        if known is not None and (known.sha256 != record.sha256):
            return StorageOutcome.CONFLICT
        if known is not None and known.series_instance_uid != record.series_instance_uid:
            return StorageOutcome.CONFLICT
        if known is not None and known.removed_at is None:
            self._note_association(connection, record, only_receiving=True)
            return StorageOutcome.DUPLICATE
        row = self._lock_or_create_series(connection, record)
        if row["study_instance_uid"] != record.study_instance_uid:
            return StorageOutcome.CONFLICT
        self._store(connection, record, again=known is not None)
        self._count(connection, record, row)
        self._note_association(connection, record)
        return StorageOutcome.NEW

    def _note_sent(self, connection: Connection, record: NewInstance) -> None:
        """Route a study that was fetched for comparison and is now sent like any other study."""
        where = studies.c.study_instance_uid == record.study_instance_uid
        if not connection.scalar(select(studies.c.fetched).where(where)) or _is_requested(connection, record):
            return
        values = {"fetched": False, "revision": studies.c.revision + 1}
        connection.execute(update(studies).where(where).values(values))
        why = f"sent by {record.calling_ae or record.peer}"
        self._log(connection, "study", record.study_instance_uid, "for comparison only", "sent", why, _ACTOR)

    def _store(self, connection: Connection, record: NewInstance, *, again: bool) -> None:
        """Insert the instance, or restore one whose file retention had removed."""
        if again:
            where = instances.c.sop_instance_uid == record.sop_instance_uid
            values = {"path": record.path, "received_at": record.received_at, "removed_at": None}
            connection.execute(update(instances).where(where).values(values))
        elif not self._insert_missing(connection, instances, _values(record)):
            raise _RacedError

    def _lock_or_create_series(self, connection: Connection, record: NewInstance) -> Any:
        columns = (series.c.series_instance_uid, series.c.study_instance_uid, series.c.state, series.c.instance_count)
        query = locked(select(*columns).where(series.c.series_instance_uid == record.series_instance_uid))
        row = connection.execute(query).mappings().one_or_none()
        if row is None:
            self._create_series(connection, record)
            row = connection.execute(query).mappings().one()
        return row

    def _create_series(self, connection: Connection, record: NewInstance) -> None:
        at = record.received_at
        study: dict[str, Any] = {name: clean(getattr(record, name)) for name in _STUDY_TEXT}
        study |= {"study_instance_uid": record.study_instance_uid, "first_received_at": at, "last_received_at": at}
        study["fetched"] = _is_requested(connection, record)
        self._insert_missing(connection, studies, study)
        values: dict[str, Any] = {name: clean(getattr(record, name)) for name in _SERIES_TEXT}
        values |= {
            "series_instance_uid": record.series_instance_uid,
            "study_instance_uid": record.study_instance_uid,
            "series_number": _integer(record.series_number),
            "description": clean(record.series_description),
            "state": SeriesState.RECEIVING,
            "first_instance_at": at,
            "last_instance_at": at,
        }
        if self._insert_missing(connection, series, values):
            self._log(connection, "series", record.series_instance_uid, "", SeriesState.RECEIVING, "", _ACTOR)
            self._revise_study(connection, record)

    def _count(self, connection: Connection, record: NewInstance, row: Any) -> None:
        """Count the new instance; reopen the series if it had settled."""
        where = series.c.series_instance_uid == record.series_instance_uid
        values: dict[str, Any] = {
            "instance_count": series.c.instance_count + 1,
            "last_instance_at": record.received_at,
        }
        if row["state"] == SeriesState.RECEIVING:
            connection.execute(update(series).where(where).values(values))
            return
        why = f"reopened: instance {record.sop_instance_uid} arrived after {row['instance_count']} others had settled"
        revision = series.c.revision + 1
        self._change(connection, series, row, SeriesState.RECEIVING, why=why, actor=_ACTOR, revision=revision, **values)
        self._revise_study(connection, record)

    @staticmethod
    def _revise_study(connection: Connection, record: NewInstance) -> None:
        """Have the study routed again."""
        where = studies.c.study_instance_uid == record.study_instance_uid
        values = {"revision": studies.c.revision + 1, "last_received_at": record.received_at, "removed_at": None}
        connection.execute(update(studies).where(where).values(values))

    @staticmethod
    def _note_association(connection: Connection, record: NewInstance, *, only_receiving: bool = False) -> None:
        """Record that this association sends images of the series and has not ended."""
        if only_receiving:
            where = series.c.series_instance_uid == record.series_instance_uid
            if connection.scalar(select(series.c.state).where(where)) != SeriesState.RECEIVING:
                return
        sent = {"series_instance_uid": record.series_instance_uid, "association": record.association}
        connection.execute(_note_sending(connection.dialect.name), sent)

    def release_series(
        self, series_uids: Iterable[str], at: datetime, *, association: str = "", aborted: bool = False
    ) -> None:
        """Record that the association that sent images of these series was released or aborted."""
        where = and_(
            associations.c.series_instance_uid.in_(sorted(set(series_uids))),
            associations.c.association == association,
            associations.c.ended_at.is_(None),
        )
        with self._write() as connection:
            connection.execute(update(associations).where(where).values(ended_at=at, released=not aborted))

    def abandon_associations(self, at: datetime, prefix: str = "") -> int:
        """Record all open associations whose name starts with `prefix` as aborted, when their receiver restarts."""
        where = and_(associations.c.ended_at.is_(None), associations.c.association.startswith(prefix, autoescape=True))
        with self._write() as connection:
            return connection.execute(update(associations).where(where).values(ended_at=at, released=False)).rowcount

    def quarantine(self, record: NewInstance, path: str, why: str) -> int:
        """Enter an object that is in quarantine under `path`; return its number."""
        values = {
            "at": record.received_at,
            "path": path,
            "why": clean(why),
            "sop_instance_uid": clean(record.sop_instance_uid),
            "series_instance_uid": clean(record.series_instance_uid),
            "study_instance_uid": clean(record.study_instance_uid),
            "size": record.size,
            "sha256": record.sha256,
            "calling_ae": clean(record.calling_ae),
            "peer": clean(record.peer),
        }
        with self._write() as connection:
            inserted = connection.execute(insert(quarantine).values(values)).inserted_primary_key
            number = int(inserted[0]) if inserted else 0
            self._log(connection, "quarantine", number, "", "quarantined", why, _ACTOR)
            return number

    def series_receiving(self, quiet_since: datetime | None = None) -> list[ReceivingSeries]:
        """Series that have not settled, with the evidence; only those without a new instance since `quiet_since`."""
        where = series.c.state == SeriesState.RECEIVING
        if quiet_since is not None:
            where = and_(where, series.c.last_instance_at <= quiet_since)
        columns = ("series_instance_uid", "study_instance_uid", "modality", "revision", "last_instance_at")
        with self._read() as connection:
            rows = connection.execute(select(*(series.c[name] for name in columns)).where(where)).mappings().all()
            return [self._with_evidence(connection, ReceivingSeries(**row, **_NO_EVIDENCE)) for row in rows]

    @staticmethod
    def _with_evidence(connection: Connection, row: ReceivingSeries) -> ReceivingSeries:
        uid = row.series_instance_uid
        sent = connection.execute(
            select(associations.c.ended_at, associations.c.released)
            .where(associations.c.series_instance_uid == uid)
            .order_by(associations.c.ended_at)
        ).all()
        ended = [a for a in sent if a.ended_at is not None]
        places = connection.execute(
            select(instances.c.orientation, instances.c.position, instances.c.number_of_frames).where(
                instances.c.series_instance_uid == uid
            )
        ).all()
        return replace(
            row,
            open_associations=len(sent) - len(ended),
            last_ended_released=bool(ended and ended[-1].released),
            places=tuple((p.orientation, p.position, p.number_of_frames) for p in places),
        )

    def settle_series(
        self, uid: str, why: str, *, whole: bool = True, seen: datetime | None = None, actor: str = "settling"
    ) -> bool:
        """Settle a series that is being received, unless an instance came after `seen`; return whether it settled.

        `whole` says that there is evidence that no image is missing.
        """
        with self._write() as connection:
            query = locked(select(series).where(series.c.series_instance_uid == uid))
            row = connection.execute(query).mappings().one_or_none()
            if row is None or row["state"] != SeriesState.RECEIVING:
                return False
            if seen is not None and row["last_instance_at"] > seen:
                return False
            values = {"whole": whole, "settled_why": clean(why)}
            self._change(connection, series, row, SeriesState.SETTLED, why=why, actor=actor, **values)
            where = studies.c.study_instance_uid == row["study_instance_uid"]
            later = and_(where, studies.c.last_received_at < row["last_instance_at"])
            connection.execute(update(studies).where(later).values(last_received_at=row["last_instance_at"]))
            return True

    def studies_ready(self) -> list[StudyRecord]:
        """Studies with nothing being received and something new since they were last routed, oldest first."""
        receiving = exists().where(
            series.c.study_instance_uid == studies.c.study_instance_uid, series.c.state == SeriesState.RECEIVING
        )
        new = or_(studies.c.routed_revision.is_(None), studies.c.routed_revision != studies.c.revision)
        query = select(studies).where(new, ~receiving).order_by(studies.c.first_received_at)
        with self._read() as connection:
            return [study_of(row) for row in connection.execute(query).mappings()]


_NO_EVIDENCE: dict[str, Any] = {"open_associations": 0, "last_ended_released": False, "places": ()}


def _values(record: NewInstance) -> dict[str, Any]:
    """The row of an instance."""
    position = record.position if record.position is not None and isfinite(record.position) else None
    return {
        "sop_instance_uid": record.sop_instance_uid,
        "series_instance_uid": record.series_instance_uid,
        "sop_class_uid": record.sop_class_uid,
        "transfer_syntax_uid": record.transfer_syntax_uid,
        "path": record.path,
        "size": record.size,
        "sha256": record.sha256,
        "number_of_frames": _integer(record.number_of_frames) or 1,
        "orientation": clean(record.orientation),
        "position": position,
        "calling_ae": clean(record.calling_ae),
        "peer": clean(record.peer),
        "received_at": record.received_at,
    }


def _is_requested(connection: Connection, record: NewInstance) -> bool:
    """Whether the node requested an image only to compare a later study with."""
    if record.requested is False or is_being_pulled(connection, record.study_instance_uid, record.received_at):
        return False
    return is_being_fetched(connection, record.study_instance_uid, record.received_at, named=bool(record.requested))


def _integer(value: int | None) -> int | None:
    """Return a number that the column can hold, else ``None``; a header may hold any number."""
    return value if value is not None and -_MAX_INTEGER <= value <= _MAX_INTEGER else None
