"""A PACS that returns only a part of many studies is asked for less at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import pytest
from pydicom import Dataset

from node.pull.search import new_studies
from node.retrieve.source import FoundStudy, StudyQuery, StudySource, TooManyMatchesError
from node.settings.pull import PullSettings

TODAY = date(2026, 3, 2)


@dataclass
class ManyStudies:
    """A PACS that returns at most `limit` studies; only the search is needed here."""

    studies_there: list[FoundStudy]
    limit: int = 100
    is_silent: bool = False
    queries: list[StudyQuery] = field(default_factory=list)

    def studies(self, query: StudyQuery) -> list[FoundStudy]:
        self.queries.append(query)
        matching = [one for one in self.studies_there if self._matches(one, query)]
        if len(matching) > self.limit and not self.is_silent:
            raise TooManyMatchesError("too many", [_answer(one) for one in matching[: self.limit]])
        return matching[: self.limit]

    @staticmethod
    def _matches(study: FoundStudy, query: StudyQuery) -> bool:
        first, last = f"{query.first:%Y%m%d}", f"{query.last:%Y%m%d}"
        in_time = not query.first_time or query.first_time <= study.study_time <= query.last_time
        return first <= study.study_date <= last and in_time


def _answer(study: FoundStudy) -> Dataset:
    answer = Dataset()
    answer.StudyInstanceUID, answer.StudyDate = study.study_instance_uid, study.study_date
    return answer


def settings(**more: object) -> PullSettings:
    return PullSettings.model_validate({"dicomweb": {"url": "http://pacs/dicom-web"}, **more})


def at(number: int, moment: datetime, **more: object) -> FoundStudy:
    return FoundStudy(
        f"1.2.{number}",
        study_date=f"{moment:%Y%m%d}",
        study_time=f"{moment:%H%M%S}",
        **more,  # type: ignore[arg-type]
    )


def spread(number: int, day: date, seconds: float) -> list[FoundStudy]:
    begin = datetime.combine(day, datetime.min.time())
    return [at(n + day.day * 100_000, begin + timedelta(seconds=n * seconds)) for n in range(number)]


def search(source: ManyStudies, **more: object) -> tuple[set[str], str]:
    pacs: StudySource = source  # type: ignore[assignment]
    found = new_studies(pacs, settings(**more), TODAY)
    return {one.study_instance_uid for one in found.studies}, found.note


def test_few_studies_need_one_query() -> None:
    source = ManyStudies(spread(60, TODAY, 60) + spread(30, TODAY - timedelta(1), 60) + spread(9, date(2026, 2, 1), 60))
    found, note = search(source, days=1)
    assert (len(found), note) == (90, "")
    assert source.queries == [StudyQuery(TODAY - timedelta(1), TODAY)]


@pytest.mark.parametrize("is_silent", [False, True], ids=["it says so", "it does not say so"])
def test_thousands_of_studies_are_all_found_by_shorter_periods(is_silent: bool) -> None:
    there = spread(1500, TODAY, 57) + spread(700, TODAY - timedelta(1), 120)
    source = ManyStudies(there, is_silent=is_silent)
    found, note = search(source, days=1)
    assert found == {one.study_instance_uid for one in there}
    assert note == ""
    assert len(source.queries) < 100


def test_what_is_left_out_of_a_quarter_of_an_hour_is_said() -> None:
    found, note = search(ManyStudies(spread(250, TODAY, 1)), days=0)
    assert len(found) == 100
    assert note == ("the PACS does not return every study of 2026-03-02, 00:00–00:11; its limit for answers is too low")


def test_what_the_pacs_should_not_have_returned_is_left_out() -> None:
    noon = datetime(2026, 3, 2, 12)
    there = [
        at(1, noon, modalities=("MR", "SR"), description="Kopf nativ"),
        at(2, noon, modalities=("CT",), description="Kopf nativ"),
        at(3, noon, description="Knie links"),
        at(4, noon, description="MRT KOPF"),
        FoundStudy("", study_date="20260302"),
        FoundStudy("1.2.6", study_date="yesterday"),
    ]
    source = ManyStudies([])
    source.studies = lambda _query: there  # type: ignore[method-assign]
    assert search(source, study_description="kopf|schädel") == ({"1.2.1", "1.2.4"}, "")


@pytest.mark.parametrize(
    ("hours", "open_at", "closed_at"),
    [("08:00-17:30", ("08:00", "17:29"), ("07:59", "17:30")), ("19:00-06:00", ("23:10", "05:59"), ("06:00", "18:59"))],
)
def test_the_pacs_is_queried_in_its_hours(hours: str, open_at: tuple[str, ...], closed_at: tuple[str, ...]) -> None:
    pacs = settings(hours=hours)
    assert all(pacs.is_open(datetime.strptime(time, "%H:%M")) for time in open_at)
    assert not any(pacs.is_open(datetime.strptime(time, "%H:%M")) for time in closed_at)
    assert settings().is_open(datetime(2026, 3, 2, 3))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"hours": "7-19"}, "write a period of the day as 19:00-06:30"),
        ({"hours": "24:00-06:00"}, "write a period of the day"),
        ({"hours": "07:00-07:00"}, "leave the setting out for the whole day"),
        ({"series_description": "(swi"}, "malformed regular expression"),
        ({"dicomweb": None}, "name the PACS: dicom or dicomweb"),
        ({"dicom": {"ae_title": "A", "host": "h", "port": 104}}, "dicom or dicomweb, not both"),
        ({"days": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        settings(**given)
