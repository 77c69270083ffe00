"""A study waits for its earlier ones, but not for ever; on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from node.ledger import JobState, Ledger, NewJob, Priority, PriorState, StudyState, TransferCounts
from node.ledger.correction import Correction
from node.priors.waiting import catch_up, look, still_waits
from node.settings.priors import PriorsSettings
from tests.node.conftest import Clock
from tests.node.ledger_factory import analyse, deliver, open_job, receive, settle_and_route, uid

pytestmark = pytest.mark.slow

PACS = PriorsSettings.model_validate(
    {"dicom": {"ae_title": "PACS", "host": "pacs", "port": 104}, "wait_s": 100, "stat_wait_s": 5}
)
LEDGER = PriorsSettings(wait_s=100)


@pytest.fixture(autouse=True)
def now(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the time gets that of the test's clock."""

    class Turned:
        @staticmethod
        def now(_zone: object) -> Any:
            return clock()

    monkeypatch.setattr("node.priors.waiting.datetime", Turned)


def arrives(ledger: Ledger, clock: Clock, study: str = "present", date: str = "20260301", **given: Any) -> None:
    """A study arrives and settles, and is not routed."""
    receive(ledger, study, clock(), study_date=date, **given)
    ledger.settle_series(uid(study, "swi"), "quiet")


def analysed(ledger: Ledger, clock: Clock, study: str, date: str, **given: Any) -> None:
    arrives(ledger, clock, study, date, **given)
    settle_and_route(ledger, study)
    analyse(ledger, open_job(ledger, study, key=study))


def outlook(ledger: Ledger, settings: PriorsSettings = PACS, priority: Priority = Priority.ROUTINE) -> Any:
    answer = look(ledger, ledger.study(uid("present")), priority, settings)
    if answer.waits_for:
        ledger.hold_study(uid("present"), answer.waits_for)
    return answer


def fetched(ledger: Ledger, prior: str, date: str, owner: str = "asker") -> None:
    """What fetching does in the ledger, before the first image comes."""
    assert ledger.claim_prior_request(owner, 30) is not None
    assert ledger.begin_prior(uid("present"), owner, uid(prior), date, 3)


def test_a_study_without_a_pacs_to_ask_and_without_earlier_ones_waits_for_nothing(ledger: Ledger, clock: Clock) -> None:
    arrives(ledger, clock)
    assert outlook(ledger, LEDGER).waits_for == ""
    assert ledger.prior_request(uid("present")) is None


def test_a_study_waits_until_the_pacs_was_asked_and_the_fetched_study_is_analysed(ledger: Ledger, clock: Clock) -> None:
    arrives(ledger, clock)
    assert outlook(ledger).waits_for == "the PACS is being queried for priors"
    assert ledger.worklist()[0].state is StudyState.HELD
    assert still_waits(ledger, ledger.study(uid("present")))
    fetched(ledger, "prior", "20240503")
    arrives(ledger, clock, "prior", "20240503")
    assert ledger.study(uid("prior")).fetched
    ledger.end_prior(uid("present"), "asker", uid("prior"), PriorState.FETCHED, "", TransferCounts(3, 3))
    ledger.finish_prior_request(uid("present"), "asker", PriorState.FETCHED, "fetched")
    assert still_waits(ledger, ledger.study(uid("present")))
    assert ledger.study(uid("present")).why == "the prior of 2024-05-03 is analysed first"
    settle_and_route(ledger, "prior")
    analyse(ledger, open_job(ledger, "prior", key="prior", destinations=()))
    assert not still_waits(ledger, ledger.study(uid("present")))
    assert outlook(ledger).notes == ()
    settle_and_route(ledger, "present")
    assert ledger.study(uid("present")).held_since is None


@pytest.mark.parametrize(("priority", "waits_s"), [(Priority.ROUTINE, 100), (Priority.STAT, 5)])
def test_a_study_waits_no_longer_than_the_settings_say(
    ledger: Ledger, clock: Clock, priority: Priority, waits_s: int
) -> None:
    arrives(ledger, clock)
    outlook(ledger, priority=priority)
    clock.forward(waits_s - 1)
    assert still_waits(ledger, ledger.study(uid("present")))
    clock.forward(1)
    assert not still_waits(ledger, ledger.study(uid("present")))
    assert outlook(ledger).notes == (f"no comparison: the PACS had not sent the priors after {waits_s} s",)
    assert ledger.prior_request(uid("present")).late  # type: ignore[union-attr]


