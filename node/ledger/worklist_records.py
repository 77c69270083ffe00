"""What does a list of studies or jobs show, and what narrows it? Frozen records; no SQL, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .records import Job, StudyRecord
from .states import Priority, StudyState


@dataclass(frozen=True)
class FindingCounts:
    """What a finished analysis comes to.

    `pattern` is empty if location was not assessed. Without a comparison `new` is ``None`` and `aria_h` is empty.
    `limits` says what limits the result, separated by semicolons.
    """

    total: int
    definite: int
    possible: int
    pattern: str = ""
    new: int | None = None
    aria_h: str = ""
    verified_by: str = ""
    limits: str = ""


@dataclass(frozen=True)
class JobSummary:
    """A job with what a person wants to see beside it."""

    job: Job
    study: StudyRecord
    burden: FindingCounts | None


@dataclass(frozen=True)
class WorklistRow:
    """A study with the job that stands for it now, if any."""

    study: StudyRecord
    state: StudyState
    job: Job | None
    burden: FindingCounts | None


@dataclass(frozen=True, kw_only=True)
class WorklistFilters:
    """What a list is narrowed to; an empty field narrows nothing.

    Parameters
    ----------
    text : str
        Words, each part of the patient name, patient ID, accession number or study description, in any case.
    study_uids : tuple of str
        Exactly these studies.
    """

    states: tuple[str, ...] = ()
    text: str = ""
    priorities: tuple[Priority, ...] = ()
    profiles: tuple[str, ...] = ()
    received_from: datetime | None = None
    received_until: datetime | None = None
    min_lesions: int | None = None
    max_lesions: int | None = None
    new_lesions: bool = False  # the comparison with an earlier study found some
    verified: bool | None = None
    unread: bool = False  # has a result that nobody has looked at
    fetched: bool | None = None  # only, or without, earlier studies that were fetched to compare with
    phantoms: bool | None = None  # only, or without, the phantoms of site QA
    study_uids: tuple[str, ...] = ()
    patient_id: str = ""
    superseded: bool = True  # whether lists of jobs show superseded ones
