"""What can be set of a PACS that does not route? Which new studies the node fetches from it, and when."""

from __future__ import annotations

import re
from datetime import datetime, time
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from .pacs import PacsSettings

_HOURS = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")


def _hours(value: str) -> str:
    """Check a period of the day."""
    match = _HOURS.fullmatch(value.strip())
    if match is None or int(match[1]) > 23 or int(match[3]) > 23 or int(match[2]) > 59 or int(match[4]) > 59:
        raise ValueError("write a period of the day as 19:00-06:30")
    if match.group(1, 2) == match.group(3, 4):
        raise ValueError("the period begins when it ends; leave the setting out for the whole day")
    return value.strip()


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"malformed regular expression: {error}") from error
    return value


Hours = Annotated[str, AfterValidator(_hours)]
Pattern = Annotated[str, AfterValidator(_pattern)]


class PullSettings(PacsSettings):
    """A PACS that new studies are fetched from."""

    every_s: float = Field(300.0, ge=1, description="Pause between two queries for new studies, in seconds")
    hours: Hours | None = Field(
        None,
        description="Query and fetch only in this period of the day (`19:00-06:30`, in `time_zone`); none: always",
    )
    days: int = Field(
        1, ge=0, le=366, description="Look for studies of today and of this many days before, by Study Date"
    )
    quiet_s: float = Field(
        120.0, ge=0, description="A study is fetched when its number of images has not changed for this many seconds"
    )
    study_description: Pattern | None = Field(
        None, description="Fetch only studies whose description matches this regular expression; none: all"
    )
    series_description: Pattern | None = Field(
        None,
        description="Fetch a study if the name of one of its MR series matches this regular expression; none: if the "
        "recognition rules take the name for that of an SWI",
    )
    max_instances: int = Field(4000, ge=1, description="A study with more MR images than this is not fetched")
    fetch_s: float = Field(600.0, gt=0, description="Time limit of one retrieval, in seconds")

    @model_validator(mode="after")
    def _some_way(self) -> Self:
        if self.dicom is None and self.dicomweb is None:
            raise ValueError("name the PACS: dicom or dicomweb")
        return self

    @property
    def address(self) -> str:
        """The PACS as an administrator would write it."""
        way = self.dicom or self.dicomweb
        return way.address if way is not None else ""

    def is_open(self, now: datetime) -> bool:
        """Whether the PACS may be queried at this local time."""
        match = _HOURS.fullmatch(self.hours or "")
        if match is None:
            return True
        first, last = time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
        at = now.time()
        return first <= at < last if first < last else at >= first or at < last
