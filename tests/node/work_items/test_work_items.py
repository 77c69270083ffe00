"""What a worklist manager sees of the node's work, and what becomes of the items that it schedules."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from node.ledger import Job, JobState, Ledger, ResultFile, WorkItemState
from node.ledger.work_items import LEASE_S
from node.web.history_view import history_of
from node.work_items import WorkItemPerformer
from node.work_items.fetcher import WorkItemFetcher
from node.work_items.manager import PAGE
from tests.node.conftest import Clock
from tests.node.ledger_factory import (
    SR,
    analyse,
    deliver,
    findings,
    job_of_new_study,
    open_job,
    receive,
    results,
    settle_and_route,
    uid,
)

from .site import Site, code, scheduled_item


@pytest.fixture
def site(ledger: Ledger, clock: Clock, tmp_path: Path) -> Site:
    return Site(ledger, clock, tmp_path)


def finish_with_file(site: Site, job: Job) -> None:
    """A worker finishes the job; its report is a file in the outbox."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = SR, uid("result", "sr")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = job.study_instance_uid, uid("result", "series")
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(site.settings.data_dir / "sr.dcm", ds, enforce_file_format=True)
    assert site.ledger.claim_job(job.id, "worker", 30) is not None
    file = ResultFile("sr", uid("result", "sr"), SR, "sr.dcm", 10, "0" * 64)
    assert site.ledger.finish_analysis(job.id, "worker", findings(), [file])


def test_the_manager_sees_queued_in_progress_completed_with_the_results(site: Site, clock: Clock) -> None:
    job = job_of_new_study(site.ledger, clock())
    site.work()
    (item_uid,) = site.uids()
    item = site.worklist.items[item_uid]
    assert (item.ProcedureStepState, item.PatientID, item.InputReadinessState) == ("SCHEDULED", "P1", "READY")
    (inputs,) = item.InputInformationSequence
    assert len(inputs.ReferencedSOPSequence) == 3
    finish_with_file(site, job)
    site.work()
    assert deliver(site.ledger) == 1
    site.work()
    assert site.worklist.steps(item_uid) == [
        "SCHEDULED",
        "IN PROGRESS",
        "progress: analysed; results are being delivered",
        "progress: results delivered",
        "COMPLETED",
    ]
    (performed,) = item.UnifiedProcedureStepPerformedProcedureSequence
    (output,) = performed.OutputInformationSequence
    assert output.SeriesInstanceUID == uid("result", "series")
    assert [one.ReferencedSOPInstanceUID for one in output.ReferencedSOPSequence] == [uid("result", "sr")]
    assert [one.RetrieveAETitle for one in output.DICOMRetrievalSequence] == ["PACS"]
    assert site.worklist.refusals == []
    assert site.ledger.due_work_items() == []
    lines = [line.what for line in history_of(site.ledger, job.study_instance_uid, []) if "Work item" in line.what]
    assert lines == [f"Work item: {words}" for words in ("completed", "in progress", "scheduled", "to be created")]


def test_a_failed_job_is_cancelled_with_its_reason_and_gets_another_item_when_retried(site: Site, clock: Clock) -> None:
    job = job_of_new_study(site.ledger, clock())
    assert site.ledger.claim_job(job.id, "worker", 30) is not None
    site.ledger.fail_attempt(job.id, "worker", "the phase is missing", 1)
    site.work()
    (first,) = site.uids()
    (progress,) = site.worklist.items[first].ProcedureStepProgressInformationSequence
    assert progress.ReasonForCancellation == "the analysis failed: the phase is missing"
    assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"
    site.ledger.retry(job.id, "jane")
    site.work()
    _, second = site.uids()
    (replaced,) = site.worklist.items[second].ReplacedProcedureStepSequence
    assert replaced.ReferencedSOPInstanceUID == first
    assert site.states() == ["CANCELED", "SCHEDULED"]


def test_nothing_is_lost_while_the_manager_is_down(site: Site, clock: Clock) -> None:
    job = job_of_new_study(site.ledger, clock())
    for _ in range(3):
        site.work("request lost")
        clock.forward(5)
    analyse(site.ledger, job)
    deliver(site.ledger)
    site.work("request lost")
    assert site.uids() == []
    assert site.ledger.work_item_backlog().why == "no route"
    site.catch_up()
    (item_uid,) = site.uids()
    assert site.worklist.steps(item_uid) == ["SCHEDULED", "IN PROGRESS", "progress: results delivered", "COMPLETED"]
    assert site.ledger.work_item_backlog().by_state == {}


