"""Which earlier study a study is compared with: the latest analysed one of the same patient, and of nobody else."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.analyse.comparison import REFERENCE, part_of_key, prepare
from node.analyse.prior_choice import choose
from node.archive import Archive
from node.ledger import Correction, Job, Ledger
from node.ledger.records import NewJob
from node.run.retention import KEPT
from node.settings.change import ChangeSettings
from pipeline.findings import Findings, SeriesUsed
from pipeline.parameters import ChangeParameters
from pipeline.uids import derive_uid
from tests.node.conftest import Clock
from tests.node.ledger_factory import receive, results, settle_and_route, uid
from tests.pipeline.change.heads import box

pytestmark = pytest.mark.slow

ON = ChangeSettings()


def analysed(
    ledger: Ledger, name: str, at: datetime, date: str, destinations: tuple[str, ...] = ("pacs",), **given: Any
) -> Job:
    """A study that came, and was analysed."""
    receive(ledger, name, at, study_date=date, **given)
    settle_and_route(ledger, name)
    series = uid(name, "swi")
    new = NewJob(
        key=name, study_instance_uid=uid(name), swi_series_uid=series, profile="frst", destinations=destinations
    )
    job = ledger.open_job(new)
    assert ledger.claim_job(job.id, "w", 60)
    document = Findings(
        profile="frst", weights={}, software="1", study_instance_uid=uid(name), series=SeriesUsed(series), lesions=(),
        candidates=(),
    ).to_json()  # fmt: skip
    assert ledger.finish_analysis(job.id, "w", document, results("sr"))
    return ledger.job(job.id)


def chosen(ledger: Ledger, settings: ChangeSettings = ON) -> tuple[str | None, tuple[str, ...]]:
    choice = choose(ledger, ledger.study(uid("now")), settings)
    return choice.job.key if choice.job else None, choice.notes


def test_the_latest_analysed_earlier_study_is_chosen(ledger: Ledger, clock: Clock) -> None:
    analysed(ledger, "y2", clock(), "20250101")
    analysed(ledger, "y1", clock(), "20240101")
    analysed(ledger, "later", clock(), "20270101")
    receive(ledger, "unfinished", clock(), study_date="20251212")
    receive(ledger, "now", clock(), study_date="20260101")
    assert chosen(ledger) == ("y2", ())
    assert chosen(ledger, ChangeSettings(enabled=False)) == (None, ())
    assert chosen(ledger, ChangeSettings(min_days=366)) == ("y1", ())


def test_a_repetition_on_the_same_day_is_no_earlier_study(ledger: Ledger, clock: Clock) -> None:
    analysed(ledger, "morning", clock(), "20260101", study_time="080000")
    receive(ledger, "now", clock(), study_date="20260101", study_time="160000")
    assert chosen(ledger) == (None, ())
    assert chosen(ledger, ChangeSettings(min_days=0)) == ("morning", ())


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"patient_birth_date": "19500101"}, {"patient_birth_date": "19600101"}),
        ({"issuer_of_patient_id": "North"}, {"issuer_of_patient_id": "South"}),
        ({"patient_id": "P2"}, {}),
        ({"patient_id": ""}, {"patient_id": ""}),
    ],
)
def test_a_study_of_somebody_else_is_never_chosen(
    ledger: Ledger, clock: Clock, then: dict[str, str], now: dict[str, str]
) -> None:
    analysed(ledger, "other", clock(), "20250101", **then)
    receive(ledger, "now", clock(), study_date="20260101", **now)
    assert chosen(ledger) == (None, ())


@pytest.mark.parametrize(
    ("then", "now", "why"),
    [
        ({"patient_name": "Doe^Jane"}, {"patient_name": "Roe^Richard"}, "another name"),
        ({"patient_sex": "F"}, {"patient_sex": "M"}, "another sex"),
    ],
)
def test_an_id_with_another_name_or_sex_is_not_compared_and_the_result_says_so(
    ledger: Ledger, clock: Clock, then: dict[str, str], now: dict[str, str], why: str
) -> None:
    analysed(ledger, "older", clock(), "20240101", **now)
    analysed(ledger, "other", clock(), "20250101", **then)
    receive(ledger, "now", clock(), study_date="20260101", **now)
    key, notes = chosen(ledger)
    assert key == "older"
    assert notes == (f"not compared with the study of 2025-01-01: the same patient ID, but {why}",)


@pytest.mark.parametrize("name", ["DOE^JANE", "Roe^Jane", "Doe^J", "Roe^Jane=山田^太郎", "Doe^Jane^^Dr"])
def test_a_name_that_changed_by_marriage_or_spelling_is_the_same_patient(
    ledger: Ledger, clock: Clock, name: str
) -> None:
    analysed(ledger, "then", clock(), "20250101", patient_name="Doe^Jane")
    receive(ledger, "now", clock(), study_date="20260101", patient_name=name)
    assert chosen(ledger) == ("then", ())


def test_a_patient_known_by_id_alone_is_compared_with_a_note(ledger: Ledger, clock: Clock) -> None:
    analysed(ledger, "then", clock(), "20250101", patient_name="")
    receive(ledger, "now", clock(), study_date="20260101", patient_name="")
    key, (note,) = chosen(ledger)
    assert key == "then"
    assert "by patient ID alone" in note


def test_a_verified_result_is_preferred_and_one_being_written_does_not_hide_the_other(
    ledger: Ledger, clock: Clock
) -> None:
    first = analysed(ledger, "then", clock(), "20250101")
    receive(ledger, "now", clock(), study_date="20260101")
    correction = ledger.open_correction(first.id, Correction("Reader", "Hospital", (), (), "looked at"), "reader")
    assert ledger.prior_jobs(uid("now")) == [ledger.job(first.id)]
    assert ledger.claim_job(correction.id, "w", 60)
    assert ledger.finish_analysis(correction.id, "w", ledger.findings(first.id) or {}, results("sr"))
    assert [job.id for job in ledger.prior_jobs(uid("now"))] == [correction.id]


@given(st.integers(1, 9), st.floats(1, 9))
def test_the_key_holds_the_prior_and_every_threshold(mild: int, match_mm: float) -> None:
    parameters = ChangeParameters(mild=mild, moderate=mild + 1, severe=mild + 2, match_mm=match_mm)
    assert part_of_key(None, parameters) == {}
    assert part_of_key("a", parameters) != part_of_key("b", parameters)
    if parameters != ChangeParameters():
        assert part_of_key("a", parameters) != part_of_key("a", ChangeParameters())
    assert ChangeSettings(**parameters.model_dump()).parameters == parameters


def test_the_worker_gets_findings_reference_and_report_of_the_earlier_study(
    ledger: Ledger, clock: Clock, fast_folder: Any
) -> None:
    archive = Archive(fast_folder)
    then = analysed(ledger, "then", clock(), "20250101")
    receive(ledger, "now", clock(), study_date="20260101")
    settle_and_route(ledger, "now")
    new = NewJob(key="now", study_instance_uid=uid("now"), profile="frst", prior_job_id=then.id)
    job = ledger.open_job(new)
    without = prepare(ledger, archive, job, ON)
    assert without.prior is not None
    assert (without.prior.reference, "without keeping a reference image" in without.prior.why) == (None, True)
    archive.put(then.id, REFERENCE, box().to_bytes())
    comparison = prepare(ledger, archive, job, ON)
    assert comparison.prior is not None
    assert comparison.prior.reference is not None
    assert comparison.prior.study_date == "20250101"
    assert comparison.part_of_key == part_of_key("then", ChangeParameters())
    assert comparison.prior.sr_sop_instance_uid is None  # its file bears another UID: never name what is not there
    archive.remove_outbox(then.id, KEPT)
    assert prepare(ledger, archive, job, ON).prior.reference is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(("goes_to_the_pacs", "named"), [(True, True), (False, False)])
def test_the_earlier_report_is_referred_to_only_where_it_went_as_an_object(
    ledger: Ledger, clock: Clock, fast_folder: Any, goes_to_the_pacs: bool, named: bool
) -> None:
    receive(ledger, "then", clock(), study_date="20250101")
    settle_and_route(ledger, "then")
    then = ledger.open_job(
        NewJob(
            key="then",
            study_instance_uid=uid("then"),
            swi_series_uid=uid("then", "swi"),
            profile="frst",
            destinations=("ris",),
        )
    )
    assert ledger.claim_job(then.id, "w", 60)
    report = derive_uid("then", "sr", "instance")
    (file,) = results("sr")
    document = Findings(
        profile="frst", weights={}, software="1", study_instance_uid=uid("then"), series=SeriesUsed(""), lesions=(),
        candidates=(),
    ).to_json()  # fmt: skip
    assert ledger.finish_analysis(
        then.id, "w", document, [replace(file, sop_instance_uid=report)], lambda *_: goes_to_the_pacs
    )
    receive(ledger, "now", clock(), study_date="20260101")
    settle_and_route(ledger, "now")
    new = NewJob(key="now", study_instance_uid=uid("now"), profile="frst", prior_job_id=then.id)
    prior = prepare(ledger, Archive(fast_folder), ledger.open_job(new), ON).prior
    assert prior is not None
    assert prior.sr_sop_instance_uid == (report if named else None)
