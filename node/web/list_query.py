"""How is the worklist filtered and sorted? The page's address says so: a view can be bookmarked and reloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, time, timedelta
from urllib.parse import urlencode

from node.ledger.records import QA_PATIENT_ID, Priority, SortColumn, StudyState
from node.ledger.worklist_records import WorklistFilters
from node.text import printable

MOST_PAGES = 100_000

STATES: dict[str, tuple[str, tuple[StudyState, ...]]] = {
    "way": (
        "in progress",
        (
            StudyState.RECEIVING,
            StudyState.HELD,
            StudyState.QUEUED,
            StudyState.RUNNING,
            StudyState.ANALYSED,
            StudyState.DELIVERING,
        ),
    ),
    "receiving": ("receiving images", (StudyState.RECEIVING,)),
    "waiting": ("waiting for analysis", (StudyState.HELD, StudyState.QUEUED)),
    "running": ("being analysed", (StudyState.RUNNING,)),
    "sending": ("being sent", (StudyState.ANALYSED, StudyState.DELIVERING)),
    "delivered": ("delivered", (StudyState.DELIVERED,)),
    "failed": ("failed", (StudyState.FAILED,)),
    "ignored": ("not analysed", (StudyState.IGNORED,)),
    "superseded": ("superseded", (StudyState.SUPERSEDED,)),
}
BURDENS: dict[str, tuple[str, int, int | None]] = {
    "any": ("any microbleed", 1, None),
    "0": ("none marked", 0, 0),
    "1-4": ("1–4", 1, 4),
    "5-9": ("5–9", 5, 9),
    "10": ("10 or more", 10, None),
}
FINDINGS = {"new": "new since the prior", "unread": "unread", "unverified": "not verified yet", "verified": "verified"}
PRIORITIES = {p.name.lower(): "STAT" if p is Priority.STAT else p.name.lower() for p in Priority}
SORTS: dict[SortColumn, bool] = {  # whether a column sorts in descending order at first
    SortColumn.PATIENT: False,
    SortColumn.BURDEN: True,
    SortColumn.STATE: False,
    SortColumn.PRIORITY: False,
    SortColumn.RECEIVED: True,
}


@dataclass(frozen=True)
class ListQuery:
    """The parameters of the address, each of them known or empty."""

    q: str = ""
    state: str = ""
    burden: str = ""
    findings: str = ""
    priority: str = ""
    profile: str = ""
    since: str = ""
    until: str = ""
    earlier: str = ""
    sort: SortColumn = SortColumn.RECEIVED
    descending: bool = True
    page: int = 0

    @classmethod
    def read(cls, given: Mapping[str, str]) -> ListQuery:
        """Read an address. It ignores what it does not know: an old bookmark must not be an error."""
        sort = next((sort for sort in SORTS if sort.value == given.get("sort")), SortColumn.RECEIVED)
        page = given.get("page", "")
        return cls(
            q=" ".join(_plain(given.get("q", "")).split()),
            state=_one_of(given.get("state"), STATES),
            burden=_one_of(given.get("burden"), BURDENS),
            findings=_one_of(given.get("findings"), FINDINGS),
            priority=_one_of(given.get("priority"), PRIORITIES),
            profile=_plain(given.get("profile", "")),
            since=iso_day(given.get("since", "")),
            until=iso_day(given.get("until", "")),
            earlier="1" if given.get("earlier") == "1" else "",
            sort=sort,
            descending={"asc": False, "desc": True}.get(given.get("dir", ""), SORTS[sort]),
            page=int(page) if page.isascii() and page.isdigit() and len(page) < 6 else 0,
        )

    @property
    def address(self) -> str:
        """The address of this view, without default values."""
        words = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("sort", "descending", "page")}
        if self.sort is not SortColumn.RECEIVED:
            words["sort"] = self.sort.value
        if self.descending is not SORTS[self.sort]:
            words["dir"] = "desc" if self.descending else "asc"
        if self.page:
            words["page"] = str(self.page)
        parameters = urlencode({name: value for name, value in words.items() if value})
        return f"/?{parameters}" if parameters else "/"

    @property
    def has_filters(self) -> bool:
        """Whether any filter is set."""
        return replace(self, sort=SortColumn.RECEIVED, descending=True, page=0) != ListQuery()

    def sorted_by(self, sort: SortColumn) -> ListQuery:
        """The same list sorted by a column; by the present one, in the opposite order."""
        return replace(self, sort=sort, descending=not self.descending if sort is self.sort else SORTS[sort], page=0)

    def at_page(self, page: int) -> ListQuery:
        """Another page of the same list."""
        return replace(self, page=page)

    @property
    def filters(self) -> WorklistFilters:
        """The filters for the ledger."""
        _words, least, most = BURDENS.get(self.burden, ("", None, None))
        return WorklistFilters(
            text=self.q,
            states=tuple(state.value for state in STATES[self.state][1]) if self.state else (),
            priorities=(Priority[self.priority.upper()],) if self.priority else (),
            profiles=(self.profile,) if self.profile else (),
            received_from=midnight(self.since),
            received_until=midnight(self.until, days=1),
            min_lesions=least,
            max_lesions=most,
            new_lesions=self.findings == "new",
            unread=self.findings == "unread",
            verified={"verified": True, "unverified": False}.get(self.findings),
            fetched=None if self.earlier else False,
            phantoms=None if QA_PATIENT_ID.lower() in self.q.lower() else False,  # only for who searches for them
        )


def _one_of(value: str | None, known: Mapping[str, object]) -> str:
    return value if value is not None and value in known else ""


def _plain(text: str, limit: int = 200) -> str:
    """Text that a database and an address can hold: printable, of bounded length."""
    return printable(text).strip()[:limit].strip()


def iso_day(text: str) -> str:
    """A date as a form sends it; empty for anything else."""
    try:
        day = date.fromisoformat(text.strip())
    except ValueError:
        return ""
    return day.isoformat() if 1900 <= day.year <= 2999 else ""


def midnight(day: str, days: int = 0) -> datetime | None:
    """The start of a day in the server's time zone, `days` later."""
    if not day:
        return None
    return datetime.combine(date.fromisoformat(day) + timedelta(days=days), time()).astimezone()
