"""What does a list of studies or jobs show? Filters, order, pages."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, or_, select

from .access_records import AuditAction
from .access_tables import audit
from .engine import Store
from .models import findings, jobs, series, studies
from .records import QA_PATIENT_ID, JobState, SeriesState, SortColumn, StudyState
from .rows import BURDEN_COLUMNS, JOB_COLUMNS, STUDY_COLUMNS, burden_of, job_of, part, study_of
from .worklist_records import JobSummary, WorklistFilters, WorklistRow

MOST_WORDS = 8
_SEPARATORS = re.compile(r"[\s,^=]+")  # between the parts of a name, as people and as DICOM write it

# Text sorts by meaning, not by alphabet: what needs a person first.
_URGENCY = {state: rank for rank, state in enumerate(("failed", "running", "queued", "held", "receiving", "analysed"))}


def _study_state() -> ColumnElement[str]:
    """State of the study's newest job; without one, receiving until it was routed, and ignored after."""
    # Not correlated: the few that are receiving are found once, not once a study.
    receiving = studies.c.study_instance_uid.in_(
        select(series.c.study_instance_uid).where(series.c.state == SeriesState.RECEIVING)
    )
    unrouted = or_(studies.c.routed_revision.is_(None), receiving)
    return case(
        (jobs.c.id.is_not(None), jobs.c.state),
        (and_(studies.c.held_since.is_not(None), ~receiving), StudyState.HELD.value),
        (unrouted, StudyState.RECEIVING.value),
        else_=StudyState.IGNORED.value,
    )


def _matches(filters: WorklistFilters, state: ColumnElement[str]) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = []
    if filters.states:
        conditions.append(state.in_(filters.states))
    if filters.priorities:
        conditions.append(jobs.c.priority.in_([int(p) for p in filters.priorities]))
    if filters.profiles:
        conditions.append(jobs.c.profile.in_(filters.profiles))
    if filters.received_from is not None:
        conditions.append(studies.c.first_received_at >= filters.received_from)
    if filters.received_until is not None:
        conditions.append(studies.c.first_received_at < filters.received_until)
    if filters.min_lesions is not None:
        conditions.append(findings.c.total >= filters.min_lesions)
    if filters.max_lesions is not None:
        conditions.append(findings.c.total <= filters.max_lesions)
    if filters.new_lesions:
        conditions.append(findings.c.new > 0)
    if filters.verified is not None:
        conditions.append(findings.c.verified_by != "" if filters.verified else findings.c.verified_by == "")
    if filters.unread:
        looked = and_(
            audit.c.study_instance_uid == studies.c.study_instance_uid,
            audit.c.action == AuditAction.STUDY,
            audit.c.at >= findings.c.created_at,
        )
        conditions += [findings.c.job_id.is_not(None), ~exists().where(looked)]
    if filters.fetched is not None:
        conditions.append(studies.c.fetched.is_(filters.fetched))
    if filters.phantoms is not None:
        conditions.append((studies.c.patient_id == QA_PATIENT_ID).is_(filters.phantoms))
    if filters.study_uids:
        conditions.append(studies.c.study_instance_uid.in_(filters.study_uids))
    if filters.patient_id:
        conditions.append(studies.c.patient_id == filters.patient_id)
    conditions += [_says(word) for word in _SEPARATORS.sub(" ", filters.text.lower()).split()[:MOST_WORDS]]
    return and_(True, *conditions)


def _says(word: str) -> ColumnElement[bool]:
    columns = (studies.c.patient_name, studies.c.patient_id, studies.c.accession_number, studies.c.study_description)
    return or_(*(func.lower(column).contains(word, autoescape=True) for column in columns))


def _order(sort: SortColumn, state: ColumnElement[str], descending: bool) -> list[ColumnElement[Any]]:
    key: ColumnElement[Any] = {
        SortColumn.RECEIVED: studies.c.first_received_at,
        SortColumn.PRIORITY: func.coalesce(jobs.c.priority, 99),
        SortColumn.BURDEN: func.coalesce(findings.c.total, -1),
        SortColumn.STATE: case(_URGENCY, value=state, else_=len(_URGENCY)),
        SortColumn.PATIENT: func.lower(studies.c.patient_name),
        SortColumn.CREATED: func.coalesce(jobs.c.id, 0),
    }[sort]
    newest = studies.c.first_received_at.desc()
    return [key.desc() if descending else key.asc(), newest, studies.c.study_instance_uid]


