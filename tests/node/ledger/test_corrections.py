from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.ledger import (
    AddedMicrobleed,
    Correction,
    DeliveryState,
    Job,
    JobState,
    Ledger,
    LesionVerdict,
    NewJob,
    Priority,
)
from pipeline.errors import InputError
from tests.node.conftest import Clock
from tests.node.ledger_factory import analyse, deliver, findings, instance, job_of_new_study, open_job, results, uid

pytestmark = pytest.mark.slow

CORRECTION = Correction("Reader^Ada", "General Hospital")
REJECTING = Correction("Reader^Ada", "General Hospital", (LesionVerdict(uid("lesion", 1), False),))


def document(lesions: int = 2) -> dict[str, Any]:
    """Findings with so many bleeds, 4 mm wide, 10 mm apart."""
    given = findings(lesions)
    given["lesions"] = [
        {"id": n, "tracking_uid": uid("lesion", n), "centroid_lps_mm": [10.0 * n, 0.0, 0.0], "diameter_mm": 4.0}
        for n in range(1, lesions + 1)
    ]
    return given


def finish(ledger: Ledger, job: Job) -> Job:
    assert ledger.claim_job(job.id, "worker", 30) is not None
    assert ledger.finish_analysis(job.id, "worker", document(), results("sr", "seg"))
    return ledger.job(job.id)


@pytest.fixture
def analysed(ledger: Ledger, clock: Clock) -> Job:
    """A job whose results are on their way."""
    return finish(ledger, job_of_new_study(ledger, clock(), key="images"))


def test_a_correction_is_a_job_in_the_place_of_the_one_it_corrects(ledger: Ledger, analysed: Job) -> None:
    assert deliver(ledger) == 2
    job = ledger.open_correction(analysed.id, REJECTING, "ada")
    assert (job.state, job.supersedes, job.correction) == (JobState.QUEUED, analysed.id, REJECTING)
    assert (job.destinations, job.series_uids, job.profile) == (("pacs",), analysed.series_uids, analysed.profile)
    assert job.priority is Priority.HIGH  # a person waits
    assert ledger.study(uid("study")).current_job_id == job.id
    before = ledger.job(analysed.id)
    assert (before.state, before.superseded_by) == (JobState.DELIVERED, job.id)
    assert [(c.actor, c.why) for c in ledger.history("job", job.id)] == [
        ("ada", f"correction of job {analysed.id} by Reader^Ada: 1 rejected")
    ]
    assert ledger.history("job", analysed.id)[-1].actor == "ada"
    assert [waiting.id for waiting in ledger.queued_jobs()] == [job.id]
    assert finish(ledger, job).state is JobState.DELIVERING
    assert ledger.predecessor(job.id) == before


def test_what_was_not_delivered_of_the_result_is_not_sent_any_more(ledger: Ledger, analysed: Job) -> None:
    ledger.open_correction(analysed.id, CORRECTION, "ada")
    assert ledger.job(analysed.id).state is JobState.SUPERSEDED
    assert {d.state for d in ledger.deliveries(analysed.id)} == {DeliveryState.CANCELLED}


def test_the_same_correction_twice_is_one_job(ledger: Ledger, analysed: Job) -> None:
    first = ledger.open_correction(analysed.id, REJECTING, "ada")
    assert ledger.open_correction(analysed.id, REJECTING, "ada").id == first.id
    assert len(ledger.jobs_of_study(uid("study"))) == 2


def test_a_superseded_result_cannot_be_corrected_and_names_the_newest(ledger: Ledger, analysed: Job) -> None:
    second = ledger.open_correction(analysed.id, REJECTING, "ada")
    finish(ledger, second)
    third = ledger.open_correction(second.id, CORRECTION, "ada")
    with pytest.raises(InputError, match=rf"superseded meanwhile by job {third.id}, the correction by Reader\^Ada"):
        ledger.open_correction(analysed.id, Correction("Other", "Clinic"), "bob")
    assert len(ledger.jobs_of_study(uid("study"))) == 3


def test_a_result_whose_images_change_cannot_be_corrected(ledger: Ledger, analysed: Job, clock: Clock) -> None:
    ledger.record_instance(instance("study", "swi", 99, clock()))
    with pytest.raises(InputError, match="images arrived after it was analysed"):
        ledger.open_correction(analysed.id, CORRECTION, "ada")