def test_a_new_analysis_of_the_study_goes_on_in_the_same_item(site: Site, clock: Clock) -> None:
    job = job_of_new_study(site.ledger, clock())
    assert site.ledger.claim_job(job.id, "worker", 30) is not None
    site.work()
    open_job(site.ledger, key="another profile")
    site.work()
    (item,) = site.ledger.open_work_items()
    assert item.job_id != job.id
    assert site.states() == ["IN PROGRESS"]
    assert site.worklist.steps(item.workitem_uid)[-1] == "progress: waits for a worker"


def test_a_cancel_request_cancels_a_job_that_waits(site: Site, clock: Clock) -> None:
    job = job_of_new_study(site.ledger, clock())
    site.work()
    assert site.worklist.request_cancellation(site.uids()[0], "wrong patient").status == 202
    site.catch_up()
    cancelled = site.ledger.job(job.id)
    assert (cancelled.state, cancelled.why) == (
        JobState.SUPERSEDED,
        "cancelled by the worklist manager: wrong patient",
    )
    assert site.states() == ["CANCELED"]


def test_a_cancelled_job_that_has_begun_goes_on_and_the_manager_sees_that(site: Site, clock: Clock) -> None:
    """The manager cancelled the item while the node was about to claim it."""
    job = job_of_new_study(site.ledger, clock())
    site.work()
    site.worklist.request_cancellation(site.uids()[0], "too late")
    assert site.ledger.claim_job(job.id, "worker", 3000) is not None
    site.catch_up()
    assert site.ledger.job(job.id).state == JobState.RUNNING
    assert site.states() == ["CANCELED", "IN PROGRESS"]
    (replaced,) = site.worklist.items[site.uids()[1]].ReplacedProcedureStepSequence
    assert replaced.ReferencedSOPInstanceUID == site.uids()[0]


def test_a_cancel_request_that_the_manager_notes_in_a_claimed_item_is_answered(site: Site, clock: Clock) -> None:
    site.worklist.notes_cancel_requests = True
    waiting, running = (job_of_new_study(site.ledger, clock(), study) for study in ("one", "two"))
    for job in (waiting, running):
        site.ledger.claim_job(job.id, "worker", 3000)
    site.work()
    site.ledger.release_job(waiting.id, "worker")  # its worker stops
    for item_uid in site.uids():
        assert site.worklist.request_cancellation(item_uid, "not needed").status == 202
    site.catch_up()
    by_job = {item.job_id: item.workitem_uid for item in site.ledger.open_work_items()}
    assert list(by_job) == [running.id]
    assert site.ledger.job(waiting.id).state == JobState.SUPERSEDED
    words = "is being analysed; cannot be cancelled: the analysis has begun"
    assert site.worklist.steps(by_job[running.id])[-1] == f"progress: {words}"
    assert sorted(site.states()) == ["CANCELED", "IN PROGRESS"]


def test_a_scheduled_item_about_images_that_are_here_is_claimed_and_completed(site: Site, clock: Clock) -> None:
    study = receive(site.ledger, "study", clock())
    item_uid = site.worklist.schedule(scheduled_item("a", "study"))
    site.work()
    assert site.worklist.state(item_uid) == "IN PROGRESS"
    fetcher(site).fetch_due()
    settle_and_route(site.ledger, "study")
    analyse(site.ledger, open_job(site.ledger))
    deliver(site.ledger)
    site.catch_up()
    assert site.uids() == [item_uid]  # the node creates none of its own for the same work
    assert site.states() == ["COMPLETED"]
    assert [item.claimed for item in site.ledger.work_items_of(study)] == [True]


