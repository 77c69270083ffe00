"""How does a command follow a study through the node until its results are delivered?"""

from __future__ import annotations

import time
from collections.abc import Callable

from node.ledger import Job, JobState, Ledger, StudyState, WorklistFilters

from .labels import state_words


class NoResult(Exception):  # noqa: N818 - it reads as what happened
    """The study did not come through; the text says where it stopped."""


def follow_study(
    ledger: Ledger,
    study_uid: str,
    limit_s: float,
    say: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
    poll_s: float = 0.2,
) -> Job:
    """Wait until the results of a study are delivered.

    Parameters
    ----------
    limit_s : float
        Give up after this many seconds.
    say : callable
        Hears each state as it begins.
    check : callable
        Called at each look; raises if waiting is in vain.

    Raises
    ------
    NoResult
        If the study failed, is ignored, or has no result in time.
    """
    deadline, told = time.monotonic() + limit_s, ""
    while time.monotonic() < deadline:
        row = next(iter(ledger.worklist(WorklistFilters(study_uids=(study_uid,)), limit=1)), None)
        if row is not None:
            if (words := state_words(row.state, row.job)) != told:
                told = words
                say(words[0].lower() + words[1:])
            if row.job is not None and row.job.state is JobState.DELIVERED:
                return row.job
            if row.state in (StudyState.FAILED, StudyState.IGNORED):
                why = row.job.why if row.job is not None else row.study.why
                raise NoResult(f"{told[0].lower()}{told[1:]}: {why}")
        check()
        time.sleep(poll_s)
    raise NoResult(f"no result after {limit_s:.0f} s (last: {told.lower() or 'nothing received'})")
