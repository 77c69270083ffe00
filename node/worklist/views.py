"""What stands on the worklist? Ledger records become plain values; templates only lay them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from node.ledger import Ledger
from node.ledger.records import (
    Burden,
    Delivery,
    Filters,
    Job,
    JobState,
    Priority,
    Sort,
    StudyState,
    WorklistRow,
)
from node.worklist import words
from node.worklist.asked import BURDENS, FINDINGS, PRIORITIES, STATES, Asked

PAGE_SIZE = 100

_COLUMNS = (  # what can be sorted by; the others stand between
    (Sort.PATIENT, "Patient"),
    (None, "Study"),
    (Sort.BURDEN, "Microbleeds"),
    (Sort.STATE, "State"),
    (Sort.PRIORITY, "Priority"),
    (Sort.RECEIVED, "Received"),
)
_TILES = (  # state as the address has it, label, tone
    ("receiving", "arriving", "moving"),
    ("waiting", "waiting", "waiting"),
    ("running", "analysing", "moving"),
    ("sending", "being sent", "moving"),
    ("delivered", "delivered", "good"),
    ("failed", "failed", "bad"),
)


@dataclass(frozen=True)
class Tile:
    """A number at the head of the worklist, and the address of what it counts."""

    number: int
    label: str
    tone: str
    address: str
    chosen: bool


@dataclass(frozen=True)
class ColumnHead:
    """The head of a column; `address` sorts by it, if it can be sorted by, `sorted` says how it is now."""

    label: str
    key: str
    address: str
    sorted: str  # ascending, descending or empty


@dataclass(frozen=True)
class Choice:
    """One way to narrow the list."""

    value: str
    label: str
    chosen: bool


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
    burden: Burden | None
    pattern: str
    change: str
    changed: bool
    verified_by: str
    priority: str
    urgent: bool
    fetched: bool
    received_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class WorklistPage:
    """The table of studies, the numbers above it, how it is narrowed, and where to turn the page."""

    asked: Asked
    now: datetime
    tiles: tuple[Tile, ...]
    notices: tuple[str, ...]
    choices: Mapping[str, tuple[Choice, ...]]
    heads: tuple[ColumnHead, ...]
    lines: tuple[StudyLine, ...]
    first: int
    found: int
    newer: str | None
    older: str | None
    has_fetched: bool  # earlier studies that were only fetched to compare later ones with
    empty: bool  # the node has never seen a study

    @property
    def last(self) -> int:
        """Number of the last line within all that were found."""
        return self.first + len(self.lines) - 1


def worklist_page(ledger: Ledger, asked: Asked | None = None) -> WorklistPage:
    """The studies that were asked for, a page of them."""
    asked = asked or Asked()
    filters = asked.filters
    found = ledger.count_worklist(filters)
    asked = replace(asked, page=min(asked.page, max(0, (found - 1) // PAGE_SIZE)))  # the list has become shorter
    rows = ledger.worklist(
        filters, asked.sort, descending=asked.descending, limit=PAGE_SIZE, offset=asked.page * PAGE_SIZE
    )
    states = ledger.count_states()
    unsent = unsent_words(ledger, (row.job for row in rows))
    first = asked.page * PAGE_SIZE + 1
    return WorklistPage(
        asked=asked,
        now=datetime.now(UTC),
        tiles=_tiles(states, asked),
        notices=_notices(ledger.count_quarantined()),
        choices=_choices(asked, ledger.profiles_used()),
        heads=tuple(_head(sort, label, asked) for sort, label in _COLUMNS),
        lines=tuple(study_line(row, unsent.get(row.job.id, "") if row.job else "") for row in rows),
        first=first,
        found=found,
        newer=asked.turned(asked.page - 1).address if asked.page else None,
        older=asked.turned(asked.page + 1).address if first + len(rows) - 1 < found else None,
        has_fetched=bool(asked.earlier) or ledger.has_fetched_studies(),
        empty=not found and not sum(states.values()),
    )


def _tiles(states: Mapping[str, int], asked: Asked) -> tuple[Tile, ...]:
    """How many studies are where, whatever the list is narrowed to."""
    return tuple(
        Tile(
            number=sum(states.get(state, 0) for state in STATES[name][1]),
            label=label,
            tone=tone,
            address=Asked(state=name).address,
            chosen=asked.state == name,
        )
        for name, label, tone in _TILES
    )


def _notices(quarantined: int) -> tuple[str, ...]:
    if not quarantined:
        return ()
    objects = "object was" if quarantined == 1 else "objects were"
    return (f"{quarantined} {objects} kept aside and not analysed; the data folder's quarantine holds them.",)


def _choices(asked: Asked, profiles: Iterable[str]) -> Mapping[str, tuple[Choice, ...]]:
    """Every way to narrow the list, by the name of its field."""
    known = {
        "state": ("every state", {name: label for name, (label, _) in STATES.items()}),
        "burden": ("any number", {name: label for name, (label, *_) in BURDENS.items()}),
        "findings": ("any", FINDINGS),
        "priority": ("every priority", PRIORITIES),
        "profile": ("every profile", {name: name for name in sorted({*profiles, asked.profile} - {""})}),
    }
    return {
        field: tuple(
            Choice(value, label, getattr(asked, field) == value) for value, label in {"": all_of_it, **rest}.items()
        )
        for field, (all_of_it, rest) in known.items()
    }


def _head(sort: Sort | None, label: str, asked: Asked) -> ColumnHead:
    if sort is None:
        return ColumnHead(label, "", "", "")
    now = ("descending" if asked.descending else "ascending") if sort is asked.sort else ""
    return ColumnHead(label, sort.value, asked.by(sort).address, now)


def study_line(row: WorklistRow, unsent: str = "") -> StudyLine:
    """One line of the worklist; `unsent` says what keeps a result from being delivered."""
    study, job, burden = row.study, row.job, row.burden
    priority = job.priority if job is not None else Priority.ROUTINE
    return StudyLine(
        uid=study.study_instance_uid,
        patient_name=words.person_name(study.patient_name),
        patient_id=study.patient_id,
        person=" ".join(filter(None, (study.patient_sex, _age(study.patient_birth_date, study.study_date)))),
        study_description=study.study_description or words.ABSENT,
        study_date=words.dicom_date(study.study_date),
        accession_number=study.accession_number,
        state=words.state_words(row.state, job),
        tone=words.state_tone(row.state),
        why=unsent or _why(row),
        burden=burden,
        pattern=burden.pattern if burden is not None and burden.pattern != "none" else "",
        change=_change(burden),
        changed=burden is not None and bool(burden.new),
        verified_by=words.person_name(burden.verified_by) if burden is not None and burden.verified_by else "",
        priority=words.priority_words(priority) if job is not None else words.ABSENT,
        urgent=job is not None and priority is Priority.STAT,
        fetched=study.fetched,
        received_at=study.last_received_at,
        finished_at=job.finished_at if job is not None else None,
    )


def _age(born: str, on: str) -> str:
    """Age in years on the day of the study, if both dates are whole."""
    try:
        start, end = (datetime.strptime(text.strip(), "%Y%m%d") for text in (born, on))
    except ValueError:
        return ""
    years = end.year - start.year - ((end.month, end.day) < (start.month, start.day))
    return f"{years} y" if 0 <= years < 150 else ""


def _change(burden: Burden | None) -> str:
    """What changed since an earlier study: ``2 new, ARIA-H mild``."""
    if burden is None or burden.new is None:
        return ""
    if not burden.new:
        return "no new"
    grade = f", ARIA-H {burden.aria_h}" if burden.aria_h not in ("", "none") else ""
    return f"{burden.new} new{grade}"


def _why(row: WorklistRow) -> str:
    """The reason, where the state asks for one."""
    if row.job is None:
        return row.study.why
    return row.job.why if row.state in (StudyState.FAILED, StudyState.QUEUED, StudyState.SUPERSEDED) else ""


def unsent_words(ledger: Ledger, jobs: Iterable[Job | None]) -> dict[int, str]:
    """What destinations answered, by job, while results wait to be sent again."""
    sending = [job.id for job in jobs if job is not None and job.state is JobState.DELIVERING]
    return {job: retry_words(deliveries) for job, deliveries in ledger.retrying(sending).items()}


def retry_words(deliveries: Iterable[Delivery]) -> str:
    """What each destination answered to the last attempt, and when the next one is."""
    last = {delivery.destination: delivery for delivery in deliveries}
    return "; ".join(f"{name}: {d.answer}; next try {words.clock(d.next_attempt_at)}" for name, d in last.items())


def unsent_why(ledger: Ledger, row: WorklistRow) -> str:
    """What a destination answered, while the results of one study wait to be sent again."""
    return next(iter(unsent_words(ledger, [row.job]).values()), "")


def row_of(ledger: Ledger, uid: str) -> WorklistRow | None:
    """The worklist's row of one study."""
    return next(iter(ledger.worklist(Filters(study_uids=(uid,)), limit=1)), None)
