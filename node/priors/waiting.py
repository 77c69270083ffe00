"""Does a study wait for an earlier one, and what does its result say if it no longer waits?

A study that is to be analysed waits until the request for its earlier studies has ended and the latest comparable one
is analysed, but never beyond the deadline of the request. The result says what was missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from node.ledger import EarlierStudy, JobState, Ledger, Priority, PriorRequest, PriorState, StudyRecord
from node.retrieve.dicom_dates import day_of, in_words
from node.settings.priors import PriorsSettings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Outlook:
    """What a study waits for, or the notes that go into its result if it does not wait."""

    waits_for: str = ""
    notes: tuple[str, ...] = ()


def look(
    ledger: Ledger, study: StudyRecord, priority: Priority, settings: PriorsSettings, min_days: int = 1
) -> Outlook:
    """Decide whether a study that is to be analysed waits; request its earlier studies if that was not done yet.

    Parameters
    ----------
    min_days : int
        Days by which a comparable study is older at least (``change.min_days``).
    """
    uid = study.study_instance_uid
    request = ledger.prior_request(uid)
    if request is None or request.study_revision != study.revision:
        unfinished = _unfinished(_comparable(ledger, study, min_days))
        if not settings.asks and unfinished is None:
            return Outlook()
        wait_s = settings.stat_wait_s if priority is Priority.STAT else settings.wait_s
        why = "" if settings.asks else "no PACS is configured; compared with studies that were sent to the node"
        request = ledger.ask_for_priors(uid, priority, wait_s, ask=settings.asks, why=why)
    return _outlook(ledger, study, request, min_days)


def still_waits(ledger: Ledger, study: StudyRecord, min_days: int = 1) -> bool:
    """Whether a study that is held back still waits; cheap, as every round of the sweep calls it."""
    if study.held_since is None:
        return False
    request = ledger.prior_request(study.study_instance_uid)
    if request is None or request.study_revision != study.revision:
        return False
    outlook = _outlook(ledger, study, request, min_days, note=False)
    if outlook.waits_for and outlook.waits_for != study.why:
        ledger.hold_study(study.study_instance_uid, outlook.waits_for)
    return bool(outlook.waits_for)


def _outlook(ledger: Ledger, study: StudyRecord, request: PriorRequest, min_days: int, *, note: bool = True) -> Outlook:
    earlier = _comparable(ledger, study, min_days)
    unfinished = _unfinished(earlier)
    if not request.state.is_over:
        missing = "the PACS is being queried for priors"
        late = "the PACS had not sent the priors"
    elif unfinished is not None:
        day = in_words(unfinished.study_date)
        missing = f"the prior of {day} is analysed first"
        late = f"the prior of {day} was not ready"
    else:
        return Outlook(notes=_notes(ledger, study, request, earlier))
    if datetime.now(UTC) < request.deadline_at:
        return Outlook(waits_for=missing)
    waited_s = (request.deadline_at - request.created_at).total_seconds()
    why = f"{late} after {waited_s:.0f} s"
    if note:
        ledger.mark_late(study.study_instance_uid, why)
    return Outlook(notes=(_lacking(why, earlier),))


def _comparable(ledger: Ledger, study: StudyRecord, min_days: int) -> list[EarlierStudy]:
    """Earlier studies of the patient that are old enough to compare with, the latest first."""
    day = day_of(study.study_date)
    if day is None:
        return []
    found = [(day_of(one.study_date), one) for one in ledger.earlier_studies(study.study_instance_uid)]
    return [one for then, one in found if then is not None and (day - then).days >= min_days]


def _unfinished(earlier: list[EarlierStudy]) -> EarlierStudy | None:
    """The latest earlier study that is not analysed yet, if it is later than the latest that is."""
    for one in earlier:
        if not one.settled:
            return one
        if one.analysed:
            return None
    return None


def _notes(ledger: Ledger, study: StudyRecord, request: PriorRequest, earlier: list[EarlierStudy]) -> tuple[str, ...]:
    """What a reader should know about a request that has ended."""
    if request.state is PriorState.FAILED:
        return (_lacking(f"the priors could not be fetched ({request.why})", earlier),)
    fetched = {
        one.prior_study_uid for one in ledger.prior_fetches(study.study_instance_uid) if one.state is PriorState.FETCHED
    }
    of_no_use = [one for one in earlier if one.study_instance_uid in fetched and not one.analysed]
    return tuple(
        _lacking(f"the prior of {in_words(one.study_date)} was fetched but not analysed: {one.why}", earlier)
        for one in of_no_use
    )


def _lacking(why: str, earlier: list[EarlierStudy]) -> str:
    """A note that a comparison is missing, or a later study to compare with."""
    if any(one.analysed for one in earlier):
        return f"compared with an older prior instead: {why}"
    return f"no comparison: {why}"


def catch_up(ledger: Ledger, settings: PriorsSettings, min_days: int = 1) -> None:
    """Route a study again whose earlier study came too late, if the settings say so and a comparison is possible.

    A result that a reader has corrected is never replaced automatically.
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
        why = "the prior has arrived" if route else "the prior came too late"
        ledger.settle_late(uid, why, route=route)
        _log.info("late prior", study=uid, compared=route)
