"""What does the ledger record about studies that are fetched from a PACS that does not route? No SQL, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .prior_records import TransferCounts


class PullState(StrEnum):
    """Life of a study that a query has returned."""

    WAITING = "waiting"
    FETCHING = "fetching"
    FETCHED = "fetched"
    IGNORED = "ignored"  # it is none of those to fetch
    FAILED = "failed"
    ERASED = "erased"  # a person had its data erased: it is not fetched again

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be done until the study changes."""
        return self not in (PullState.WAITING, PullState.FETCHING)


@dataclass(frozen=True)
class AnnouncedStudy:
    """A study in the answer to a query; `instances` is ``None`` if the PACS does not count."""

    study_instance_uid: str
    study_date: str = ""
    instances: int | None = None


@dataclass(frozen=True)
class Pull:
    """A study that a query has returned, and what became of it.

    Parameters
    ----------
    announced : int or None
        Its images as the last query returned.
    counted : int or None
        The sum over its series as they were last queried.
    """

    study_instance_uid: str
    source: str
    study_date: str
    state: PullState
    why: str
    announced: int | None
    counted: int | None
    attempts: int
    next_attempt_at: datetime
    first_attempt_at: datetime | None
    found_at: datetime
    ended_at: datetime | None
    counts: TransferCounts


@dataclass(frozen=True)
class PullSource:
    """A PACS that is queried for new studies, and how the last query ended.

    Parameters
    ----------
    why : str
        Why the last query failed; empty if it did not.
    note : str
        What the PACS left out of its last answer.
    """

    name: str
    next_query_at: datetime
    attempts: int
    why: str
    failing_since: datetime | None
    queried_at: datetime | None
    found: int
    note: str
