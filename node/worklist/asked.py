"""What is the list narrowed to and sorted by? The page's address says it, so a view can be kept and gone back to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, time, timedelta
from urllib.parse import urlencode

from node.ledger.records import Filters, Priority, Sort, StudyState

MOST_PAGES = 100_000

STATES: dict[str, tuple[str, tuple[StudyState, ...]]] = {
    "way": (
        "on the way",
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
FINDINGS = {"new": "new since last time", "unverified": "not verified yet", "verified": "verified"}
PRIORITIES = {p.name.lower(): "STAT" if p is Priority.STAT else p.name.lower() for p in Priority}
SORTS: dict[Sort, bool] = {  # the direction in which it is of use first: whether descending
    Sort.PATIENT: False,
    Sort.BURDEN: True,
    Sort.STATE: False,
    Sort.PRIORITY: False,
    Sort.RECEIVED: True,
}


@dataclass(frozen=True)
class Asked:
    """The words of the address, every one of them known or empty."""

    q: str = ""
    state: str = ""
    burden: str = ""
    findings: str = ""
    priority: str = ""
    profile: str = ""
    since: str = ""
    until: str = ""
    earlier: str = ""
    sort: Sort = Sort.RECEIVED
    descending: bool = True
    page: int = 0

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Asked:
        """Read an address; what it does not know it leaves out, for an old bookmark must not be an error."""
        sort = next((sort for sort in SORTS if sort.value == given.get("sort")), Sort.RECEIVED)
        page = given.get("page", "")
        return cls(
            q=" ".join(_plain(given.get("q", "")).split()),
            state=_one_of(given.get("state"), STATES),
            burden=_one_of(given.get("burden"), BURDENS),
            findings=_one_of(given.get("findings"), FINDINGS),
            priority=_one_of(given.get("priority"), PRIORITIES),
            profile=_plain(given.get("profile", "")),
            since=_day(given.get("since", "")),
            until=_day(given.get("until", "")),
            earlier="1" if given.get("earlier") == "1" else "",
            sort=sort,
            descending={"asc": False, "desc": True}.get(given.get("dir", ""), SORTS[sort]),
            page=int(page) if page.isascii() and page.isdigit() and len(page) < 6 else 0,
        )

    @property
    def address(self) -> str:
        """The address that says this, with nothing in it that goes without saying."""
        words = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("sort", "descending", "page")}
        if self.sort is not Sort.RECEIVED:
            words["sort"] = self.sort.value
        if self.descending is not SORTS[self.sort]:
            words["dir"] = "desc" if self.descending else "asc"
        if self.page:
            words["page"] = str(self.page)
        said = urlencode({name: value for name, value in words.items() if value})
        return f"/?{said}" if said else "/"

    @property
    def narrowed(self) -> bool:
        """Whether some studies are left out."""
        return replace(self, sort=Sort.RECEIVED, descending=True, page=0) != Asked()

    def by(self, sort: Sort) -> Asked:
        """The same list by another column; by the same one, the other way round."""
        return replace(self, sort=sort, descending=not self.descending if sort is self.sort else SORTS[sort], page=0)

    def turned(self, page: int) -> Asked:
        """Another page of the same list."""
        return replace(self, page=page)

    @property
    def filters(self) -> Filters:
        """What the ledger is asked for."""
        _words, least, most = BURDENS.get(self.burden, ("", None, None))
        return Filters(
            text=self.q,
            states=tuple(state.value for state in STATES[self.state][1]) if self.state else (),
            priorities=(Priority[self.priority.upper()],) if self.priority else (),
            profiles=(self.profile,) if self.profile else (),
            received_from=_midnight(self.since),
            received_until=_midnight(self.until, days=1),
            min_lesions=least,
            max_lesions=most,
            new_lesions=self.findings == "new",
            verified={"verified": True, "unverified": False}.get(self.findings),
            fetched=None if self.earlier else False,
        )


def _one_of(value: str | None, known: Mapping[str, object]) -> str:
    return value if value is not None and value in known else ""


def _plain(text: str, limit: int = 200) -> str:
    """Text that a database takes and an address carries: printable, of a bounded length."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:limit].strip()


def _day(text: str) -> str:
    """A date as forms send it; anything else is none."""
    try:
        day = date.fromisoformat(text.strip())
    except ValueError:
        return ""
    return day.isoformat() if 1900 <= day.year <= 2999 else ""


def _midnight(day: str, days: int = 0) -> datetime | None:
    """The beginning of a day in the server's zone, so many days later."""
    if not day:
        return None
    return datetime.combine(date.fromisoformat(day) + timedelta(days=days), time()).astimezone()