def test_a_study_that_is_not_analysed_ends_its_item_with_the_reason(site: Site, clock: Clock) -> None:
    receive(site.ledger, "study", clock())
    item_uid = site.worklist.schedule(scheduled_item("a", "study"))
    site.work()
    fetcher(site).fetch_due()
    site.ledger.settle_series(uid("study", "swi"), "quiet")
    site.ledger.mark_routed(uid("study"), site.ledger.study(uid("study")).revision, [], "there is no SWI")
    site.catch_up()
    (progress,) = site.worklist.items[item_uid].ProcedureStepProgressInformationSequence
    assert progress.ReasonForCancellation == "not analysed: there is no SWI"
    assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeMeaning == "Object Types not supported"


@pytest.mark.parametrize(
    ("station", "workitem"),
    [
        (("OTHER", "Other", "99CMBNODE"), ("110004", "Computer Aided Detection", "DCM")),
        (("CMBNODE", "CMBNODE", "99OTHER"), ("110004", "Computer Aided Detection", "DCM")),
        (("CMBNODE", "CMBNODE", "99CMBNODE"), ("110005", "Interpretation", "DCM")),
        (None, ("110004", "Computer Aided Detection", "DCM")),
    ],
)
def test_items_for_others_are_left_alone(
    site: Site, station: tuple[str, str, str] | None, workitem: tuple[str, str, str]
) -> None:
    item_uid = site.worklist.schedule(scheduled_item("a", "study", station=station, workitem=workitem))
    site.work()
    assert site.worklist.state(item_uid) == "SCHEDULED"
    assert site.ledger.open_work_items() == []


def test_items_for_the_class_or_for_nobody_are_claimed_where_the_settings_say_so(
    ledger: Ledger, clock: Clock, tmp_path: Path
) -> None:
    detector = ("CAD", "Detector", "99HOSPITAL")
    site = Site(ledger, clock, tmp_path, station_class=detector, unassigned=True)
    for_class, for_nobody = (scheduled_item(name, "study", station=None) for name in ("class", "nobody"))
    for_class.ScheduledStationClassCodeSequence = [code(detector)]
    for_another = scheduled_item("another", "study", station=None)
    for_another.ScheduledStationClassCodeSequence = [code(("XR", "Another", "99HOSPITAL"))]
    for item in (for_class, for_another, for_nobody):
        site.worklist.schedule(item)
    site.work()
    assert site.states() == ["IN PROGRESS", "SCHEDULED", "IN PROGRESS"]


def test_a_search_reads_every_page(site: Site) -> None:
    for number in range(2 * PAGE + 1):
        site.worklist.schedule(scheduled_item(f"item {number}", f"study {number}"))
    site.work()
    assert set(site.states()) == {"IN PROGRESS"}
    assert len(site.ledger.open_work_items()) == 2 * PAGE + 1


def test_an_item_that_the_manager_refuses_does_not_hold_up_the_others(site: Site, clock: Clock) -> None:
    first, second = (job_of_new_study(site.ledger, clock(), study) for study in ("one", "two"))
    site.work()
    for job in (first, second):
        site.ledger.claim_job(job.id, "worker", 3000)
    site.work()
    broken, good = site.uids()
    site.worklist.transactions[broken] = "1.2.3"  # the manager has mixed something up
    for job in (first, second):
        site.ledger.finish_analysis(job.id, "worker", findings(), results("sr"))
    site.catch_up()
    assert site.worklist.steps(good)[-1] == "progress: analysed; results are being delivered"
    (item,) = [one for one in site.ledger.open_work_items() if one.why]
    assert (item.workitem_uid, item.why) == (
        broken,
        "does not change it: 400 Bad Request: 299 manager: The Transaction UID is incorrect.",
    )


def test_a_claim_whose_answer_was_lost_is_recognised_and_nothing_is_told_twice(site: Site, clock: Clock) -> None:
    job = job_of_new_study(site.ledger, clock())
    site.work()
    site.ledger.claim_job(job.id, "worker", 3000)
    site.work("", "answer lost")
    site.catch_up()
    assert site.worklist.steps(site.uids()[0]) == ["SCHEDULED", "IN PROGRESS", "progress: is being analysed"]
    assert site.worklist.refusals == []


