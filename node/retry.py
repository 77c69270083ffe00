"""How long is the pause before the next attempt, whatever failed, and when is it the last?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from .settings import QueueSettings


def pause_s(attempts: int, queue: QueueSettings, draw: float) -> float:
    """Pause in seconds after this many attempts: exponential with full jitter (Brooker, AWS Architecture Blog, 2015).

    Parameters
    ----------
    attempts : int
        Made so far, at least 1.
    draw : float
        The jitter, uniform in [0, 1).
    """
    return draw * min(queue.retry_longest_s, queue.retry_first_s * 2.0 ** min(attempts - 1, 60))


def tried_long_enough(attempts: int, first_attempt_at: datetime | None, queue: QueueSettings) -> bool:
    """Whether what has failed for ``queue.retry_for_s`` is given up.

    The clock alone does not tell: a node that was off, or whose clock jumped, has tried nothing meanwhile. So there
    must also have been half as many attempts as there are longest pauses in that time.

    Parameters
    ----------
    attempts : int
        Made so far, at least 1.
    first_attempt_at : datetime or None
        When the first began; None if it is this one.
    """
    now = datetime.now(UTC)
    for_long = now - (first_attempt_at or now) >= timedelta(seconds=queue.retry_for_s)
    return for_long and 2 * attempts * queue.retry_longest_s >= queue.retry_for_s
