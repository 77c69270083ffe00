"""Which of the patient's studies in the PACS can be compared with?

Studies of the same patient (:mod:`node.ledger.patient_matching`) that are earlier, not too old, and have MR images. A
query returns neither Image Type nor sequence of a series, so only its name can show that it is an SWI. Studies with a
series of such a name come first; if no study has one, any may hold an SWI that does not name another part of the body.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from node.ledger import StudyRecord
from node.ledger.patient_matching import identifier_contradiction
from node.retrieve.dicom_dates import day_of
from node.retrieve.head_series import MR
from node.retrieve.source import FoundStudy

_WILDCARDS = frozenset("*?\\")


@dataclass(frozen=True)
class DateWindow:
    """First and last date of a study that can be compared with."""

    first: date
    last: date


def window(study: StudyRecord, max_age_days: float, min_days: int = 0) -> DateWindow | str:
    """Return the dates to query, or why no query is possible; an earlier study is at least `min_days` older."""
    if not study.patient_id:
        return "the study has no patient ID"
    if _WILDCARDS & set(study.patient_id):
        return "the patient ID has wildcard characters (* ? \\), so the query would match other patients"
    day = day_of(study.study_date)
    if day is None:
        return "the study has no date"
    reach = (day - date.min).days
    return DateWindow(day - timedelta(days=min(max_age_days, reach)), day - timedelta(days=min(min_days, reach)))


@dataclass(frozen=True)
class Shortlist:
    """The studies that can be compared with, the latest first, and why the others cannot."""

    studies: tuple[FoundStudy, ...]
    refused: tuple[str, ...]

    @property
    def why_empty(self) -> str:
        """Why there is no such study, as a sentence."""
        if not self.refused:
            return "no MR prior of the patient in the PACS"
        counted = Counter(self.refused)
        said = ", ".join(f"{number} with {why}" if number > 1 else f"one with {why}" for why, number in counted.items())
        return f"no prior to compare with: {said}"


def shortlist(study: StudyRecord, found: Sequence[FoundStudy], days: DateWindow) -> Shortlist:
    """Choose the studies that can be compared with.

    A PACS may ignore a key that it does not support and return more than was queried (PS3.4 C.2.2.1.3).
    """
    kept: dict[str, FoundStudy] = {}
    refused = []
    for one in found:
        if one.study_instance_uid in ("", study.study_instance_uid):
            continue
        if why := _refusal(study, one, days):
            refused.append(why)
        else:
            kept[one.study_instance_uid] = one
    latest_first = sorted(kept.values(), key=lambda s: (s.study_date, s.study_time), reverse=True)
    return Shortlist(tuple(latest_first), tuple(refused))


def _refusal(study: StudyRecord, one: FoundStudy, days: DateWindow) -> str:
    if why := identifier_contradiction(study, one):
        return why
    day = day_of(one.study_date)
    if day is None:
        return "no date"
    moments = (one.study_date, one.study_time), (study.study_date, study.study_time)
    if not days.first <= day <= days.last or not moments[0] < moments[1]:
        return "a date outside the range"
    if one.modalities and MR not in one.modalities:
        return "no MR images"
    return ""
