"""Pauses grow up to a longest one, and what fails is given up after a time in which it was really tried."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.retry import pause_s, tried_long_enough
from node.settings import QueueSettings


@given(attempts=st.integers(1, 10_000), draw=st.floats(0, 1, exclude_max=True))
def test_pauses_never_exceed_the_longest_and_grow_up_to_it(attempts: int, draw: float) -> None:
    queue = QueueSettings()
    assert (
        0
        <= pause_s(attempts, queue, draw)
        <= min(queue.retry_longest_s, queue.retry_first_s * 2.0 ** min(attempts, 64))
    )
    assert pause_s(attempts + 1, queue, draw) >= pause_s(attempts, queue, draw)


@pytest.mark.parametrize(("attempts", "hours_ago", "over"), [(1, 960, False), (100, 1, False), (100, 49, True)])
def test_what_fails_is_given_up_after_many_attempts_over_a_long_time(attempts: int, hours_ago: int, over: bool) -> None:
    """Not because the node was off or its clock jumped by forty days."""
    first = datetime.now(UTC) - timedelta(hours=hours_ago)
    assert tried_long_enough(attempts, first, QueueSettings()) is over
