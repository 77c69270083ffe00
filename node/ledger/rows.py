"""How does a table row become a record?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Table

from .models import findings, jobs, studies
from .records import (
    Correction,
    Delivery,
    DeliveryState,
    InstanceRecord,
    Job,
    JobState,
    Priority,
    ResultFile,
    SeriesRecord,
    SeriesState,
    StudyRecord,
)
from .worklist_records import FindingCounts

Row = RowMapping | Mapping[str, Any]


def _take(kind: type, row: Row, **given: Any) -> dict[str, Any]:
    """The values of the fields of `kind` that the row holds under the same name."""
    return {f.name: given[f.name] if f.name in given else row[f.name] for f in fields(kind)}


def study_of(row: Row) -> StudyRecord:
    """A row of `studies`."""
    return StudyRecord(**_take(StudyRecord, row))


def series_of(row: Row) -> SeriesRecord:
    """A row of `series`."""
    return SeriesRecord(**_take(SeriesRecord, row, state=SeriesState(row["state"])))


def instance_of(row: Row) -> InstanceRecord:
    """A row of `instances`."""
    return InstanceRecord(**_take(InstanceRecord, row))


def job_of(row: Row) -> Job:
    """A row of `jobs`."""
    return Job(
        **_take(
            Job,
            row,
            state=JobState(row["state"]),
            priority=Priority(row["priority"]),
            destinations=tuple(row["destinations"]),
            warnings=tuple(row["warnings"]),
            correction=None if row["correction"] is None else Correction.from_json(row["correction"]),
        )
    )


def result_of(row: Row) -> ResultFile:
    """A row of `results`."""
    return ResultFile(**_take(ResultFile, row))


def delivery_of(row: Row, result: ResultFile) -> Delivery:
    """A row of `deliveries` with its object."""
    given = {"state": DeliveryState(row["state"]), "priority": Priority(row["priority"]), "result": result}
    return Delivery(**_take(Delivery, row, **given))


def labelled(table: Table) -> list[ColumnElement[Any]]:
    """The columns of `table` under the names ``table__column``, for joins."""
    return [column.label(f"{table.name}__{column.name}") for column in table.columns]


def part(row: Row, table: Table) -> dict[str, Any]:
    """The row of `table` within a row of labelled columns."""
    return {column.name: row[f"{table.name}__{column.name}"] for column in table.columns}


def burden_of(row: Row) -> FindingCounts | None:
    """The lesion counts in a row with the counts of `findings`, labelled."""
    if row["findings__total"] is None:
        return None
    return FindingCounts(**{column.name: row[f"findings__{column.name}"] for column in _BURDEN})


_BURDEN = [findings.c[field.name] for field in fields(FindingCounts)]
BURDEN_COLUMNS = [column.label(f"findings__{column.name}") for column in _BURDEN]
JOB_COLUMNS = labelled(jobs)
STUDY_COLUMNS = labelled(studies)
