"""What does the worklist show? Ledger records become plain values; templates only lay them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from node.ledger import Ledger
from node.ledger.records import Delivery, Job, JobState, Priority, SortColumn, StudyState
from node.ledger.worklist_records import FindingCounts, WorklistFilters, WorklistRow

from . import labels
from .list_query import BURDENS, FINDINGS, PRIORITIES, STATES, ListQuery

PAGE_SIZE = 100

_COLUMNS = (  # without a sort key: cannot be sorted by
    (SortColumn.PATIENT, "Patient"),
    (None, "Study"),
    (SortColumn.BURDEN, "Microbleeds"),
    (SortColumn.STATE, "State"),
    (SortColumn.PRIORITY, "Priority"),
    (SortColumn.RECEIVED, "Received"),
)
_TILES = (  # state in the address, label, tone
    ("receiving", "receiving", "moving"),
    ("waiting", "waiting", "waiting"),
    ("running", "analysing", "moving"),
    ("sending", "sending", "moving"),
    ("delivered", "delivered", "good"),
    ("failed", "failed", "bad"),
)


@dataclass(frozen=True)
class Tile:
    """A number above the worklist, and the address of the studies that it counts."""

    number: int
    label: str
    tone: str
    address: str
    current: bool


@dataclass(frozen=True)
class ColumnHead:
    """The head of a column. `address` sorts by it, if that is possible; `order` is the present order."""

    label: str
    key: str
    address: str
    order: str  # ascending, descending or empty


@dataclass(frozen=True)
class FilterOption:
    """One choice of a filter."""

    value: str
    label: str
    current: bool


@dataclass(frozen=True)
class StudyLine:
    """A study as one line of the worklist."""

    uid: str
    patient_name: str
    patient_id: str
    person: str
    study_description: str
    study_date: str
    accession_number: str
    state: str
    tone: str
    why: str
    burden: FindingCounts | None
    pattern: str
    change: str
    limits: tuple[str, ...]
    changed: bool
    verified_by: str
    priority: str
    urgent: bool
    fetched: bool
    phantom: bool
    received_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class WorklistPage:
    """The table of studies, the numbers above it, its filters, and the addresses of the next pages."""

    query: ListQuery
    now: datetime
    tiles: tuple[Tile, ...]
    notices: tuple[str, ...]
    choices: Mapping[str, tuple[FilterOption, ...]]
    heads: tuple[ColumnHead, ...]
    lines: tuple[StudyLine, ...]
    first: int
    total: int
    newer: str | None
    older: str | None
    has_fetched: bool  # studies that were only fetched for comparison
    empty: bool  # the node has never received a study

    @property
    def last(self) -> int:
        """Number of the last line among all studies that match."""
        return self.first + len(self.lines) - 1


def worklist_page(ledger: Ledger, query: ListQuery | None = None) -> WorklistPage:
    """One page of the studies that match a query."""
    query = query or ListQuery()
    filters = query.filters
    total = ledger.count_worklist(filters)
    query = replace(query, page=min(query.page, max(0, (total - 1) // PAGE_SIZE)))  # the list may have become shorter
    rows = ledger.worklist(
        filters, query.sort, descending=query.descending, limit=PAGE_SIZE, offset=query.page * PAGE_SIZE
    )
    states = ledger.count_states()
    unsent = unsent_words(ledger, (row.job for row in rows))
    first = query.page * PAGE_SIZE + 1
    return WorklistPage(
        query=query,
        now=datetime.now(UTC),
        tiles=_tiles(states, query),
        notices=_notices(ledger.count_quarantined()),
        choices=_choices(query, ledger.profiles_used()),
        heads=tuple(_head(sort, label, query) for sort, label in _COLUMNS),
        lines=tuple(study_line(row, unsent.get(row.job.id, "") if row.job else "") for row in rows),
        first=first,
        total=total,
        newer=query.at_page(query.page - 1).address if query.page else None,
        older=query.at_page(query.page + 1).address if first + len(rows) - 1 < total else None,
        has_fetched=bool(query.earlier) or ledger.has_fetched_studies(),
        empty=not total and not sum(states.values()),
    )


def _tiles(states: Mapping[str, int], query: ListQuery) -> tuple[Tile, ...]:
    """How many studies are in which state, whatever the filters."""
    return tuple(
        Tile(
            number=sum(states.get(state, 0) for state in STATES[name][1]),
            label=label,
            tone=tone,
            address=ListQuery(state=name).address,
            current=query.state == name,
        )
        for name, label, tone in _TILES
    )


def _notices(quarantined: int) -> tuple[str, ...]:
    if not quarantined:
        return ()
    instances = "instance was" if quarantined == 1 else "instances were"
    return (
        f"{quarantined} {instances} quarantined and not analysed. "
        "An administrator finds the files and the reasons in the folder quarantine of the data folder.",
    )


def _choices(query: ListQuery, profiles: Iterable[str]) -> Mapping[str, tuple[FilterOption, ...]]:
    """The choices of every filter, by the name of its field."""
    known = {
        "state": ("all", {name: label for name, (label, _) in STATES.items()}),
        "burden": ("any number", {name: label for name, (label, *_) in BURDENS.items()}),
        "findings": ("all", FINDINGS),
        "priority": ("all", PRIORITIES),
        "profile": ("all", {name: name for name in sorted({*profiles, query.profile} - {""})}),
    }
    return {
        field: tuple(
            FilterOption(value, label, getattr(query, field) == value)
            for value, label in {"": no_filter, **rest}.items()
        )
        for field, (no_filter, rest) in known.items()
    }


def _head(sort: SortColumn | None, label: str, query: ListQuery) -> ColumnHead:
    if sort is None:
        return ColumnHead(label, "", "", "")
    now = ("descending" if query.descending else "ascending") if sort is query.sort else ""
    return ColumnHead(label, sort.value, query.sorted_by(sort).address, now)


def study_line(row: WorklistRow, unsent: str = "") -> StudyLine:
    """One line of the worklist; `unsent` says why a result has not been delivered."""
    study, job, burden = row.study, row.job, row.burden
    priority = job.priority if job is not None else Priority.ROUTINE
    return StudyLine(
        uid=study.study_instance_uid,
        patient_name=labels.person_name(study.patient_name),
        patient_id=study.patient_id,
        person=" ".join(filter(None, (study.patient_sex, _age(study.patient_birth_date, study.study_date)))),
        study_description=study.study_description or labels.ABSENT,
        study_date=labels.dicom_date(study.study_date),
        accession_number=study.accession_number,
        state=labels.state_words(row.state, job),
        tone=labels.state_tone(row.state),
        why=unsent or _why(row),
        burden=burden,
        pattern=burden.pattern if burden is not None and burden.pattern != "none" else "",
        change=_change(burden),
        limits=tuple(filter(None, burden.limits.split("; "))) if burden is not None else (),
        changed=burden is not None and bool(burden.new),
        verified_by=labels.person_name(burden.verified_by) if burden is not None and burden.verified_by else "",
        priority=labels.priority_words(priority) if job is not None else labels.ABSENT,
        urgent=job is not None and priority is Priority.STAT,
        fetched=study.fetched,
        phantom=study.is_phantom,
        received_at=study.last_received_at,
        finished_at=job.finished_at if job is not None else None,
    )


def _age(born: str, on: str) -> str:
    """Age in years on the day of the study; empty unless both dates are complete."""
    try:
        start, end = (datetime.strptime(text.strip(), "%Y%m%d") for text in (born, on))
    except ValueError:
        return ""
    years = end.year - start.year - ((end.month, end.day) < (start.month, start.day))
    return f"{years} y" if 0 <= years < 150 else ""


def _change(burden: FindingCounts | None) -> str:
    """What changed since an earlier study: ``2 new, ARIA-H mild``."""
    if burden is None or burden.new is None:
        return ""
    if not burden.new:
        return "none new"
    grade = f", ARIA-H {burden.aria_h}" if burden.aria_h not in ("", "none") else ""
    return f"{burden.new} new{grade}"


def _why(row: WorklistRow) -> str:
    """The reason for the state, where there is one."""
    if row.job is None:
        return row.study.why
    return row.job.why if row.state in (StudyState.FAILED, StudyState.QUEUED, StudyState.SUPERSEDED) else ""


def unsent_words(ledger: Ledger, jobs: Iterable[Job | None]) -> dict[int, str]:
    """What destinations answered, by job, while results wait for another attempt."""
    sending = [job.id for job in jobs if job is not None and job.state is JobState.DELIVERING]
    return {job: retry_words(deliveries) for job, deliveries in ledger.retrying(sending).items()}


def retry_words(deliveries: Iterable[Delivery]) -> str:
    """What each destination answered to the last attempt, and the time of the next."""
    last = {delivery.destination: delivery for delivery in deliveries}
    return "; ".join(f"{name}: {d.answer}; next attempt {labels.clock(d.next_attempt_at)}" for name, d in last.items())


def unsent_why(ledger: Ledger, row: WorklistRow) -> str:
    """What a destination answered, while the results of one study wait for another attempt."""
    return next(iter(unsent_words(ledger, [row.job]).values()), "")


def row_of(ledger: Ledger, uid: str) -> WorklistRow | None:
    """The worklist's row of one study."""
    return next(iter(ledger.worklist(WorklistFilters(study_uids=(uid,)), limit=1)), None)
