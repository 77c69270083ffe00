"""What must a PACS offer that studies are fetched from? The :class:`StudySource` protocol, and its records."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

from pydicom.dataset import Dataset

from node.ledger import TransferCounts

MOST_ANSWERS = 500
"""Most matches of a query that are read; no patient has as many studies, and a query for more can be divided."""


class SourceError(Exception):
    """A query or retrieval failed; the text names the PACS and the reason.

    Parameters
    ----------
    lasting : bool
        Trying again will not help.
    counts : TransferCounts, optional
        Images received until then.
    """

    def __init__(self, why: str, *, lasting: bool = False, counts: TransferCounts | None = None) -> None:
        super().__init__(why)
        self.lasting, self.counts = lasting, counts or TransferCounts()


class TooManyMatchesError(SourceError):
    """There are more matches than the PACS returns, or than the node reads; `found` are those that were returned."""

    def __init__(self, why: str, found: Sequence[Dataset]) -> None:
        super().__init__(why, lasting=True)
        self.found = found


@dataclass(frozen=True)
class StudyQuery:
    """Which studies with MR images are looked for.

    Parameters
    ----------
    first, last : date
        Dates of the studies, both included.
    patient_id : str
        Empty: of every patient.
    first_time, last_time : str
        Times of the studies (``HHMMSS``), both included, where `first` is `last`; empty: the complete day.
    """

    first: date
    last: date
    patient_id: str = ""
    first_time: str = ""
    last_time: str = ""

    @property
    def matching(self) -> dict[str, str]:
        """The matching keys and their values (PS3.4 C.2.2.2)."""
        dates = f"{self.first:%Y%m%d}-{self.last:%Y%m%d}" if self.first != self.last else f"{self.first:%Y%m%d}"
        keys = {"PatientID": self.patient_id, "StudyDate": dates, "ModalitiesInStudy": "MR"}
        if self.first_time:
            keys["StudyTime"] = f"{self.first_time}-{self.last_time}"
        return {keyword: value for keyword, value in keys.items() if value}


@dataclass(frozen=True)
class FoundStudy:
    """A study as the PACS describes it; values that it does not return are empty."""

    study_instance_uid: str
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_birth_date: str = ""
    study_date: str = ""
    study_time: str = ""
    modalities: tuple[str, ...] = ()
    description: str = ""
    instances: int | None = None


@dataclass(frozen=True)
class FoundSeries:
    """A series as the PACS describes it."""

    series_instance_uid: str
    modality: str = ""
    description: str = ""
    protocol: str = ""
    body_part: str = ""
    instances: int | None = None


@dataclass(frozen=True)
class TransferLimits:
    """Limits of a retrieval.

    Parameters
    ----------
    ends_at : float
        Time on the monotonic clock, seconds.
    stopped : callable
        Why the retrieval is no longer needed; empty while it is.
    max_instances : int
        Largest number of images.
    table : str
        The settings that set the limits.
    """

    ends_at: float
    stopped: Callable[[], str]
    max_instances: int
    table: str = "priors"

    @property
    def left_s(self) -> float:
        """Remaining seconds, never negative."""
        return max(0.0, self.ends_at - time.monotonic())

    @property
    def over(self) -> str:
        """Why the retrieval must end; empty while it may go on."""
        return self.stopped() or ("" if self.left_s else f"it took longer than {self.table}.fetch_s")


@dataclass
class TransferTally:
    """Counts the images of a retrieval against its limits."""

    bounds: TransferLimits
    counts: TransferCounts = field(default_factory=TransferCounts)

    def check(self, total: int) -> None:
        """Raise :class:`SourceError` if there are more images than allowed."""
        if total > self.bounds.max_instances:
            what = f"more than {self.bounds.max_instances} images ({self.bounds.table}.max_instances)"
            raise SourceError(what, lasting=True, counts=self.counts)


class StudySource(Protocol):
    """A PACS that can be queried for studies. Every method raises :class:`SourceError`."""

    @property
    def address(self) -> str:
        """Address of the PACS, as an administrator writes it."""

    def studies(self, query: StudyQuery) -> list[FoundStudy]:
        """Find studies with MR images; raises :class:`TooManyMatchesError` if not all are returned."""

    def series(self, study_uid: str) -> list[FoundSeries]:
        """List the series of a study."""

    def fetch(self, study_uid: str, series_uids: Sequence[str], bounds: TransferLimits) -> TransferCounts:
        """Fetch every image of these series; they are in archive and ledger when it returns."""


def found_study(answer: Dataset) -> FoundStudy:
    """Read a match of a query at study level."""
    return FoundStudy(
        study_instance_uid=_text(answer, "StudyInstanceUID"),
        patient_id=_text(answer, "PatientID"),
        issuer_of_patient_id=_text(answer, "IssuerOfPatientID"),
        patient_birth_date=_text(answer, "PatientBirthDate"),
        study_date=_text(answer, "StudyDate").replace(".", ""),
        study_time=_text(answer, "StudyTime"),
        modalities=tuple(_texts(answer, "ModalitiesInStudy")),
        description=_text(answer, "StudyDescription"),
        instances=_count(answer, "NumberOfStudyRelatedInstances"),
    )


def found_series(answer: Dataset) -> FoundSeries:
    """Read a match of a query at series level."""
    return FoundSeries(
        series_instance_uid=_text(answer, "SeriesInstanceUID"),
        modality=_text(answer, "Modality"),
        description=_text(answer, "SeriesDescription"),
        protocol=_text(answer, "ProtocolName"),
        body_part=_text(answer, "BodyPartExamined"),
        instances=_count(answer, "NumberOfSeriesRelatedInstances"),
    )


STUDY_KEYS = (
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "StudyDate",
    "StudyTime",
    "ModalitiesInStudy",
    "StudyDescription",
    "NumberOfStudyRelatedInstances",
)
SERIES_KEYS = (
    "SeriesInstanceUID",
    "Modality",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "NumberOfSeriesRelatedInstances",
)


def _texts(answer: Dataset, keyword: str) -> list[str]:
    """Values of an attribute as text; empty if they are malformed."""
    try:
        value: Any = answer.get(keyword)
    except Exception:  # pydicom raises many types on malformed values
        return []
    if value is None or value == "":
        return []
    many = value if not isinstance(value, str) and hasattr(value, "__iter__") else [value]
    return [text for text in (str(one).strip(" \0") for one in many) if text]


def _text(answer: Dataset, keyword: str) -> str:
    return next(iter(_texts(answer, keyword)), "")


def _count(answer: Dataset, keyword: str) -> int | None:
    text = _text(answer, keyword)
    return int(text) if text.isdecimal() else None
