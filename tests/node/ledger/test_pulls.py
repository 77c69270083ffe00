"""A study that a query returns is entered once, held by one process at a time, and looked at again when it changes."""

from __future__ import annotations

import pytest

from node.ledger import AnnouncedStudy, Ledger, PullState, TransferCounts
from node.ledger.metrics import LEASES, PULLS
from pipeline.errors import InputError
from tests.node.conftest import Clock
from tests.node.ledger_factory import receive, uid

STUDY = uid("new")


def answer(ledger: Ledger, *studies: AnnouncedStudy, owner: str = "one", every_s: float = 60) -> int | None:
    """A query that returns these studies."""
    assert ledger.claim_pull_query("pacs", owner, 30)
    return ledger.end_pull_query("pacs", owner, studies, every_s, 10)


def found(ledger: Ledger, clock: Clock, images: int | None = 9) -> None:
    answer(ledger, AnnouncedStudy(STUDY, "20260301", images), every_s=0)
    clock.forward(11)


def state(ledger: Ledger) -> PullState:
    pull = ledger.pull(STUDY)
    assert pull is not None
    return pull.state


def test_a_query_is_made_by_one_process_and_again_after_the_pause(ledger: Ledger, clock: Clock) -> None:
    assert ledger.claim_pull_query("pacs", "one", 30)
    assert not ledger.claim_pull_query("pacs", "two", 30)
    assert ledger.claim_pull_query("another", "two", 30)
    assert ledger.end_pull_query("pacs", "two", (), 60, 0) is None, "it does not hold the query"
    assert ledger.end_pull_query("pacs", "one", (), 60, 0) == 0
    clock.forward(59)
    assert not ledger.claim_pull_query("pacs", "two", 30)
    clock.forward(2)
    assert ledger.claim_pull_query("pacs", "two", 30)
    clock.forward(31)
    assert ledger.claim_pull_query("pacs", "one", 30), "the other fell silent"


def test_a_query_that_fails_says_since_when_and_why(ledger: Ledger, clock: Clock) -> None:
    for why in ("does not answer", "is out of resources"):
        assert ledger.claim_pull_query("pacs", "one", 30)
        ledger.fail_pull_query("pacs", "one", why, 5)
        clock.forward(6)
    source = ledger.pull_sources()["pacs"]
    assert (source.attempts, source.why, source.queried_at) == (2, "is out of resources", None)
    assert source.failing_since is not None
    assert (clock() - source.failing_since).total_seconds() == 12
    answer(ledger)
    source = ledger.pull_sources()["pacs"]
    assert (source.attempts, source.why, source.failing_since, source.queried_at) == (0, "", None, clock())


def test_a_study_is_entered_once_and_held_by_one(ledger: Ledger, clock: Clock) -> None:
    study = AnnouncedStudy(STUDY, "20260301", 9)
    assert answer(ledger, study, study, every_s=0) == 1
    assert answer(ledger, study, every_s=0) == 0
    assert ledger.claim_pull("pacs", "one", 30) is None, "it may still grow"
    clock.forward(11)
    assert ledger.claim_pull("elsewhere", "one", 30) is None
    pull = ledger.claim_pull("pacs", "one", 30)
    assert pull is not None
    assert (pull.study_instance_uid, pull.announced, pull.attempts, pull.state) == (STUDY, 9, 1, PullState.FETCHING)
    assert ledger.claim_pull("pacs", "two", 30) is None
    assert not ledger.finish_pull(STUDY, "two", PullState.FETCHED, "")
    assert ledger.prolong_pull(STUDY, "one", 30)
    assert ledger.finish_pull(STUDY, "one", PullState.FETCHED, "", TransferCounts(9, 9), 9)
    assert answer(ledger, study, every_s=0) == 0
    clock.forward(1000)
    assert ledger.claim_pull("pacs", "one", 30) is None
    assert ledger.pull_counts() == {("pacs", "fetched"): 1}
    assert [change.to_state for change in ledger.history("pull", STUDY)] == ["waiting", "fetching", "fetched"]
    assert sum(t.number for t in ledger.tallies() if t.metric == PULLS.name) == 1


def test_what_a_silent_process_held_is_done_again(ledger: Ledger, clock: Clock) -> None:
    found(ledger, clock)
    assert ledger.claim_pull("pacs", "one", 30) is not None
    clock.forward(31)
    assert ledger.expire_pulls(clock()) == [STUDY]
    assert not ledger.prolong_pull(STUDY, "one", 30)
    again = ledger.claim_pull("pacs", "two", 30)
    assert again is not None
    assert again.attempts == 2
    assert [t.number for t in ledger.tallies() if t.metric == LEASES.name] == [1]


