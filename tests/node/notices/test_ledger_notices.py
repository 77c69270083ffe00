"""What is to be told is noted once, kept until it was sent, and sent again with the same content."""

from __future__ import annotations

from datetime import timedelta

from node.ledger import Ledger, NoticeCondition, NoticeMessage, Priority
from tests.node.conftest import Clock
from tests.node.ledger_factory import analyse, job_of_new_study, uid

KINDS = ("stat", "failed", "destination")
DOWN = NoticeCondition("destination", "pacs", "pacs is down")


def told(message: NoticeMessage | None) -> list[tuple[str, str, bool]]:
    assert message is not None
    return [(one.kind, one.subject, one.is_over) for one in message.notices]


def fail(ledger: Ledger, job_id: int) -> None:
    ledger.claim_job(job_id, "w", 30)
    ledger.fail_attempt(job_id, "w", "no SWI", 3, permanent=True)


def test_what_happened_before_is_not_told(ledger: Ledger, clock: Clock) -> None:
    fail(ledger, job_of_new_study(ledger, clock()).id)
    assert ledger.note("webhook", KINDS, []) == 0
    clock.forward(10)
    assert ledger.note("webhook", KINDS, []) == 0
    assert ledger.next_message("webhook", 0) is None


def test_each_event_is_noted_once_for_each_way(ledger: Ledger, clock: Clock) -> None:
    for channel in ("webhook", "email"):
        ledger.note(channel, KINDS, [])
    clock.forward(1)
    fail(ledger, (failed := job_of_new_study(ledger, clock(), "failed")).id)
    analyse(ledger, stat := job_of_new_study(ledger, clock(), "stat", priority=Priority.STAT), total=3)
    analyse(ledger, job_of_new_study(ledger, clock(), "routine"))
    for channel in ("webhook", "email"):
        assert [ledger.note(channel, KINDS, [DOWN]) for _ in range(3)] == [3, 0, 0]
        if channel == "email":
            ledger.retry(failed.id, "ada")
        message = ledger.next_message(channel, 60)
        assert message is not None
        assert [one.detail for one in message.notices] == ["delivery", "analysis", "pacs is down"], "as it was then"
        assert told(message) == [
            ("stat", str(stat.id), False), ("failed", str(failed.id), False), ("destination", "pacs", False),
        ]  # fmt: skip
        assert message is not None
        job = message.notices[0].job
        assert job is not None
        assert (job.study_instance_uid, job.total, job.definite) == (uid("stat"), 3, 1)
        ledger.message_sent(message.id)
        assert ledger.next_message(channel, 0) is None


def test_a_kind_that_nobody_wants_is_left_out(ledger: Ledger, clock: Clock) -> None:
    ledger.note("email", ("failed",), [])
    clock.forward(1)
    analyse(ledger, job_of_new_study(ledger, clock(), priority=Priority.STAT))
    assert ledger.note("email", ("failed",), [DOWN]) == 0


def test_a_job_that_fails_again_is_told_again(ledger: Ledger, clock: Clock) -> None:
    ledger.note("email", KINDS, [])
    job = job_of_new_study(ledger, clock.forward(1))
    for _ in range(2):
        fail(ledger, job.id)
        assert ledger.note("email", KINDS, []) == 1
        ledger.retry(job.id, "ada")
        clock.forward(60)
    assert ledger.note("email", KINDS, []) == 0


def test_a_storm_is_one_message(ledger: Ledger, clock: Clock) -> None:
    ledger.note("email", KINDS, [])
    for number in range(6):
        fail(ledger, job_of_new_study(ledger, clock.forward(1), f"study {number}").id)
        ledger.note("email", KINDS, [])
        assert ledger.next_message("email", 60) is None
    clock.forward(60)
    message = ledger.next_message("email", 60)
    assert message is not None
    assert len(message.notices) == 6
    ledger.message_sent(message.id)
    assert ledger.next_message("email", 60) is None


def test_a_stat_result_waits_for_nothing(ledger: Ledger, clock: Clock) -> None:
    ledger.note("email", KINDS, [])
    analyse(ledger, job_of_new_study(ledger, clock.forward(1), priority=Priority.STAT))
    ledger.note("email", KINDS, [])
    assert len(told(ledger.next_message("email", 3600))) == 1


