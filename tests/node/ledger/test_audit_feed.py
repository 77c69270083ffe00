"""What an audit repository is told: everything from the beginning on, in order, by one process at a time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from node.ledger import FeedBatch, Ledger, ObjectRefused, Priority, PriorQuery, SeriesReceived
from node.ledger.access_records import AuditAction, AuditEntry
from node.ledger.audit_feed import MOST
from tests.node.conftest import Clock
from tests.node.ledger_factory import MR, instance, receive, settle_and_route, uid


@pytest.fixture
def feed(ledger: Ledger, clock: Clock) -> Ledger:
    """A ledger with an audit repository, and something that happened before there was one."""
    ledger.record_access("ada", AuditAction.SIGN_IN)
    receive(ledger, "before", clock())
    settle_and_route(ledger, "before")
    assert ledger.begin_feed()
    clock.forward(1)
    return ledger


def looks(ledger: Ledger, clock: Clock, *names: str) -> None:
    for name in names:
        clock.forward(1)
        ledger.record_access(name, AuditAction.LIST)


def users(batch: FeedBatch | None) -> list[str]:
    assert batch is not None
    return [event.user_name for event in batch.events if isinstance(event, AuditEntry)]


def test_what_happened_before_there_was_a_repository_is_not_told(feed: Ledger) -> None:
    assert feed.claim_feed() is None
    assert not feed.begin_feed()


def test_a_batch_is_told_once(feed: Ledger, clock: Clock) -> None:
    looks(feed, clock, "ada", "bob")
    batch = feed.claim_feed()
    assert users(batch) == ["ada", "bob"]
    assert batch is not None
    assert feed.feed_sent(batch)
    looks(feed, clock, "eve")
    assert users(feed.claim_feed()) == ["eve"]


def test_a_batch_that_could_not_be_sent_waits_and_comes_again(feed: Ledger, clock: Clock) -> None:
    looks(feed, clock, "ada")
    since = clock()
    for attempt in (1, 2, 3):
        batch = feed.claim_feed()
        assert batch is not None
        assert batch.attempts == attempt
        feed.postpone_feed(batch, 60, "no route")
        assert feed.claim_feed() is None
        looks(feed, clock, f"later-{attempt}")
        clock.forward(60)
    state = feed.feed_state()
    assert state is not None
    assert (state.waiting, state.oldest_at, state.why) == (4, since, "no route")
    assert users(feed.claim_feed()) == ["ada", "later-1", "later-2", "later-3"]


def test_one_process_sends_at_a_time_and_another_takes_over_from_one_that_died(feed: Ledger, clock: Clock) -> None:
    looks(feed, clock, "ada")
    first = feed.claim_feed()
    assert first is not None
    assert feed.claim_feed() is None
    clock.forward(121)
    second = feed.claim_feed()
    assert second is not None
    assert feed.feed_sent(second)
    assert not feed.feed_sent(first)


def test_a_long_backlog_of_people_and_images_is_told_in_the_order_of_time(feed: Ledger, clock: Clock) -> None:
    for number in range(MOST + 60):
        looks(feed, clock, f"user-{number}")
        if number % 4 == 0:
            receive(feed, f"study-{number}", clock(), slices=1)
            clock.forward(1)
            feed.settle_series(uid(f"study-{number}", "swi"), "quiet")
    told: list[datetime] = []
    batches = 0
    while (batch := feed.claim_feed()) is not None:
        told += [event.at for event in batch.events]
        assert feed.feed_sent(batch)
        batches += 1
    assert batches == 2
    assert len(told) == MOST + 60 + 65
    assert told == sorted(told)


def test_images_are_told_when_their_series_is_complete_by_sender_and_again_if_more_come(
    feed: Ledger, clock: Clock
) -> None:
    receive(feed, "study", clock(), calling_ae="MR1", peer="10.0.0.1")
    clock.forward(1)
    feed.record_instance(instance("study", "swi", 3, clock(), calling_ae="MR2", peer="10.0.0.2"))
    assert feed.claim_feed() is None
    clock.forward(10)
    feed.settle_series(uid("study", "swi"), "quiet")
    clock.forward(10)
    feed.record_instance(instance("study", "swi", 4, clock(), calling_ae="MR1", peer="10.0.0.1"))
    clock.forward(10)
    feed.settle_series(uid("study", "swi"), "quiet")
    batch = feed.claim_feed()
    assert batch is not None
    events = [event for event in batch.events if isinstance(event, SeriesReceived)]
    assert [(one.calling_ae, one.peer, one.sop_classes, one.is_more) for one in events] == [
        ("MR1", "10.0.0.1", ((MR, 3),), False),
        ("MR2", "10.0.0.2", ((MR, 1),), False),
        ("MR1", "10.0.0.1", ((MR, 1),), True),
    ]
    assert {(one.study_instance_uid, one.patient_id) for one in events} == {(uid("study"), "P1")}


def test_queries_for_priors_and_refused_objects_are_told(feed: Ledger, clock: Clock) -> None:
    receive(feed, "study", clock())
    feed.ask_for_priors(uid("study"), Priority.ROUTINE, 600)
    assert feed.claim_prior_request("fetcher", 30) is not None
    feed.quarantine(instance("odd", "swi", 0, clock(), calling_ae="MR1"), "quarantine/1", "no patient")
    batch = feed.claim_feed()
    assert batch is not None
    query, refused = batch.events
    assert isinstance(query, PriorQuery)
    assert query.study.patient_id == "P1"
    assert refused == ObjectRefused(clock(), uid("odd"), "MR1", "", "no patient")


def test_what_was_erased_is_told_without_its_patient_and_the_feed_goes_on(feed: Ledger, clock: Clock) -> None:
    receive(feed, "study", clock())
    feed.settle_series(uid("study", "swi"), "quiet")
    clock.forward(1)
    feed.begin_erasure(uid("study"), "root")
    clock.forward(1)
    feed.erase_rows(uid("study"), "root")
    batch = feed.claim_feed()
    assert batch is not None
    told = [(event.action, event.study_instance_uid, event.patient_id) for event in batch.events]  # type: ignore[union-attr]
    assert told == [(AuditAction.ERASED, uid("study"), "")] * 2


def test_a_feed_that_ended_begins_anew(feed: Ledger, clock: Clock) -> None:
    looks(feed, clock, "ada")
    feed.end_feed()
    assert feed.feed_state() is None
    feed.begin_feed()
    looks(feed, clock, "bob")
    assert users(feed.claim_feed()) == ["bob"]


def test_a_clock_that_was_set_back_does_not_stop_the_feed(feed: Ledger, clock: Clock) -> None:
    looks(feed, clock, "ada")
    batch = feed.claim_feed()
    assert batch is not None
    feed.postpone_feed(batch, 60, "no route")
    clock.forward(-86_400)
    assert feed.claim_feed() is None
    assert feed.correct_future_times(clock(), lease_s=30, longest_pause_s=900) > 0
    assert users(feed.claim_feed()) == ["ada"]


def test_a_row_that_appears_after_later_ones_is_not_passed_over(postgresql_url: str, clock: Clock) -> None:
    """On PostgreSQL a transaction may end after one that began later, and its row has the smaller number."""
    from tests.node.conftest import empty_database

    empty_database(postgresql_url)
    clock.now = datetime.now(UTC)
    ledger = Ledger(postgresql_url, clock=clock)
    ledger.begin_feed()
    looks(ledger, clock, "first")
    with ledger.engine.connect() as slow:
        slow.execute(
            text("INSERT INTO audit (at, user_name, action) VALUES (:at, 'slow', 'looked at the list')"),
            {"at": clock()},
        )
        looks(ledger, clock, "last")
        batch = ledger.claim_feed()
        assert users(batch) == ["first"]
        assert batch is not None
        ledger.feed_sent(batch)
        assert ledger.claim_feed() is None
        slow.commit()
    batch = ledger.claim_feed()
    assert users(batch) == ["slow", "last"]
    assert batch is not None
    ledger.feed_sent(batch)
    with ledger.engine.connect() as failed:  # a number that is never used holds nothing up for long
        failed.execute(text("SELECT nextval('audit_id_seq')"))
    looks(ledger, clock, "after")
    assert ledger.claim_feed() is None
    clock.forward(31)
    assert users(ledger.claim_feed()) == ["after"]
    ledger.close()