def test_a_study_that_grows_waits_until_it_is_quiet(ledger: Ledger, clock: Clock) -> None:
    found(ledger, clock, 3)
    answer(ledger, AnnouncedStudy(STUDY, "20260301", 7), every_s=0)
    assert ledger.claim_pull("pacs", "one", 30) is None
    clock.forward(11)
    assert ledger.claim_pull("pacs", "one", 30) is not None


@pytest.mark.parametrize("ended", [PullState.FETCHED, PullState.IGNORED, PullState.FAILED])
def test_a_study_that_has_more_images_is_looked_at_again(ledger: Ledger, clock: Clock, ended: PullState) -> None:
    found(ledger, clock)
    assert ledger.claim_pull("pacs", "one", 30) is not None
    ledger.finish_pull(STUDY, "one", ended, "")
    assert answer(ledger, AnnouncedStudy(STUDY, "20260301", 12), every_s=0) == 1
    assert state(ledger) is PullState.WAITING
    assert "it has 12 images, and had 9" in [change.why for change in ledger.history("pull", STUDY)]


def test_a_pacs_that_does_not_count_is_asked_again_after_an_hour(ledger: Ledger, clock: Clock) -> None:
    found(ledger, clock, None)
    assert ledger.claim_pull("pacs", "one", 30) is not None
    ledger.finish_pull(STUDY, "one", PullState.FETCHED, "")
    study = AnnouncedStudy(STUDY, "20260301")
    assert answer(ledger, study, every_s=0) == 0
    clock.forward(3601)
    assert answer(ledger, study, every_s=0) == 1


def test_an_attempt_that_failed_counts_and_one_that_did_not_does_not(ledger: Ledger, clock: Clock) -> None:
    found(ledger, clock)
    first = ledger.claim_pull("pacs", "one", 30)
    assert ledger.postpone_pull(STUDY, "one", "it still grows", 5, counted=12, failed=False)
    clock.forward(6)
    second = ledger.claim_pull("pacs", "one", 30)
    assert ledger.postpone_pull(STUDY, "one", "it does not answer", 5)
    clock.forward(6)
    third = ledger.claim_pull("pacs", "one", 30)
    assert first is not None
    assert second is not None
    assert third is not None
    assert [one.attempts for one in (first, second, third)] == [1, 1, 2]
    assert second.counted == 12
    assert third.first_attempt_at == second.first_attempt_at != first.first_attempt_at


def test_a_person_has_a_study_looked_at_again(ledger: Ledger, clock: Clock) -> None:
    with pytest.raises(InputError, match="no query has returned this study"):
        ledger.retry_pull(STUDY, "ada")
    found(ledger, clock)
    with pytest.raises(InputError, match="it is waiting already"):
        ledger.retry_pull(STUDY, "ada")
    assert ledger.claim_pull("pacs", "one", 30) is not None
    ledger.finish_pull(STUDY, "one", PullState.FAILED, "it does not answer")
    ledger.retry_pull(STUDY, "ada")
    assert ledger.claim_pull("pacs", "one", 30) is not None


def test_what_was_erased_is_not_fetched_again(ledger: Ledger, clock: Clock) -> None:
    receive(ledger, "new", clock())
    for series in ledger.series(STUDY):
        ledger.settle_series(series.series_instance_uid, "quiet")
    found(ledger, clock)
    assert ledger.claim_pull("pacs", "one", 30) is not None
    with pytest.raises(InputError, match="its images are being fetched"):
        ledger.begin_erasure(STUDY, "ada")
    ledger.finish_pull(STUDY, "one", PullState.FETCHED, "")
    ledger.begin_erasure(STUDY, "ada")
    ledger.erase_rows(STUDY, "ada")
    assert answer(ledger, AnnouncedStudy(STUDY, "20260301", 12), every_s=0) == 0
    assert state(ledger) is PullState.ERASED
    assert ledger.history("pull", STUDY) == []


def test_a_study_that_queries_no_longer_return_is_forgotten(ledger: Ledger, clock: Clock) -> None:
    found(ledger, clock)
    seen = clock()
    assert ledger.forget_pulls(seen) == 1
    assert ledger.pulls() == []


def test_after_the_clock_was_set_back_nothing_waits_for_weeks(ledger: Ledger, clock: Clock) -> None:
    clock.forward(1_000_000)
    found(ledger, clock)
    answer(ledger, every_s=500)
    clock.forward(-1_000_000)
    assert ledger.correct_future_times(clock(), 30, 900) > 0
    assert ledger.claim_pull_query("pacs", "one", 30)
    assert ledger.claim_pull("pacs", "one", 30) is not None
