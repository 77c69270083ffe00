from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from node.ledger import Ledger, Priority, ResultFile, SortColumn, StudyState, WorklistFilters
from node.ledger.models import studies
from tests.node.conftest import Clock
from tests.node.ledger_factory import (
    analyse,
    deliver,
    findings,
    instance,
    job_of_new_study,
    open_job,
    receive,
    results,
    settle_and_route,
    uid,
)


@pytest.fixture
def filled(ledger: Ledger, clock: Clock) -> Ledger:
    """Five studies, in this order: delivered with 7 lesions, STAT running, queued, ignored, receiving."""
    analyse(ledger, job_of_new_study(ledger, clock(), "delivered"), total=7)
    deliver(ledger)
    job = job_of_new_study(ledger, clock.forward(60), "running", priority=Priority.STAT)
    ledger.claim_job(job.id, "worker", 30)
    job_of_new_study(ledger, clock.forward(60), "queued")
    receive(ledger, "ignored", clock.forward(60), "t1", patient_name="MÜLLER^Jürgen", accession_number="A%7")
    settle_and_route(ledger, "ignored", "t1")
    receive(ledger, "receiving", clock.forward(60), patient_id="P2")
    return ledger


def names(
    ledger: Ledger, filters: WorklistFilters | None = None, sort: SortColumn = SortColumn.RECEIVED, **given: bool
) -> list[str]:
    known = {uid(n): n for n in ("delivered", "running", "queued", "ignored", "receiving")}
    return [known[row.study.study_instance_uid] for row in ledger.worklist(filters, sort, **given)]


def test_the_newest_study_comes_first(filled: Ledger) -> None:
    assert names(filled) == ["receiving", "ignored", "queued", "running", "delivered"]
    rows = filled.worklist()
    assert [row.state for row in rows] == [
        StudyState.RECEIVING, StudyState.IGNORED, StudyState.QUEUED, StudyState.RUNNING, StudyState.DELIVERED,
    ]  # fmt: skip
    assert rows[-1].burden is not None
    assert (rows[-1].burden.total, rows[-2].burden) == (7, None)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (WorklistFilters(states=("running", "queued")), {"running", "queued"}),
        (WorklistFilters(states=("receiving", "ignored")), {"receiving", "ignored"}),
        (WorklistFilters(text="müller"), {"ignored"}),
        (WorklistFilters(text="%"), {"ignored"}),
        (WorklistFilters(text="_"), set()),
        (WorklistFilters(priorities=(Priority.STAT,)), {"running"}),
        (WorklistFilters(profiles=("frst",)), {"delivered", "running", "queued"}),
        (WorklistFilters(min_lesions=7), {"delivered"}),
        (WorklistFilters(min_lesions=8), set()),
        (WorklistFilters(patient_id="P2"), {"receiving"}),
        (WorklistFilters(study_uids=(uid("queued"), uid("ignored"))), {"queued", "ignored"}),
    ],
)
def test_filters_narrow_the_worklist(filled: Ledger, filters: WorklistFilters, expected: set[str]) -> None:
    assert set(names(filled, filters)) == expected
    assert filled.count_worklist(filters) == len(expected)


def test_the_time_of_arrival_narrows_too(filled: Ledger, clock: Clock) -> None:
    recent = WorklistFilters(received_from=clock() - timedelta(seconds=60))
    assert names(filled, recent) == ["receiving", "ignored"]
    assert names(filled, replace(recent, received_until=clock())) == ["ignored"]


def test_the_worklist_is_sorted_as_asked(filled: Ledger) -> None:
    assert names(filled, sort=SortColumn.BURDEN)[0] == "delivered"
    assert names(filled, sort=SortColumn.PRIORITY, descending=False)[0] == "running"
    assert names(filled, sort=SortColumn.STATE, descending=False)[:3] == ["running", "queued", "receiving"]
    assert names(filled, sort=SortColumn.PATIENT, descending=True)[0] == "ignored"