def test_a_pacs_that_cannot_be_asked_is_told_of_in_the_result(ledger: Ledger, clock: Clock) -> None:
    arrives(ledger, clock)
    outlook(ledger)
    assert ledger.claim_prior_request("asker", 30) is not None
    ledger.put_off_prior_request(uid("present"), "asker", "it is down", None)
    assert outlook(ledger).notes == ("no comparison: the priors could not be fetched (it is down)",)


def test_an_older_study_of_the_ledger_is_compared_with_when_the_pacs_fails(ledger: Ledger, clock: Clock) -> None:
    analysed(ledger, clock, "older", "20200110")
    arrives(ledger, clock)
    outlook(ledger)
    ledger.claim_prior_request("asker", 30)
    ledger.put_off_prior_request(uid("present"), "asker", "it is down", None)
    (note,) = outlook(ledger).notes
    assert note.startswith("compared with an older prior instead: the priors could not")


def test_two_studies_that_are_sent_together_are_analysed_in_the_order_of_their_dates(
    ledger: Ledger, clock: Clock
) -> None:
    arrives(ledger, clock)
    receive(ledger, "prior", clock(), study_date="20240503")
    assert outlook(ledger, LEDGER).waits_for == "the prior of 2024-05-03 is analysed first"
    settle_and_route(ledger, "prior")
    analyse(ledger, open_job(ledger, "prior", key="prior"))
    assert outlook(ledger, LEDGER).waits_for == ""


@pytest.mark.parametrize(
    ("date", "given"),
    [
        ("20240503", {"patient_id": "P2"}),
        ("20260301", {"study_time": "070000"}),
        ("20270101", {}),
        ("", {}),
    ],
)
def test_what_cannot_be_compared_with_is_not_waited_for(
    ledger: Ledger, clock: Clock, date: str, given: dict[str, str]
) -> None:
    arrives(ledger, clock)
    receive(ledger, "other", clock(), study_date=date, **given)
    assert outlook(ledger, LEDGER).waits_for == ""


def test_an_old_study_in_the_works_is_not_waited_for_when_a_later_one_is_analysed(ledger: Ledger, clock: Clock) -> None:
    analysed(ledger, clock, "later", "20250101")
    receive(ledger, "older", clock(), study_date="20200110")
    arrives(ledger, clock)
    assert outlook(ledger, LEDGER).waits_for == ""


def late(ledger: Ledger, clock: Clock) -> None:
    """The study is analysed without its earlier one, which comes after."""
    arrives(ledger, clock)
    outlook(ledger)
    fetched(ledger, "prior", "20240503")
    clock.forward(100)
    notes = outlook(ledger).notes
    settle_and_route(ledger, "present")
    ledger.open_job(
        NewJob(
            key="alone",
            study_instance_uid=uid("present"),
            swi_series_uid=uid("present", "swi"),
            profile="frst",
            warnings=notes,
        )
    )
    analyse(ledger, ledger.jobs_of_study(uid("present"))[0], total=0)
    arrives(ledger, clock, "prior", "20240503")
    ledger.end_prior(uid("present"), "asker", uid("prior"), PriorState.FETCHED, "", TransferCounts(3, 3))
    ledger.finish_prior_request(uid("present"), "asker", PriorState.FETCHED, "fetched")


@pytest.mark.parametrize(("choice", "again"), [("replace", True), ("keep", False)])
def test_a_late_earlier_study_has_the_result_replaced_or_kept(
    ledger: Ledger, clock: Clock, choice: str, again: bool
) -> None:
    settings = PACS.model_copy(update={"late": choice})
    late(ledger, clock)
    assert "was not ready" not in ledger.jobs_of_study(uid("present"))[0].warnings[0]
    catch_up(ledger, settings)
    assert ledger.studies_ready() == [ledger.study(uid("prior"))], "not before the earlier study is analysed"
    settle_and_route(ledger, "prior")
    analyse(ledger, open_job(ledger, "prior", key="prior", destinations=()))
    catch_up(ledger, settings)
    assert (ledger.study(uid("present")) in ledger.studies_ready()) is again
    assert outlook(ledger, settings).waits_for == "" or not again
    revision = ledger.study(uid("present")).revision
    catch_up(ledger, settings)
    assert ledger.study(uid("present")).revision == revision, "once is enough"


