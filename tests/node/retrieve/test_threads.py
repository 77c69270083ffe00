"""Threads that fetch go on through outages, say so once, and are known to hang when they do."""

from __future__ import annotations

import threading

import pytest

from node.retrieve import threads
from node.retrieve.threads import WorkThreads
from tests.waiting import wait_for


def test_an_outage_is_told_once_for_each_reason_and_outlived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "POLL_S", 0.001)
    answers = iter(["away", "away", "full", True, "full"])
    told: list[tuple[str, str]] = []
    done = threading.Event()

    def work() -> bool:
        match next(answers, None):
            case str(why):
                raise OSError(why)
            case None:
                done.set()
        return False

    running = WorkThreads(20, lambda name, why: told.append((name, why)))
    running.start("worker", work, 60)
    assert done.wait(20)
    running.stop()
    assert [name for name, _ in told] == ["worker"] * 3
    assert ["full" in why for _, why in told] == [False, True, True]


def test_a_thread_that_hangs_does_not_count_as_working(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SILENCE_LIMIT_S", 0.0)
    go_on = threading.Event()
    running = WorkThreads(20, lambda _name, _why: None)
    running.start("patient", lambda: go_on.wait(60), 60)
    assert running.works()
    running.start("hangs", lambda: go_on.wait(60), 0.05)
    wait_for(lambda: not running.works(), 20)
    running.beat("hangs")
    go_on.set()
    running.stop()
    assert not running.works(), "they have ended"