def test_a_result_whose_images_are_gone_cannot_be_corrected(ledger: Ledger, analysed: Job, clock: Clock) -> None:
    deliver(ledger)
    assert ledger.mark_removed(uid("study"), clock())
    with pytest.raises(InputError, match="no longer in the archive"):
        ledger.open_correction(analysed.id, CORRECTION, "ada")
    assert len(ledger.jobs_of_study(uid("study"))) == 1


def test_retention_leaves_images_alone_that_a_correction_needs(ledger: Ledger, analysed: Job, clock: Clock) -> None:
    deliver(ledger)
    later = clock() + timedelta(days=40)
    assert ledger.removable_studies(later, 30) == [uid("study")]
    ledger.open_correction(analysed.id, CORRECTION, "ada")  # between the question and the act
    assert not ledger.mark_removed(uid("study"), later)
    assert ledger.job_paths(analysed.id)


@pytest.mark.parametrize(
    ("correction", "complaint"),
    [
        (Correction(" ", "Hospital"), "requires the observer"),
        (Correction("Reader", ""), "requires the organisation"),
        (Correction("Rea\\der", "Hospital"), "not suitable for a DICOM report"),
        (Correction("R" * 65, "Hospital"), "not suitable for a DICOM report"),
        (Correction("Reader", "Hospital", comment="x" * 1025), "comment is longer"),
        (Correction("Reader", "Hospital", (LesionVerdict("1.2.3", False),)), "no microbleed 1.2.3"),
        (Correction("Reader", "Hospital", (LesionVerdict("1", True), LesionVerdict("1", False))), "has two verdicts"),
        (Correction("Reader", "Hospital", (), (AddedMicrobleed((math.nan, 0, 0)),)), "is not finite"),
        (Correction("Reader", "Hospital", (), (AddedMicrobleed((11.0, 0, 0)),)), "microbleed 1 is already at"),
        (Correction("Reader", "Hospital", (), (AddedMicrobleed((0, 0, 0)),) * 501), "more than 500"),
    ],
)
def test_a_correction_that_fits_not_opens_nothing(
    ledger: Ledger, analysed: Job, correction: Correction, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        ledger.open_correction(analysed.id, correction, "ada")
    assert ledger.job(analysed.id) == analysed


def test_a_bleed_may_be_added_where_one_is_rejected(ledger: Ledger, analysed: Job) -> None:
    moved = Correction("Reader", "Hospital", REJECTING.verdicts, (AddedMicrobleed((11.0, 0, 0)),))
    assert ledger.open_correction(analysed.id, moved, "ada").correction == moved


def test_what_is_not_analysed_cannot_be_corrected(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock())
    with pytest.raises(InputError, match="it is queued, not analysed; wait"):
        ledger.open_correction(job.id, CORRECTION, "ada")
    ledger.claim_job(job.id, "worker", 30)
    ledger.fail_attempt(job.id, "worker", "broken", 3, permanent=True)
    with pytest.raises(InputError, match="it is failed, not analysed; retry"):
        ledger.open_correction(job.id, CORRECTION, "ada")
    with pytest.raises(InputError, match="no such job"):
        ledger.open_correction(job.id + 1, CORRECTION, "ada")


def test_a_correction_that_failed_can_be_replaced_by_another(ledger: Ledger, analysed: Job) -> None:
    broken = ledger.open_correction(analysed.id, REJECTING, "ada")
    ledger.claim_job(broken.id, "worker", 30)
    ledger.fail_attempt(broken.id, "worker", "the disk is gone", 3, permanent=True)
    again = ledger.open_correction(broken.id, CORRECTION, "ada")
    assert ledger.job(broken.id).state is JobState.SUPERSEDED
    assert again.key == CORRECTION.key(analysed.key)  # it corrects what was analysed
    assert [job.id for job in ledger.corrected(again.id)] == [analysed.id]


def test_corrections_of_corrections_know_what_they_rest_on(ledger: Ledger, analysed: Job) -> None:
    second = ledger.open_correction(analysed.id, REJECTING, "ada")
    finish(ledger, second)
    third = ledger.open_correction(second.id, CORRECTION, "ada")
    assert [job.id for job in ledger.corrected(third.id)] == [second.id, analysed.id]
    assert ledger.corrected(analysed.id) == []


def test_routing_the_same_images_again_leaves_the_correction_standing(ledger: Ledger, analysed: Job) -> None:
    job = ledger.open_correction(analysed.id, REJECTING, "ada")
    assert open_job(ledger, key="images").id == job.id  # as when a localiser arrives late
    finish(ledger, job)
    assert open_job(ledger, key="images").id == job.id
    assert ledger.job(job.id).state is JobState.DELIVERING


def test_a_correction_stands_until_its_images_or_its_profile_change(ledger: Ledger, analysed: Job) -> None:
    job = ledger.open_correction(analysed.id, REJECTING, "ada")
    assert open_job(ledger, key="compared with another result of the earlier study").id == job.id
    new = NewJob(
        key="other", study_instance_uid=uid("study"), swi_series_uid=uid("study", "swi"), profile="another profile"
    )
    other = ledger.open_job(new)
    assert other.id != job.id
    assert f"(job {job.id})" in other.warnings[0]


def test_late_images_supersede_a_correction_and_the_new_result_says_so(
    ledger: Ledger, analysed: Job, clock: Clock
) -> None:
    job = ledger.open_correction(analysed.id, REJECTING, "ada")
    finish(ledger, job)
    for number in (90, 91):
        ledger.record_instance(instance("study", "swi", number, clock()))
        ledger.settle_series(uid("study", "swi"), "quiet")
        new = open_job(ledger, key=f"images and {number}")
        assert len(new.warnings) == 1
        assert f"the correction by Reader^Ada of {clock():%Y-%m-%d} (job {job.id})" in new.warnings[0]
        assert f"job {new.id} is a new analysis" in new.warnings[0]
    assert (ledger.job(job.id).state, ledger.job(job.id).superseded_by) == (JobState.SUPERSEDED, job.id + 1)
    finish(ledger, new)
    anew = ledger.open_correction(new.id, CORRECTION, "ada")
    assert anew.warnings == ()  # it was read anew


def test_a_correction_waits_while_its_images_change(ledger: Ledger, analysed: Job, clock: Clock) -> None:
    job = ledger.open_correction(analysed.id, REJECTING, "ada")
    ledger.record_instance(instance("study", "swi", 99, clock()))
    assert ledger.claim_job(job.id, "worker", 30) is None


def test_of_two_readers_one_wins_and_the_other_is_told(ledger: Ledger, clock: Clock) -> None:
    for number in range(6):
        job = finish(ledger, job_of_new_study(ledger, clock(), f"study-{number}"))
        start = Barrier(2)

        def correct(observer: str, job: Job = job, start: Barrier = start) -> int | str:
            start.wait()
            try:
                return ledger.open_correction(job.id, Correction(observer, "Hospital"), observer).id
            except InputError as error:
                return str(error)

        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(correct, ("Ada", "Bob")))
        won = [outcome for outcome in outcomes if isinstance(outcome, int)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert len(won) == 1
        winner = ledger.job(won[0]).correction
        assert winner is not None
        assert f"superseded meanwhile by job {won[0]}, the correction by {winner.observer}" in lost[0]


names = st.text(min_size=1, max_size=64)
places = st.tuples(*[st.floats(-500, 500)] * 3)
corrections = st.builds(
    Correction,
    names,
    names,
    st.lists(st.builds(LesionVerdict, st.from_regex(r"2\.25\.[1-9][0-9]{0,9}", fullmatch=True), st.booleans())).map(
        tuple
    ),
    st.lists(st.builds(AddedMicrobleed, places, st.sampled_from(["definite", "possible"]))).map(tuple),
    st.text(max_size=50),
)


@given(corrections, corrections)
def test_a_correction_survives_storage_and_its_key_names_it(one: Correction, other: Correction) -> None:
    assert Correction.from_json(one.to_json()).to_json() == one.to_json()
    assert (one.key("k") == other.key("k")) == (one.to_json() == other.to_json())
    assert one.key("k") != one.key("l")


def test_analysis_without_corrections_is_as_before(ledger: Ledger, clock: Clock) -> None:
    job = job_of_new_study(ledger, clock(), key="plain")
    analyse(ledger, job)
    assert ledger.job(job.id).correction is None
    assert open_job(ledger, key="other").warnings == ()
