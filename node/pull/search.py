"""Which studies are new in the PACS? A query for some days, divided where the PACS returns only a part.

A query for all days is made first. If it has many matches it is divided by days, then by times of the day, down to a
quarter of an hour: a PACS may limit its answers without saying so. What is left out even then is said, if it is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import pairwise

from node.ledger import AnnouncedStudy
from node.retrieve.dicom_dates import day_of, in_words
from node.retrieve.head_series import MR
from node.retrieve.source import FoundStudy, StudyQuery, StudySource, TooManyMatchesError, found_study
from node.settings.pull import PullSettings

SHORTEST_S = 900
"""A query for a shorter time of the day than this is not divided."""
MANY = 100
"""An answer with as many studies may be a part of them; no limit of a PACS is known to be lower."""
_DAY_S = 86_400


@dataclass(frozen=True)
class NewStudies:
    """Studies that may be fetched, and what the PACS left out of its answers."""

    studies: tuple[AnnouncedStudy, ...]
    note: str = ""


def query_of(settings: PullSettings, today: date) -> StudyQuery:
    """The query for the studies of these days, `today` included."""
    return StudyQuery(today - timedelta(days=settings.days), today)


def new_studies(
    source: StudySource, settings: PullSettings, today: date, asks: Callable[[], None] = lambda: None
) -> NewStudies:
    """Query a PACS for the studies of these days.

    Parameters
    ----------
    today : date
        The last day.
    asks : callable
        Called before each query.

    Raises
    ------
    SourceError
        If a query fails.
    """
    query = query_of(settings, today)
    found: dict[str, FoundStudy] = {}
    incomplete: list[str] = []
    for studies, left_out in _answers(source, query, asks):
        found |= {one.study_instance_uid: one for one in studies if _is_wanted(one, query, settings)}
        incomplete += [left_out] * bool(left_out)
    note = ""
    if incomplete:
        more = f" and {len(incomplete) - 1} more periods" if len(incomplete) > 1 else ""
        note = f"the PACS does not return every study of {incomplete[0]}{more}; its limit for answers is too low"
    announced = (AnnouncedStudy(uid, one.study_date, one.instances) for uid, one in found.items())
    return NewStudies(tuple(announced), note)


def _answers(
    source: StudySource, query: StudyQuery, asks: Callable[[], None]
) -> Iterator[tuple[list[FoundStudy], str]]:
    """The studies of a period, and the name of the period if some are left out."""
    asks()
    parts, left_out = tuple(divided(query)), ""
    try:
        found = source.studies(query)
    except TooManyMatchesError as error:
        found, left_out = [found_study(answer) for answer in error.found], _period(query)
    if parts and (left_out or len(found) >= MANY):
        for part in parts:
            yield from _answers(source, part, asks)
    else:
        yield found, left_out


def divided(query: StudyQuery) -> Iterator[StudyQuery]:
    """Divide a query: by days, the latest first, or the time of one day into halves; nothing if it is too short."""
    if query.first != query.last:
        for back in range((query.last - query.first).days + 1):
            day = query.last - timedelta(days=back)
            yield replace(query, first=day, last=day)
        return
    first = _seconds(query.first_time) if query.first_time else 0
    end = _seconds(query.last_time) + 1 if query.last_time else _DAY_S
    if end - first <= SHORTEST_S:
        return
    for begin, stop in pairwise((first, (first + end) // 2, end)):
        yield replace(query, first_time=_time(begin), last_time=_time(stop - 1))


def _is_wanted(study: FoundStudy, query: StudyQuery, settings: PullSettings) -> bool:
    """Whether a study may be fetched; a PACS may ignore a key, and so return others (PS3.4 C.2.2.1.3)."""
    day = day_of(study.study_date)
    if not study.study_instance_uid or day is None or not query.first <= day <= query.last:
        return False
    if study.modalities and MR not in study.modalities:
        return False
    pattern = settings.study_description
    return pattern is None or re.search(pattern, study.description, re.IGNORECASE) is not None


def _period(query: StudyQuery) -> str:
    """A period in words."""
    day = in_words(f"{query.first:%Y%m%d}")
    if not query.first_time:
        return day
    times = (datetime.strptime(time, "%H%M%S").strftime("%H:%M") for time in (query.first_time, query.last_time))
    return f"{day}, {'–'.join(times)}"


def _seconds(time: str) -> int:
    return int(time[:2]) * 3600 + int(time[2:4]) * 60 + int(time[4:6])


def _time(seconds: int) -> str:
    return f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"