def test_a_condition_is_told_when_it_begins_and_when_it_is_over(ledger: Ledger, clock: Clock) -> None:
    assert [ledger.note("email", KINDS, [DOWN]) for _ in range(3)] == [1, 0, 0]
    message = ledger.next_message("email", 0)
    assert message is not None
    ledger.message_sent(message.id)
    clock.forward(60)
    assert [ledger.note("email", KINDS, one) for one in ([], [DOWN], [], [DOWN])] == [0] * 4, "no news"
    clock.forward(600)
    assert [ledger.note("email", KINDS, []) for _ in range(3)] == [1, 0, 0]
    assert told(ledger.next_message("email", 0)) == [("destination", "pacs", True)]
    assert ledger.note("email", KINDS, [DOWN]) == 1


def test_a_message_that_was_not_sent_comes_again_with_the_same_content(ledger: Ledger, clock: Clock) -> None:
    ledger.note("email", KINDS, [DOWN])
    first = ledger.next_message("email", 0)
    assert first is not None
    assert ledger.next_message("email", 0) is None, "it is being sent"
    ledger.postpone_message(first.id, 30)
    fail(ledger, job_of_new_study(ledger, clock.forward(10)).id)
    ledger.note("email", KINDS, [DOWN])
    assert ledger.next_message("email", 0) is None, "it pauses, and what came later waits behind it"
    clock.forward(30)
    again = ledger.next_message("email", 0)
    assert again is not None
    assert (again.id, again.notices, again.attempts) == (first.id, first.notices, 2)
    ledger.message_sent(again.id)
    assert len(told(ledger.next_message("email", 0))) == 1


def test_a_clock_that_was_set_back_does_not_put_a_message_off(ledger: Ledger, clock: Clock) -> None:
    month = 30 * 86_400
    clock.forward(month)
    ledger.note("email", KINDS, [DOWN])
    ledger.note("webhook", KINDS, [DOWN])
    first = ledger.next_message("email", 0)
    assert first is not None
    ledger.postpone_message(first.id, 900)
    now = clock.forward(-month)
    assert ledger.next_message("email", 60) is ledger.next_message("webhook", 60) is None
    ledger.correct_future_times(now, lease_s=30, longest_pause_s=900)
    assert ledger.correct_future_times(now, lease_s=30, longest_pause_s=900) == 0
    clock.forward(60)
    again = ledger.next_message("email", 60)
    assert again is not None
    assert again.id == first.id
    assert told(ledger.next_message("webhook", 60)) == [("destination", "pacs", False)]
    fail(ledger, job_of_new_study(ledger, clock.forward(10)).id)
    assert ledger.note("webhook", KINDS, [DOWN]) == 1, "what happens now is not before the beginning"


def test_a_message_whose_sender_died_is_given_again(ledger: Ledger, clock: Clock) -> None:
    ledger.note("email", KINDS, [DOWN])
    first = ledger.next_message("email", 0)
    clock.forward(121)
    again = ledger.next_message("email", 0)
    assert first is not None
    assert again is not None
    assert again.id == first.id


def test_what_was_told_is_forgotten_but_not_what_lasts(ledger: Ledger, clock: Clock) -> None:
    ledger.note("email", KINDS, [DOWN])
    fail(ledger, job_of_new_study(ledger, clock.forward(1)).id)
    ledger.note("email", KINDS, [DOWN])
    message = ledger.next_message("email", 0)
    assert message is not None
    ledger.message_sent(message.id)
    month_ago = clock.forward(31 * 86_400) - timedelta(days=30)
    assert ledger.forget_notices(month_ago, ["email"]) == 1
    assert ledger.note("email", KINDS, [DOWN]) == 0
    assert ledger.forget_notices(month_ago, []) == 2, "nobody is told by e-mail any more"


def test_of_an_erased_study_nothing_is_told_but_the_number(ledger: Ledger, clock: Clock) -> None:
    ledger.note("email", KINDS, [])
    fail(ledger, job_of_new_study(ledger, clock.forward(1)).id)
    ledger.note("email", KINDS, [])
    ledger.begin_erasure(uid("study"), "ada")
    ledger.erase_rows(uid("study"), "ada")
    message = ledger.next_message("email", 0)
    assert message is not None
    assert [one.job for one in message.notices] == [None]
