"""What stands on the worklist? Ledger records become plain values; templates only lay them out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from node.ledger import Ledger
from node.ledger.records import (
    Burden,
    Counts,
    DeliveryState,
    Filters,
    JobState,
    Priority,
    StudyState,
    WorklistRow,
)
from node.worklist import words

PAGE_SIZE = 100


@dataclass(frozen=True)
class Tile:
    """A number at the head of the worklist."""

    number: int
    label: str
    tone: str


@dataclass(frozen=True)
class StudyLine:
    """A study as one line of the worklist."""

    uid: str
    patient_name: str
    patient_id: str
    study_description: str
    study_date: str
    accession_number: str
    state: str
    tone: str
    why: str
    burden: Burden | None
    priority: str
    urgent: bool
    received_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class WorklistPage:
    """The table of studies, the numbers above it, and where to turn the page."""

    url: str
    tiles: tuple[Tile, ...]
    notices: tuple[str, ...]
    lines: tuple[StudyLine, ...]
    newer: str | None
    older: str | None


def worklist_page(ledger: Ledger, page: int = 0) -> WorklistPage:
    """The studies, the newest first; `page` counts from 0."""
    rows = ledger.worklist(limit=PAGE_SIZE + 1, offset=page * PAGE_SIZE)
    counts = ledger.counts()
    return WorklistPage(
        url=_page_url(page),
        tiles=_tiles(counts),
        notices=_notices(counts),
        lines=tuple(study_line(row, unsent_why(ledger, row)) for row in rows[:PAGE_SIZE]),
        newer=_page_url(page - 1) if page else None,
        older=_page_url(page + 1) if len(rows) > PAGE_SIZE else None,
    )


def _page_url(page: int) -> str:
    return f"/?page={page}" if page else "/"


def _tiles(counts: Counts) -> tuple[Tile, ...]:
    jobs = counts.jobs
    return (
        Tile(counts.series.get("receiving", 0), "series arriving", "moving"),
        Tile(jobs.get(JobState.QUEUED, 0), "waiting", "waiting"),
        Tile(jobs.get(JobState.RUNNING, 0), "analysing", "moving"),
        Tile(jobs.get(JobState.ANALYSED, 0) + jobs.get(JobState.DELIVERING, 0), "being sent", "moving"),
        Tile(jobs.get(JobState.DELIVERED, 0), "delivered", "good"),
        Tile(jobs.get(JobState.FAILED, 0), "failed", "bad"),
    )


def _notices(counts: Counts) -> tuple[str, ...]:
    if not counts.quarantined:
        return ()
    objects = "object was" if counts.quarantined == 1 else "objects were"
    return (f"{counts.quarantined} {objects} kept aside and not analysed; the data folder's quarantine holds them.",)


def study_line(row: WorklistRow, unsent: str = "") -> StudyLine:
    """One line of the worklist; `unsent` says what keeps a result from being delivered."""
    study, job = row.study, row.job
    priority = job.priority if job is not None else Priority.ROUTINE
    return StudyLine(
        uid=study.study_instance_uid,
        patient_name=words.person_name(study.patient_name),
        patient_id=study.patient_id,
        study_description=study.study_description or words.ABSENT,
        study_date=words.dicom_date(study.study_date),
        accession_number=study.accession_number,
        state=words.state_words(row.state, job),
        tone=words.state_tone(row.state),
        why=unsent or _why(row),
        burden=row.burden,
        priority=words.priority_words(priority) if job is not None else words.ABSENT,
        urgent=job is not None and priority is Priority.STAT,
        received_at=study.last_received_at,
        finished_at=job.finished_at if job is not None else None,
    )


def _why(row: WorklistRow) -> str:
    """The reason, where the state asks for one."""
    if row.job is None:
        return row.study.why
    return row.job.why if row.state in (StudyState.FAILED, StudyState.QUEUED, StudyState.SUPERSEDED) else ""


def unsent_why(ledger: Ledger, row: WorklistRow) -> str:
    """What a destination answered, while results wait to be sent again."""
    if row.job is None or row.state is not StudyState.DELIVERING:
        return ""
    waiting = {
        d.destination: d for d in ledger.deliveries(row.job.id) if d.state is DeliveryState.WAITING and d.attempts
    }
    return "; ".join(f"{name}: {d.answer}; next try {words.clock(d.next_attempt_at)}" for name, d in waiting.items())


def row_of(ledger: Ledger, uid: str) -> WorklistRow | None:
    """The worklist's row of one study."""
    return next(iter(ledger.worklist(Filters(study_uids=(uid,)), limit=1)), None)
