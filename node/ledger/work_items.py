"""Which work items are open at the worklist manager, and what was it last told of each?

The jobs are the truth, and a work item shows the manager the state of one. A row says what the manager has, as far as
the node knows; whoever tells it more moves `next_at` ahead first, so that only one process does, and another if that
one dies. If a job is superseded, its item goes on with the successor; only what the manager has as COMPLETED or
CANCELED stays as it is, and work that goes on after that gets another item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, insert, or_, select, update

from .engine import Store, clean
from .jobs import OVER
from .models import instances, jobs, series, studies
from .records import QA_PATIENT_ID, JobState, SeriesState
from .rows import Row
from .supersession import LIVE
from .work_item_records import WorkItem, WorkItemBacklog, WorkItemInput, WorkItemState
from .work_item_tables import work_items

_ACTOR = "work items"
LEASE_S = 120.0
"""Who tells the manager about an item, or fetches its images, has this long; then another process may."""
_LOOK_BACK = timedelta(days=2)
_BEGIN = "begin"
"""The row that says since when there is a manager; it is told nothing of earlier jobs."""
_OPEN = work_items.c.ended_at.is_(None)


class WorkItems(Store):
    """Work items: new → SCHEDULED → IN PROGRESS → COMPLETED or CANCELED."""

    def begin_work_items(self) -> bool:
        """Tell the manager about jobs from now on; whether this is new."""
        with self._write() as connection:
            values = {**self._new_item(_BEGIN, "", WorkItemState.NEW), "ended_at": self._clock()}
            return self._insert_missing(connection, work_items, values)

    def end_work_items(self) -> None:
        """Tell nothing more: there is no manager. If there is one again, it is told of jobs from then on."""
        with self._read() as connection:
            if connection.scalar(select(work_items.c.workitem_uid).limit(1)) is None:
                return
        with self._write() as connection:
            connection.execute(delete(work_items).where(work_items.c.workitem_uid == _BEGIN))
            values = {"ended_at": self._clock(), "why": "there is no worklist manager any more"}
            connection.execute(update(work_items).where(_OPEN).values(values))

    def follow_jobs(self, *, create: bool) -> None:
        """Have each open item show the job that stands for its study now; with `create` open items for new jobs."""
        with self._read() as connection:
            if not any((_moves(connection), create and self._without_item(connection))):
                return
        with self._write() as connection:
            for item_uid, job_id in _moves(connection):
                connection.execute(_one(item_uid).values(job_id=job_id))
            for job in self._without_item(connection) if create else ():
                newest = _newest_of(connection, job["id"])
                item = {
                    **self._new_item(_new_uid(), job["study_instance_uid"], WorkItemState.NEW),
                    "job_id": job["id"],
                    "replaces": newest["workitem_uid"] if newest is not None else None,
                }
                connection.execute(insert(work_items).values(item))
                why = f"job {job['id']}"
                self._log(connection, "work item", item["workitem_uid"], "", WorkItemState.NEW, why, _ACTOR)

    def _new_item(self, item_uid: str, study_uid: str, state: WorkItemState) -> dict[str, Any]:
        now = self._clock()
        return {
            "workitem_uid": item_uid,
            "study_instance_uid": study_uid,
            "state": state,
            "transaction_uid": _new_uid(),
            "inputs": [],
            "next_at": now,
            "created_at": now,
        }

    def _without_item(self, connection: Connection) -> list[Row]:
        """Jobs that need an item: new ones, and those that go on after theirs was cancelled."""
        begun = connection.scalar(select(work_items.c.created_at).where(work_items.c.workitem_uid == _BEGIN))
        if begun is None:
            return []
        has_item = exists().where(work_items.c.job_id == jobs.c.id)
        is_told = exists().where(work_items.c.job_id == jobs.c.id, or_(_OPEN, work_items.c.state != "CANCELED"))
        awaited = exists().where(
            work_items.c.study_instance_uid == jobs.c.study_instance_uid, work_items.c.job_id.is_(None), _OPEN
        )
        active = and_(jobs.c.state.not_in(OVER), ~is_told)
        ended = and_(jobs.c.state.in_(OVER), jobs.c.finished_at > self._clock() - _LOOK_BACK, ~has_item)
        query = (
            select(jobs.c.id, jobs.c.study_instance_uid)
            .join(studies, studies.c.study_instance_uid == jobs.c.study_instance_uid)
            .where(LIVE, jobs.c.created_at >= begun, jobs.c.correction.is_(None), or_(active, ended), ~awaited)
            .where(studies.c.fetched.is_(False), studies.c.patient_id != QA_PATIENT_ID)
            .order_by(jobs.c.id)
        )
        return list(connection.execute(query).mappings())

    def claim_scheduled(self, item_uid: str, inputs: Sequence[WorkItemInput]) -> bool:
        """Enter an item of the manager, before it is claimed there; false if it is known already."""
        values = {
            **self._new_item(item_uid, inputs[0].study_instance_uid, WorkItemState.SCHEDULED),
            "claimed": True,
            "inputs": [asdict(one) for one in inputs],
            "fetch_at": self._clock(),
        }
        with self._write() as connection:
            is_new = self._insert_missing(connection, work_items, values)
            if is_new:
                why = "found at the worklist manager"
                self._log(connection, "work item", item_uid, "", WorkItemState.SCHEDULED, why, _ACTOR)
            return is_new

    def is_known_work_item(self, item_uid: str) -> bool:
        """Whether the ledger has this item, open or ended."""
        with self._read() as connection:
            query = select(work_items.c.workitem_uid).where(work_items.c.workitem_uid == item_uid)
            return connection.scalar(query) is not None

    def due_work_items(self) -> list[WorkItem]:
        """Items to look after now: their time has come, or their job has changed since the manager was told."""
        changed = and_(work_items.c.attempts == 0, func.coalesce(jobs.c.state, "") != work_items.c.told_job_state)
        due = or_(work_items.c.next_at <= self._clock(), changed)
        query = select(work_items).outerjoin(jobs, jobs.c.id == work_items.c.job_id).where(_OPEN, due)
        with self._read() as connection:
            return [_item_of(row) for row in connection.execute(query.order_by(work_items.c.created_at)).mappings()]

    def due_fetches(self) -> list[WorkItem]:
        """Items of the manager that this node has claimed and whose images are to be fetched now."""
        due = and_(work_items.c.state == WorkItemState.IN_PROGRESS, work_items.c.fetch_at <= self._clock(), _OPEN)
        query = select(work_items).where(due, work_items.c.failure == "").order_by(work_items.c.created_at)
        with self._read() as connection:
            return [_item_of(row) for row in connection.execute(query).mappings()]

    def take_work_item(self, item: WorkItem) -> bool:
        """Take an item to tell the manager about it (attempts + 1); false if another process has."""
        values = {"next_at": self._clock() + timedelta(seconds=LEASE_S), "attempts": item.attempts + 1}
        untouched = and_(work_items.c.next_at == item.next_at, work_items.c.attempts == item.attempts, _OPEN)
        with self._write() as connection:
            return connection.execute(_one(item.workitem_uid).where(untouched).values(values)).rowcount == 1

    def take_fetch(self, item: WorkItem, lease_s: float) -> bool:
        """Take an item to fetch its images; false if another process has."""
        values = {"fetch_at": self._clock() + timedelta(seconds=lease_s), "fetch_attempts": item.fetch_attempts + 1}
        untouched = and_(work_items.c.fetch_at == item.fetch_at, _OPEN)
        with self._write() as connection:
            return connection.execute(_one(item.workitem_uid).where(untouched).values(values)).rowcount == 1

    def note_work_item(self, item_uid: str, state: WorkItemState, **values: Any) -> WorkItem:
        """Record the state of an item at the manager, and other values of its row."""
        values = {name: clean(value) if isinstance(value, str) else value for name, value in values.items()}
        with self._write() as connection:
            where = work_items.c.workitem_uid == item_uid
            before = connection.scalar(select(work_items.c.state).where(where))
            connection.execute(update(work_items).where(where).values(state=state, **values))
            if before != state:
                self._log(connection, "work item", item_uid, str(before), state, values.get("why", ""), _ACTOR)
            return _item_of(connection.execute(select(work_items).where(where)).mappings().one())

    def work_item_told(self, item: WorkItem, next_s: float, **values: Any) -> WorkItem:
        """Record that the manager was told all about an item; it is looked at again after `next_s` seconds."""
        next_at = self._clock() + timedelta(seconds=next_s)
        return self.note_work_item(item.workitem_uid, item.state, next_at=next_at, attempts=0, **{"why": "", **values})

    def postpone_work_item(self, item: WorkItem, pause_s: float, why: str) -> None:
        """Record that the manager could not be told, and why; it is told after a pause."""
        next_at = self._clock() + timedelta(seconds=pause_s)
        with self._write() as connection:
            connection.execute(_one(item.workitem_uid).values(next_at=next_at, why=clean(why)))

    def end_work_item(self, item: WorkItem, state: WorkItemState, why: str) -> None:
        """Record that nothing more is to be told about an item."""
        self.note_work_item(item.workitem_uid, state, ended_at=self._clock(), attempts=0, why=why)

    def fetch_ended(self, item: WorkItem, retry_s: float | None = None, failure: str = "") -> None:
        """Record that the images of an item are here, or why not and when they are fetched again."""
        fetch_at = None if retry_s is None else self._clock() + timedelta(seconds=retry_s)
        values = {"fetch_at": fetch_at, "failure": clean(failure), "next_at": self._clock()}
        with self._write() as connection:
            if retry_s is not None:
                connection.execute(_one(item.workitem_uid).values(fetch_at=fetch_at))
                return
            connection.execute(_one(item.workitem_uid).values(values))
            where = and_(studies.c.study_instance_uid == item.study_instance_uid, studies.c.fetched)
            asked = {"fetched": False, "revision": studies.c.revision + 1}
            if not failure and connection.execute(update(studies).where(where).values(asked)).rowcount:
                why = f"work item {item.workitem_uid}"
                self._log(
                    connection, "study", item.study_instance_uid, "for comparison only", "sent", why, "work items"
                )

    def missing_inputs(self, inputs: Sequence[WorkItemInput]) -> list[WorkItemInput]:
        """The inputs of which images are not in the archive."""
        with self._read() as connection:
            return [one for one in inputs if not _is_here(connection, one)]

    def study_awaits(self, study_uid: str) -> str | None:
        """Why a study without a job has none; ``None`` while that is still to be decided."""
        with self._read() as connection:
            row = (
                connection.execute(select(studies).where(studies.c.study_instance_uid == study_uid)).mappings().first()
            )
            if row is None or not _is_decided(connection, row):
                return None
            return str(row["why"]) or "nothing of it can be analysed"

    def open_work_items(self) -> list[WorkItem]:
        """Every open item, the oldest first."""
        with self._read() as connection:
            rows = connection.execute(select(work_items).where(_OPEN).order_by(work_items.c.created_at)).mappings()
            return [_item_of(row) for row in rows]

    def work_items_of(self, study_uid: str) -> list[WorkItem]:
        """The items of a study, the oldest first."""
        query = select(work_items).where(work_items.c.study_instance_uid == study_uid).order_by(work_items.c.created_at)
        with self._read() as connection:
            return [_item_of(row) for row in connection.execute(query).mappings()]

    def work_item_backlog(self) -> WorkItemBacklog:
        """Open items by state, how many the manager has not been told about, and why."""
        untold = func.coalesce(jobs.c.state, "") != work_items.c.told_job_state
        query = select(work_items.c.state, work_items.c.why, untold).outerjoin(jobs, jobs.c.id == work_items.c.job_id)
        with self._read() as connection:
            rows = connection.execute(query.where(_OPEN).order_by(work_items.c.next_at)).all()
        by_state: dict[str, int] = {}
        for state, _, _ in rows:
            by_state[state] = by_state.get(state, 0) + 1
        return WorkItemBacklog(
            by_state, sum(bool(row[2]) for row in rows), next((str(why) for _, why, _ in rows if why), "")
        )

    def forget_work_items(self, before: datetime) -> int:
        """Remove items that ended before a time."""
        old = and_(work_items.c.ended_at < before, work_items.c.workitem_uid != _BEGIN)
        with self._write() as connection:
            return connection.execute(delete(work_items).where(old)).rowcount


def _new_uid() -> str:
    return f"2.25.{uuid4().int}"


def _one(item_uid: str) -> Any:
    return update(work_items).where(work_items.c.workitem_uid == item_uid)


def _newest_of(connection: Connection, job_id: int) -> Row | None:
    query = select(work_items).where(work_items.c.job_id == job_id).order_by(work_items.c.created_at.desc())
    return connection.execute(query.limit(1)).mappings().one_or_none()


def _moves(connection: Connection) -> list[tuple[str, int | None]]:
    """Open items that are to show another job than they do."""
    return [*_superseded(connection), *_bound(connection)]


def _superseded(connection: Connection) -> Iterator[tuple[str, int | None]]:
    replaced = or_(jobs.c.superseded_by.is_not(None), jobs.c.state == JobState.SUPERSEDED)
    query = select(work_items.c.workitem_uid, jobs).join(jobs, jobs.c.id == work_items.c.job_id).where(_OPEN, replaced)
    for row in connection.execute(query).mappings().all():
        job: Row | None = row
        while job is not None and job["superseded_by"] is not None:
            successor = select(jobs).where(jobs.c.id == job["superseded_by"])
            job = connection.execute(successor).mappings().one_or_none()
        yield row["workitem_uid"], job["id"] if job is not None and job["state"] != JobState.SUPERSEDED else None


def _bound(connection: Connection) -> Iterator[tuple[str, int | None]]:
    """Items whose images are here, and the job that routing has opened for them."""
    waits = and_(work_items.c.job_id.is_(None), work_items.c.fetch_at.is_(None), work_items.c.failure == "", _OPEN)
    query = (
        select(work_items.c.workitem_uid, studies)
        .join(studies, studies.c.study_instance_uid == work_items.c.study_instance_uid)
        .where(waits)
    )
    for row in connection.execute(query).mappings().all():
        live = select(jobs.c.id).where(jobs.c.study_instance_uid == row["study_instance_uid"], LIVE)
        job_id = connection.scalar(live.order_by(jobs.c.id.desc()).limit(1))
        if job_id is not None and _is_decided(connection, row):
            yield row["workitem_uid"], int(job_id)


def _is_decided(connection: Connection, study: Row) -> bool:
    """Whether the study is complete and routed."""
    receiving = and_(
        series.c.study_instance_uid == study["study_instance_uid"], series.c.state == SeriesState.RECEIVING
    )
    busy = connection.scalar(select(series.c.series_instance_uid).where(receiving).limit(1)) is not None
    return not busy and study["routed_revision"] == study["revision"] and not study["fetched"]


def _is_here(connection: Connection, wanted: WorkItemInput) -> bool:
    here: list[ColumnElement[bool]] = [instances.c.removed_at.is_(None)]
    if wanted.sop_instance_uids:
        stored = select(func.count()).where(instances.c.sop_instance_uid.in_(wanted.sop_instance_uids), *here)
        return connection.scalar(stored) == len(set(wanted.sop_instance_uids))
    query = select(instances.c.sop_instance_uid).join(
        series, series.c.series_instance_uid == instances.c.series_instance_uid
    )
    here.append(series.c.study_instance_uid == wanted.study_instance_uid)
    if wanted.series_instance_uid:
        here.append(series.c.series_instance_uid == wanted.series_instance_uid)
    return connection.scalar(query.where(*here).limit(1)) is not None


def _item_of(row: Row) -> WorkItem:
    inputs = tuple(
        WorkItemInput(**{**one, "sop_instance_uids": tuple(one["sop_instance_uids"])}) for one in row["inputs"]
    )
    return WorkItem(**{**row, "state": WorkItemState(row["state"]), "inputs": inputs})
