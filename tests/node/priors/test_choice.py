from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.ledger import StudyRecord
from node.priors.choice import DateWindow, shortlist, window
from node.retrieve.dicom_dates import day_of
from node.retrieve.head_series import wanted_series
from node.retrieve.source import FoundSeries, FoundStudy
from pipeline.read.recognition import load_rules

NOW = datetime(2026, 3, 1, tzinfo=UTC)
STUDY = StudyRecord(
    study_instance_uid="1.2.3", patient_id="P1", issuer_of_patient_id="", patient_name="Doe^Jane",
    patient_birth_date="19500101", patient_sex="F", accession_number="", study_date="20260301", study_time="101500",
    study_description="", referring_physician="", revision=1, routed_revision=None, why="", current_job_id=None,
    first_received_at=NOW, last_received_at=NOW, removed_at=None, fetched=False, held_since=None,
)  # fmt: skip
DAYS = DateWindow(date(2016, 3, 1), date(2026, 3, 1))
PRIOR = FoundStudy("1.2.4", "P1", "", "19500101", "20240503", "090000", ("MR", "SR"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"patient_birth_date": "19610101"}, "another birth date"),
        ({"patient_id": "P10"}, "another patient ID"),
        ({"patient_id": ""}, "another patient ID"),
        ({"study_date": ""}, "no date"),
        ({"study_date": "20260302"}, "a date outside the range"),
        ({"study_date": "20260301", "study_time": "101500"}, "a date outside the range"),
        ({"study_date": "20160229"}, "a date outside the range"),
        ({"modalities": ("CT",)}, "no MR images"),
    ],
)
def test_what_cannot_be_compared_with_is_refused_and_the_reason_told(changes: dict[str, object], why: str) -> None:
    listed = shortlist(STUDY, [replace(PRIOR, **changes)], DAYS)  # type: ignore[arg-type]
    assert listed.studies == ()
    assert why in listed.why_empty


def test_an_issuer_that_differs_is_another_patient() -> None:
    known = replace(STUDY, issuer_of_patient_id="HOSPITAL")
    assert shortlist(known, [replace(PRIOR, issuer_of_patient_id="CLINIC")], DAYS).studies == ()
    assert shortlist(known, [PRIOR], DAYS).studies == (PRIOR,)


@pytest.mark.parametrize("birth_date", ["", "19500101", "1950.01.01", " 19500101 "])
def test_a_birth_date_counts_only_where_both_give_one(birth_date: str) -> None:
    one = replace(PRIOR, patient_birth_date=birth_date)
    assert shortlist(STUDY, [one], DAYS).studies == (one,)


def test_a_study_of_the_same_morning_is_earlier() -> None:
    one = replace(PRIOR, study_date="20260301", study_time="080000")
    assert shortlist(STUDY, [one], DAYS).studies == (one,)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"patient_id": ""}, "no patient ID"),
        ({"patient_id": "P*"}, "wildcard"),
        ({"patient_id": "P?"}, "wildcard"),
        ({"patient_id": "P\\Q"}, "wildcard"),
        ({"study_date": ""}, "no date"),
        ({"study_date": "20261301"}, "no date"),
    ],
)
def test_what_would_find_other_patients_is_not_asked(changes: dict[str, str], why: str) -> None:
    answer = window(replace(STUDY, **changes), 3653)  # type: ignore[arg-type]
    assert isinstance(answer, str)
    assert why in answer


found = st.builds(
    FoundStudy,
    study_instance_uid=st.sampled_from(["1.2.3", "1.2.4", "1.2.5", "1.2.6", ""]),
    patient_id=st.sampled_from(["P1", " P1", "P2", ""]),
    patient_birth_date=st.sampled_from(["", "19500101", "19610101", "odd"]),
    study_date=st.one_of(
        st.dates(date(2010, 1, 1), date(2028, 1, 1)).map(lambda d: f"{d:%Y%m%d}"), st.text(max_size=9)
    ),
    study_time=st.sampled_from(["", "080000", "120000"]),
    modalities=st.sampled_from([(), ("MR",), ("CT",)]),
)


@given(st.lists(found, max_size=12))
def test_whatever_a_pacs_answers_only_earlier_studies_of_the_patient_are_left(answers: list[FoundStudy]) -> None:
    listed = shortlist(STUDY, answers, DAYS).studies
    assert list(listed) == sorted(listed, key=lambda s: (s.study_date, s.study_time), reverse=True)
    assert len({one.study_instance_uid for one in listed}) == len(listed)
    for one in listed:
        day = day_of(one.study_date)
        assert day is not None
        assert DAYS.first <= day <= DAYS.last
        assert (one.study_date, one.study_time) < (STUDY.study_date, STUDY.study_time)
        assert one.patient_id.strip() == "P1"
        assert one.patient_birth_date in ("", "19500101")
        assert one.study_instance_uid not in ("", STUDY.study_instance_uid)


def series(uid: str, description: str = "", **more: object) -> FoundSeries:
    return FoundSeries(uid, **{"modality": "MR", "description": description, "instances": 20, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found_series", "uids", "named"),
    [
        ([series("1", "SWI_Images"), series("2", "Mag_Images"), series("3", modality="SR")], ("1", "2"), True),
        ([series("1", "t2_fl2d", body_part="BRAIN")], ("1",), False),
        ([series("1", "t2_fl2d")], ("1",), False),
        ([series("1", protocol="AX SWAN", body_part="KNEE")], ("1",), True),
        ([series("1", "localizer", modality="")], ("1",), False),
    ],
)
def test_all_mr_images_of_a_study_of_the_head_are_wanted(
    found_series: list[FoundSeries], uids: tuple[str, ...], named: bool
) -> None:
    wanted = wanted_series(found_series, 4000, load_rules())
    assert (wanted.series_uids, wanted.named_swi, wanted.why) == (uids, named, "")


@pytest.mark.parametrize(
    ("found_series", "why"),
    [
        ([], "no MR images"),
        ([series("1", modality="CT")], "no MR images"),
        ([series("1", "t2_tse", body_part="KNEE")], "it shows knee, not the head"),
        ([series("1", "SWI", instances=3000), series("2", instances=1001)], "4001 MR images, more than"),
    ],
)
def test_a_study_that_is_of_no_use_is_not_fetched(found_series: list[FoundSeries], why: str) -> None:
    wanted = wanted_series(found_series, 4000, load_rules())
    assert wanted.series_uids == ()
    assert why in wanted.why
