"""Does a study still wait for an earlier one, and what does its result say if it does not wait any longer?

A study that is to be analysed waits until the request for its earlier studies is over and the latest of them that can
be compared with is analysed, but never beyond the deadline of the request. What was missed is said in the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from node.ledger import EarlierStudy, JobState, Ledger, Priority, PriorRequest, PriorState, Study
from node.prior_settings import PriorsSettings
from node.priors.choice import day_of, in_words

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Outlook:
    """What a study waits for; nothing if `waits_for` is empty. Then `notes` go into its result."""

    waits_for: str = ""
    notes: tuple[str, ...] = ()


def look(ledger: Ledger, study: Study, priority: Priority, settings: PriorsSettings, min_days: int = 1) -> Outlook:
    """Say whether a study that is to be analysed waits; asks for its earlier studies if that was not done yet.

    Parameters
    ----------
    min_days : int
        An earlier study must be so many days older to be compared with (``change.min_days``).
    """
    uid = study.study_instance_uid
    request = ledger.prior_request(uid)
    if request is None or request.study_revision != study.revision:
        unfinished = _unfinished(_comparable(ledger, study, min_days))
        if not settings.asks and unfinished is None:
            return Outlook()
        wait_s = settings.stat_wait_s if priority is Priority.STAT else settings.wait_s
        why = "" if settings.asks else "no PACS is set to be asked; compared with what the node was sent"
        request = ledger.ask_for_priors(uid, priority, wait_s, ask=settings.asks, why=why)
    return _outlook(ledger, study, request, min_days)


def still_waits(ledger: Ledger, study: Study, min_days: int = 1) -> bool:
    """Whether a study that was held back is to be left alone; cheap, for it is asked in every round of the sweep."""
    if study.held_since is None:
        return False
    request = ledger.prior_request(study.study_instance_uid)
    if request is None or request.study_revision != study.revision:
        return False
    outlook = _outlook(ledger, study, request, min_days, note=False)
    if outlook.waits_for and outlook.waits_for != study.why:
        ledger.hold_study(study.study_instance_uid, outlook.waits_for)
    return bool(outlook.waits_for)


def _outlook(ledger: Ledger, study: Study, request: PriorRequest, min_days: int, *, note: bool = True) -> Outlook:
    earlier = _comparable(ledger, study, min_days)
    unfinished = _unfinished(earlier)
    if not request.state.is_over:
        missing = "the PACS is asked for earlier studies"
        late = "the PACS had not given the earlier studies"
    elif unfinished is not None:
        day = in_words(unfinished.study_date)
        missing = f"the earlier study of {day} is analysed first"
        late = f"the earlier study of {day} came too late"
    else:
        return Outlook(notes=_notes(ledger, study, request, earlier))
    if datetime.now(UTC) < request.deadline_at:
        return Outlook(waits_for=missing)
    waited_s = (request.deadline_at - request.created_at).total_seconds()
    why = f"{late} after {waited_s:.0f} s"
    if note:
        ledger.mark_late(study.study_instance_uid, why)
    return Outlook(notes=(_lacking(why, earlier),))


def _comparable(ledger: Ledger, study: Study, min_days: int) -> list[EarlierStudy]:
    """Earlier studies of the patient that are old enough to show change, the latest first."""
    day = day_of(study.study_date)
    if day is None:
        return []
    found = [(day_of(one.study_date), one) for one in ledger.earlier_studies(study.study_instance_uid)]
    return [one for then, one in found if then is not None and (day - then).days >= min_days]


def _unfinished(earlier: list[EarlierStudy]) -> EarlierStudy | None:
    """The latest earlier study that may yet be compared with, if it is later than what can be compared with now."""
    for one in earlier:
        if not one.settled:
            return one
        if one.analysed:
            return None
    return None


def _notes(ledger: Ledger, study: Study, request: PriorRequest, earlier: list[EarlierStudy]) -> tuple[str, ...]:
    """What a reader should know about a request that is over."""
    if request.state is PriorState.FAILED:
        return (_lacking(f"the PACS could not give earlier studies ({request.why})", earlier),)
    fetched = {
        one.prior_study_uid for one in ledger.prior_fetches(study.study_instance_uid) if one.state is PriorState.FETCHED
    }
    of_no_use = [one for one in earlier if one.study_instance_uid in fetched and not one.analysed]
    return tuple(
        _lacking(f"the earlier study of {in_words(one.study_date)} was fetched but not analysed: {one.why}", earlier)
        for one in of_no_use
    )


def _lacking(why: str, earlier: list[EarlierStudy]) -> str:
    """A note of what is lacking: the comparison, or a later study to compare with."""
    if any(one.analysed for one in earlier):
        return f"compared with what the node has: {why}"
    return f"no comparison: {why}"


def catch_up(ledger: Ledger, settings: PriorsSettings, min_days: int = 1) -> None:
    """Have a study routed again whose earlier study came too late, if the settings say so and there is a use in it.

    What a reader has corrected is never replaced by itself.
    """
    for request in ledger.late_requests():
        uid = request.study_instance_uid
        study = ledger.study(uid)
        earlier = _comparable(ledger, study, min_days)
        if _unfinished(earlier) is not None:
            continue
        job_id = study.current_job_id
        job = ledger.job(job_id) if job_id is not None else None
        useful = any(one.analysed for one in earlier) and job is not None and job.state is not JobState.FAILED
        route = useful and settings.late == "replace" and job is not None and job.correction is None
        why = "the earlier study has come" if route else "the earlier study came too late"
        ledger.settle_late(uid, why, route=route)
        _log.info("late earlier study", study=uid, compared=route)