def test_an_item_that_another_system_claimed_first_is_left_to_it(site: Site, clock: Clock) -> None:
    receive(site.ledger, "study", clock())
    item_uid = site.worklist.schedule(scheduled_item("a", "study"))
    site.manager.outages[:] = ["", "", "", "request lost"]  # search, retrieval, retrieval; the claim does not arrive
    site.performer.work()
    site.worklist.items[item_uid].ProcedureStepState = "IN PROGRESS"
    site.worklist.transactions[item_uid] = "1.2.3"
    site.catch_up()
    (item,) = site.ledger.work_items_of(uid("study"))
    assert (item.state, item.why) == (WorkItemState.IN_PROGRESS, "another system performs it")


def test_images_are_only_ever_fetched_from_the_service_of_the_settings(site: Site) -> None:
    item = scheduled_item("a", "absent", url="http://manager.test.evil.example/ups/studies/1.2")
    item_uid = site.worklist.schedule(item)
    site.work()
    fetcher(site).fetch_due()
    site.catch_up()
    (progress,) = site.worklist.items[item_uid].ProcedureStepProgressInformationSequence
    assert progress.ReasonForCancellation.startswith(
        "its images could not be fetched: its images are at http://manager.test.evil.example/ups/studies/1.2"
    )
    assert site.states() == ["CANCELED"]


def test_a_reason_with_line_breaks_is_not_taken_for_a_request_to_cancel(site: Site, clock: Clock) -> None:
    """The node wrote the reason, its change of state was lost, and meanwhile the job is retried."""
    job = job_of_new_study(site.ledger, clock())
    assert site.ledger.claim_job(job.id, "worker", 30) is not None
    site.work()
    site.ledger.fail_attempt(job.id, "worker", "no\n  memory", 1)
    site.work("", "", "request lost")  # retrieved, updated, not cancelled
    site.ledger.retry(job.id, "jane")
    site.catch_up()
    assert site.ledger.job(job.id).state == JobState.QUEUED
    assert site.states() == ["IN PROGRESS"]
    assert site.worklist.steps(site.uids()[0])[-1] == "progress: waits for a worker"


def test_only_one_process_tells_and_another_takes_over_when_it_dies(site: Site, clock: Clock) -> None:
    job_of_new_study(site.ledger, clock())
    site.ledger.follow_jobs(create=True)
    (item,) = site.ledger.due_work_items()
    assert site.ledger.take_work_item(item)
    assert not site.ledger.take_work_item(item)
    site.work()
    assert site.uids() == []
    clock.forward(LEASE_S + 1)  # nothing was heard of the first
    site.work()
    assert site.states() == ["SCHEDULED"]


def test_jobs_from_before_there_was_a_manager_are_not_told(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    job_of_new_study(ledger, clock())
    clock.forward(1)
    site = Site(ledger, clock, tmp_path)
    site.work()
    assert site.uids() == []


@pytest.mark.parametrize("outages", [[], ["", "request lost"], ["answer lost"]])
def test_the_item_of_a_study_that_is_erased_is_cancelled_and_names_it_no_more(
    site: Site, clock: Clock, outages: list[str]
) -> None:
    job = job_of_new_study(site.ledger, clock())
    site.work(*outages)
    study = job.study_instance_uid
    site.ledger.begin_erasure(study, "jane")
    assert site.ledger.erase_rows(study, "jane")["work items"] == 1
    assert site.ledger.work_items_of(study) == []
    (item,) = site.ledger.open_work_items()
    assert (item.study_instance_uid, item.inputs, item.job_id) == ("", (), None)
    site.catch_up()
    (progress,) = site.worklist.items[item.workitem_uid].ProcedureStepProgressInformationSequence
    assert progress.ReasonForCancellation == "the study was erased"
    assert site.states() == ["CANCELED"]
    assert site.ledger.open_work_items() == []


def test_without_a_manager_open_items_end(site: Site, clock: Clock) -> None:
    job = job_of_new_study(site.ledger, clock())
    site.work()
    without = site.settings.model_copy(update={"work_items": None})
    WorkItemPerformer(without, site.ledger, site.performer.archive).start()
    assert site.ledger.open_work_items() == []
    assert site.ledger.begin_work_items()  # if there is one again, it is told of jobs from then on
    assert site.ledger.job(job.id).state == JobState.QUEUED


def fetcher(site: Site) -> WorkItemFetcher:
    assert site.settings.work_items is not None
    return WorkItemFetcher(site.settings, site.settings.work_items, site.ledger, site.performer.archive)