def test_pages_follow_each_other(filled: Ledger) -> None:
    pages = [filled.worklist(limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [row for page in pages for row in page] == filled.worklist()


def test_jobs_are_listed_with_their_study_and_burden(filled: Ledger, clock: Clock) -> None:
    listed = filled.jobs()
    assert [(s.study.study_instance_uid, s.job.state.value) for s in listed] == [
        (uid("queued"), "queued"), (uid("running"), "running"), (uid("delivered"), "delivered"),
    ]  # fmt: skip
    assert listed[-1].burden is not None
    open_job(filled, "queued", "another key")
    assert len(filled.jobs()) == 4
    assert len(filled.jobs(WorklistFilters(superseded=False))) == 3
    assert [s.job.state.value for s in filled.jobs(WorklistFilters(states=("superseded",)))] == ["superseded"]


def test_counts_say_how_much_is_where(filled: Ledger, clock: Clock) -> None:
    counts = filled.counts()
    assert counts.studies == 5
    assert counts.jobs == {"delivered": 1, "running": 1, "queued": 1}
    assert counts.series == {"settled": 4, "receiving": 1}
    assert counts.deliveries == {"accepted": 2}
    assert counts.oldest_queued_at == clock() - timedelta(seconds=120)


def test_earlier_studies_of_the_same_patient_are_found(ledger: Ledger, clock: Clock) -> None:
    for name, date, patient in (("y1", "20240101", "P1"), ("y2", "20250101", "P1"), ("other", "20250101", "P2")):
        receive(ledger, name, clock(), study_date=date, patient_id=patient)
        settle_and_route(ledger, name)
        analyse(ledger, open_job(ledger, name, name))
    receive(ledger, "now", clock(), study_date="20260101")
    receive(ledger, "nobody", clock(), study_date="20260101", patient_id="")
    assert [job.study_instance_uid for job in ledger.prior_jobs(uid("now"))] == [uid("y2"), uid("y1")]
    assert [job.study_instance_uid for job in ledger.prior_jobs(uid("y2"))] == [uid("y1")]
    assert ledger.prior_jobs(uid("nobody")) == []


def test_images_go_only_after_their_study_was_dealt_with_for_long(filled: Ledger, clock: Clock) -> None:
    assert filled.removable_studies(clock(), 1) == []
    later = clock.forward(2 * 86_400)
    assert set(filled.removable_studies(later, 1)) == {uid("delivered"), uid("ignored")}
    removed = filled.mark_removed(uid("delivered"), later, 1)
    assert removed is not None
    assert sorted(removed.paths) == [f"studies/delivered/swi/{n}.dcm" for n in range(3)]
    assert filled.removable_studies(later, 1) == [uid("ignored")]
    (job_id,) = removed.job_ids
    assert filled.findings(job_id) is not None


def test_images_stay_when_one_arrives_after_their_study_was_found_removable(filled: Ledger, clock: Clock) -> None:
    later = clock.forward(2 * 86_400)
    assert uid("delivered") in filled.removable_studies(later, 1)
    filled.record_instance(instance("delivered", "swi", 9, later))
    assert filled.mark_removed(uid("delivered"), later, 1) is None
    assert all(image.removed_at is None for image in filled.instances(uid("delivered/swi"), uid("swi")))


def test_a_job_knows_its_images(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    ledger.record_instance(instance("study", "t1", 1, clock()))
    assert ledger.job_paths(job.id) == [f"studies/study/swi/{n}.dcm" for n in range(3)]
    assert ledger.jobs_of_study(uid("study")) == [ledger.job(job.id)]


def test_the_current_results_are_those_of_the_newest_analysis_of_each_study(ledger: Ledger, clock: Clock) -> None:
    def current(study: str = "") -> list[str]:
        return [file.kind for file in ledger.current_results(study)]

    analyse(ledger, job_of_new_study(ledger, clock(), "a"), "sr", "seg")
    analyse(ledger, job_of_new_study(ledger, clock.forward(60), "b"), "ko")
    assert (current(), current(uid("a"))) == (["ko", "sr", "seg"], ["sr", "seg"])
    again = open_job(ledger, "a", key="again")
    assert current(uid("a")) == ["sr", "seg"]  # until it is analysed
    ledger.claim_job(again.id, "worker", 30)
    files = [*results("sr"), ResultFile("report", "", "", "report.json")]
    assert ledger.finish_analysis(again.id, "worker", findings(), files)
    assert current() == ["sr", "ko"]
    deliver(ledger)
    assert ledger.mark_removed(uid("a"), clock.forward(60)) is not None
    assert current() == ["ko"]


def test_results_of_a_study_that_was_only_fetched_to_compare_with_are_not_current(ledger: Ledger, clock: Clock) -> None:
    analyse(ledger, job_of_new_study(ledger, clock(), "prior"))
    assert len(ledger.current_results()) == 2
    with ledger.engine.begin() as connection:
        connection.execute(update(studies).values(fetched=True))
    assert ledger.current_results() == []
