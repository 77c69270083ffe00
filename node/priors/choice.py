"""Which of the studies that the PACS has are worth fetching?

Of the same patient (:mod:`node.ledger.patients`), earlier, with MR images, not too old. A query tells neither Image
Type nor sequence of a series, so whether it is an SWI can be told by its name at most: studies with a series of such a
name come first, and where no study has one, any may hold it that does not say it shows something other than the head.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from node.ledger import Study
from node.ledger.patients import contradiction
from node.priors.source import FoundSeries, FoundStudy
from pipeline.headers import Facts
from pipeline.recognition import Rules

MR = "MR"
_HEAD = re.compile(r"head|brain|skull|cran|neuro|sch[aä]del|kopf|hirn|whole ?body|t[eê]te|cerv", re.IGNORECASE)
_WILDCARDS = frozenset("*?\\")


@dataclass(frozen=True)
class Window:
    """Days between which a study can be one to compare with."""

    first: date
    last: date


def window(study: Study, max_age_days: float, min_days: int = 0) -> Window | str:
    """The days to ask for, or why nothing can be asked; a study to compare with is at least `min_days` older."""
    if not study.patient_id:
        return "the study has no patient ID"
    if _WILDCARDS & set(study.patient_id):
        return "the patient ID has wildcard characters (* ? \\), so it would find other patients"
    day = day_of(study.study_date)
    if day is None:
        return "the study has no date"
    reach = (day - date.min).days
    return Window(day - timedelta(days=min(max_age_days, reach)), day - timedelta(days=min(min_days, reach)))


def day_of(text: str) -> date | None:
    """Read a DICOM date (PS3.5 6.2, VR DA)."""
    if not re.fullmatch(r"\d{8}", text):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None


def in_words(text: str) -> str:
    """Write a DICOM date as people do: ``2026-11-21``."""
    day = day_of(text)
    return text if day is None else day.isoformat()


@dataclass(frozen=True)
class Shortlist:
    """The studies to look at, the latest first, and why others are none."""

    studies: tuple[FoundStudy, ...]
    refused: tuple[str, ...]

    @property
    def why_empty(self) -> str:
        """Why there is none, in words."""
        if not self.refused:
            return "no earlier MR study of the patient in the PACS"
        counted = Counter(self.refused)
        said = ", ".join(f"{number} with {why}" if number > 1 else f"one with {why}" for why, number in counted.items())
        return f"no earlier study to compare with: {said}"


def shortlist(study: Study, found: Sequence[FoundStudy], days: Window) -> Shortlist:
    """Choose the studies that can be compared with, whatever the PACS took the query for.

    A PACS may ignore a key that it does not know and answer with more than was asked for (PS3.4 C.2.2.1.3).
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


def _refusal(study: Study, one: FoundStudy, days: Window) -> str:
    if why := contradiction(study, one.patient_id, one.issuer_of_patient_id, one.patient_birth_date):
        return why
    day = day_of(one.study_date)
    if day is None:
        return "no date"
    moments = (one.study_date, one.study_time), (study.study_date, study.study_time)
    if not days.first <= day <= days.last or not moments[0] < moments[1]:
        return "another date than an earlier study's"
    if one.modalities and MR not in one.modalities:
        return "no MR images"
    return ""


@dataclass(frozen=True)
class Wanted:
    """The series of a study that are fetched; none: `why` says why."""

    series_uids: tuple[str, ...]
    instances: int = 0
    named_swi: bool = False
    why: str = ""


def wanted_series(series: Sequence[FoundSeries], max_instances: int, rules: Rules) -> Wanted:
    """Choose the series of a study: all its MR images, if it can hold an SWI of the head and is not too much."""
    images = [one for one in series if one.series_instance_uid and one.modality in ("", MR)]
    if not images:
        return Wanted((), why="it has no MR images")
    named = any(_named_swi(one, rules) for one in images)
    parts = {one.body_part for one in images if one.body_part}
    if not named and parts and not any(_HEAD.search(part) for part in parts):
        return Wanted((), why=f"it shows {', '.join(sorted(parts)).lower()}, not the head")
    total = sum(one.instances or 0 for one in images)
    if total > max_instances:
        return Wanted((), total, named, f"it has {total} MR images, more than priors.max_instances")
    return Wanted(tuple(one.series_instance_uid for one in images), total, named)


def _named_swi(series: FoundSeries, rules: Rules) -> bool:
    """Whether the name of a series says SWI, as the recognition rules mean it."""
    said = Facts((("text", tuple(filter(None, (series.description, series.protocol)))),))
    return rules.define["swi-name"].holds(said, rules.define)
