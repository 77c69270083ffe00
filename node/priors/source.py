"""What must a PACS be able to do that earlier studies are fetched from? The :class:`Source` protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

from pydicom.dataset import Dataset

from node.ledger import PriorCounts

MOST_ANSWERS = 500
"""A patient has not so many studies; a PACS that goes on is not listened to."""


class SourceError(Exception):
    """The PACS cannot be asked, or does not give what it has; the text says who and why.

    Parameters
    ----------
    lasting : bool
        Asking again is no use.
    counts : PriorCounts, optional
        How far a retrieval got.
    """

    def __init__(self, why: str, *, lasting: bool = False, counts: PriorCounts | None = None) -> None:
        super().__init__(why)
        self.lasting, self.counts = lasting, counts or PriorCounts()


@dataclass(frozen=True)
class FoundStudy:
    """A study as the PACS describes it; empty is what it does not say."""

    study_instance_uid: str
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_birth_date: str = ""
    study_date: str = ""
    study_time: str = ""
    modalities: tuple[str, ...] = ()


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
class Bounds:
    """When a retrieval is given up.

    Parameters
    ----------
    ends_at : float
        On the monotonic clock, seconds.
    stopped : callable
        Why nobody wants it any more; empty as long as somebody does.
    max_instances : int
        More images than that are not taken.
    """

    ends_at: float
    stopped: Callable[[], str]
    max_instances: int

    @property
    def left_s(self) -> float:
        """Seconds that are left, never negative."""
        return max(0.0, self.ends_at - time.monotonic())

    @property
    def over(self) -> str:
        """Why it is over; empty while it is not."""
        return self.stopped() or ("" if self.left_s else "it took longer than priors.fetch_s")


@dataclass
class Tally:
    """Counts a retrieval, and whether it is too much."""

    bounds: Bounds
    counts: PriorCounts = field(default_factory=PriorCounts)

    def check(self, total: int) -> None:
        """Raise :class:`SourceError` if there are more images than may be."""
        if total > self.bounds.max_instances:
            raise SourceError(
                f"more than {self.bounds.max_instances} images (priors.max_instances)", lasting=True, counts=self.counts
            )


class Source(Protocol):
    """A PACS that can be asked for a patient's studies. Every method raises :class:`SourceError`."""

    @property
    def address(self) -> str:
        """The PACS, as an administrator would write it."""

    def studies(self, patient_id: str, first: date, last: date) -> list[FoundStudy]:
        """The patient's studies with MR images between two days, both included."""

    def series(self, study_uid: str) -> list[FoundSeries]:
        """The series of a study."""

    def fetch(self, study_uid: str, series_uids: Sequence[str], bounds: Bounds) -> PriorCounts:
        """Have every image of these series filed in the archive and the ledger before it returns."""


def found_study(answer: Dataset) -> FoundStudy:
    """Read an answer to a query at study level."""
    return FoundStudy(
        study_instance_uid=_text(answer, "StudyInstanceUID"),
        patient_id=_text(answer, "PatientID"),
        issuer_of_patient_id=_text(answer, "IssuerOfPatientID"),
        patient_birth_date=_text(answer, "PatientBirthDate"),
        study_date=_text(answer, "StudyDate").replace(".", ""),
        study_time=_text(answer, "StudyTime"),
        modalities=tuple(_texts(answer, "ModalitiesInStudy")),
    )


def found_series(answer: Dataset) -> FoundSeries:
    """Read an answer to a query at series level."""
    count = _text(answer, "NumberOfSeriesRelatedInstances")
    return FoundSeries(
        series_instance_uid=_text(answer, "SeriesInstanceUID"),
        modality=_text(answer, "Modality"),
        description=_text(answer, "SeriesDescription"),
        protocol=_text(answer, "ProtocolName"),
        body_part=_text(answer, "BodyPartExamined"),
        instances=int(count) if count.isdigit() else None,
    )


STUDY_KEYS = (
    "StudyInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "StudyDate",
    "StudyTime",
    "ModalitiesInStudy",
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
    """The values of an attribute as text; what a PACS answers may be anything."""
    try:
        value: Any = answer.get(keyword)
    except Exception:  # pydicom's decoders raise whatever strange bytes make them raise
        return []
    if value is None or value == "":
        return []
    many = value if not isinstance(value, str) and hasattr(value, "__iter__") else [value]
    return [text for text in (str(one).strip(" \0") for one in many) if text]


def _text(answer: Dataset, keyword: str) -> str:
    return next(iter(_texts(answer, keyword)), "")