def test_what_a_reader_corrected_is_not_replaced_by_itself(ledger: Ledger, clock: Clock) -> None:
    late(ledger, clock)
    deliver(ledger)
    job = ledger.jobs_of_study(uid("present"))[0]
    assert job.state is JobState.DELIVERED
    ledger.open_correction(job.id, Correction("Dr. Reader", "Hospital", (), (), "all right"), "reader")
    settle_and_route(ledger, "prior")
    analyse(ledger, open_job(ledger, "prior", key="prior", destinations=()))
    catch_up(ledger, PACS)
    assert ledger.study(uid("present")) not in ledger.studies_ready()


def test_a_job_for_comparison_only_makes_way_when_the_study_is_sent(ledger: Ledger, clock: Clock) -> None:
    analysed(ledger, clock, "prior", "20240503")
    compared = ledger.open_job(
        NewJob(key="compared", study_instance_uid=uid("prior"), swi_series_uid=uid("prior", "swi"), profile="frst")
    )
    analyse(ledger, compared)
    sent = open_job(ledger, "prior", key="compared")
    assert sent.id != compared.id
    assert (sent.state, sent.destinations, sent.supersedes) == (JobState.QUEUED, ("pacs",), compared.id)
    assert ledger.job(compared.id).superseded_by == sent.id
    assert open_job(ledger, "prior", key="compared").id == sent.id


def test_requests_are_claimed_by_urgency_and_taken_back_from_the_silent(ledger: Ledger, clock: Clock) -> None:
    for name, priority in (("present", Priority.ROUTINE), ("urgent", Priority.STAT)):
        arrives(ledger, clock, name, patient_id=name)
        ledger.ask_for_priors(uid(name), priority, 60)
    first = ledger.claim_prior_request("asker", 10)
    assert first is not None
    assert first.study_instance_uid == uid("urgent")
    assert ledger.prolong_prior_request(uid("urgent"), "asker", 10)
    clock.forward(11)
    assert ledger.expire_prior_requests(clock(), 2) == [uid("urgent")]
    assert not ledger.finish_prior_request(uid("urgent"), "asker", PriorState.NONE, "too late")
    ledger.claim_prior_request("asker", 10)
    assert ledger.expire_prior_requests(clock() + timedelta(seconds=11), 2) == [uid("urgent")]
    last = ledger.prior_request(uid("urgent"))
    assert last is not None
    assert last.state is PriorState.FAILED
    assert ledger.prior_counts() == {"waiting": 1, "failed": 1}


@pytest.mark.parametrize(
    ("requested", "state", "after_s", "is_fetched"),
    [
        (None, PriorState.ASKED, 0, True),
        (True, PriorState.ASKED, 0, True),
        (False, PriorState.ASKED, 0, False),
        (True, PriorState.FETCHED, 0, True),
        (None, PriorState.FETCHED, 0, False),
        (None, PriorState.FAILED, 10, True),
        (None, PriorState.FAILED, 1000, False),
        (True, None, 0, False),
    ],
)
def test_an_image_is_told_to_be_fetched_or_sent(
    ledger: Ledger, clock: Clock, requested: bool | None, state: PriorState | None, after_s: float, is_fetched: bool
) -> None:
    arrives(ledger, clock)
    outlook(ledger)
    if state is not None:
        fetched(ledger, "prior", "20240503")
        if state is not PriorState.ASKED:
            ledger.end_prior(uid("present"), "asker", uid("prior"), state, "", TransferCounts())
    clock.forward(after_s)
    receive(ledger, "prior", clock(), study_date="20240503", requested=requested)
    assert ledger.study(uid("prior")).fetched is is_fetched
