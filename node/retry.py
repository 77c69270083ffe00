"""How long is the pause before the next attempt, whatever failed?"""

from __future__ import annotations

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