class Worklist(Store):
    """Lists for people."""

    def worklist(
        self,
        filters: WorklistFilters | None = None,
        sort: SortColumn = SortColumn.RECEIVED,
        *,
        descending: bool = True,
        limit: int = 100,
        offset: int = 0,
    ) -> list[WorklistRow]:
        """Studies with the job that stands for each now."""
        state = _study_state()
        chosen = self._studies(select(studies.c.study_instance_uid.label("uid")))
        chosen = chosen.where(_matches(filters or WorklistFilters(), state)).order_by(*_order(sort, state, descending))
        query = self._studies(select(*STUDY_COLUMNS, *JOB_COLUMNS, *BURDEN_COLUMNS, state.label("state")))
        # First which ones: sorting all of their columns would take most of the time.
        with self._read() as connection:
            uids = connection.scalars(chosen.limit(limit).offset(offset)).all()
            found = connection.execute(query.where(studies.c.study_instance_uid.in_(uids))).mappings()
            places = {uid: place for place, uid in enumerate(uids)}
            rows = sorted(found, key=lambda row: places[row["studies__study_instance_uid"]])
        return [
            WorklistRow(
                study=study_of(part(row, studies)),
                state=StudyState(row["state"]),
                job=job_of(part(row, jobs)) if row["jobs__id"] is not None else None,
                burden=burden_of(row),
            )
            for row in rows
        ]

    def count_worklist(self, filters: WorklistFilters | None = None) -> int:
        """How many studies the worklist has under these filters."""
        query = self._studies(select(func.count(studies.c.study_instance_uid)))
        with self._read() as connection:
            return connection.scalar(query.where(_matches(filters or WorklistFilters(), _study_state()))) or 0

    def count_states(self) -> dict[str, int]:
        """How many studies are in which state; not those that were only fetched to compare with, nor phantoms."""
        state = _study_state().label("state")
        columns: list[ColumnElement[Any]] = [state, func.count()]
        ordinary = and_(studies.c.fetched.is_(False), studies.c.patient_id != QA_PATIENT_ID)
        query = self._studies(select(*columns)).where(ordinary).group_by(state)
        with self._read() as connection:
            return {str(name): int(number) for name, number in connection.execute(query)}

    def has_fetched_studies(self) -> bool:
        """Whether there are studies that were only fetched to compare later ones with."""
        with self._read() as connection:
            return connection.scalar(select(studies.c.study_instance_uid).where(studies.c.fetched).limit(1)) is not None

    def profiles_used(self) -> list[str]:
        """Every profile that a job was opened with."""
        with self._read() as connection:
            return sorted(connection.scalars(select(jobs.c.profile).distinct()))

    def jobs(
        self,
        filters: WorklistFilters | None = None,
        sort: SortColumn = SortColumn.CREATED,
        *,
        descending: bool = True,
        limit: int = 100,
        offset: int = 0,
    ) -> list[JobSummary]:
        """Jobs with their studies."""
        filters = filters or WorklistFilters()
        query = (
            select(*STUDY_COLUMNS, *JOB_COLUMNS, *BURDEN_COLUMNS)
            .select_from(jobs)
            .join(studies, studies.c.study_instance_uid == jobs.c.study_instance_uid)
            .outerjoin(findings, findings.c.job_id == jobs.c.id)
            .where(_matches(filters, jobs.c.state))
            .order_by(*_order(sort, jobs.c.state, descending))
        )
        if not filters.superseded:
            query = query.where(jobs.c.superseded_by.is_(None), jobs.c.state != JobState.SUPERSEDED)
        with self._read() as connection:
            rows = connection.execute(query.limit(limit).offset(offset)).mappings().all()
        return [JobSummary(job_of(part(r, jobs)), study_of(part(r, studies)), burden_of(r)) for r in rows]

    @staticmethod
    def _studies(query: Select[Any]) -> Select[Any]:
        return (
            query.select_from(studies)
            .outerjoin(jobs, jobs.c.id == studies.c.current_job_id)
            .outerjoin(findings, findings.c.job_id == jobs.c.id)
        )
