"""What would the rules decide about studies that were routed before, and is it what was done? Nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node.archive import Archive
from node.ledger import Job, Ledger, SeriesRecord, StudyRecord, StudyState, WorklistRow
from node.settings import Settings
from pipeline.errors import CmbError

from .routing import Plan, plan_stored
from .rules import RoutingTable

_UNROUTED = (StudyState.RECEIVING, StudyState.HELD)


@dataclass(frozen=True)
class RoutingOutcome:
    """What routing decides about a study; without `profile` nothing is analysed.

    Parameters
    ----------
    series : tuple of SeriesRecord
        What is analysed or used.
    why : str
        Why nothing is analysed; else empty.
    """

    series: tuple[SeriesRecord, ...] = ()
    profile: str = ""
    priority: str = ""
    destinations: tuple[str, ...] = ()
    why: str = ""

    @property
    def words(self) -> str:
        """All of it in one line."""
        if not self.profile:
            return f"not analysed: {self.why}"
        return f"{self.series_words}; profile {self.profile}; priority {self.priority}; to {self.destination_words}"

    @property
    def series_words(self) -> str:
        """The series by their numbers."""
        return (
            f"series {', '.join('?' if one.series_number is None else str(one.series_number) for one in self.series)}"
        )

    @property
    def destination_words(self) -> str:
        """The destinations by their names."""
        return ", ".join(sorted(self.destinations)) or "no destination"


@dataclass(frozen=True)
class DryRun:
    """What was done with a study, what would be done now, and what differs.

    Parameters
    ----------
    done, now : RoutingOutcome or None
        ``None``: it has not been routed yet, or it cannot be tried.
    differences : tuple of str
        What is not the same: ``profile default, now sensitive``.
    problem : str
        Why it cannot be tried; empty if it can.
    """

    study: StudyRecord
    done: RoutingOutcome | None
    now: RoutingOutcome | None
    differences: tuple[str, ...] = ()
    problem: str = ""


def dry_run(ledger: Ledger, archive: Archive, row: WorklistRow, table: RoutingTable, settings: Settings) -> DryRun:
    """Decide about a study as if it had just settled, and compare that with what was done."""
    study = row.study
    known = {series.series_instance_uid: series for series in ledger.series(study.study_instance_uid)}
    done = None if row.state in _UNROUTED else _done(study, row.job, known)
    if study.removed_at is not None:
        return DryRun(study, done, None, problem="its images were deleted at the end of their retention period")
    try:
        now = _planned(plan_stored(ledger, archive, study, table, settings).plan, known)
    except CmbError as error:
        return DryRun(study, done, None, problem=f"it cannot be routed: {error}")
    return DryRun(study, done, now, _differences(done, now) if done is not None else ())


def _done(study: StudyRecord, job: Job | None, known: Mapping[str, SeriesRecord]) -> RoutingOutcome:
    if job is None:
        return RoutingOutcome(why=study.why)
    used = tuple(known[uid] for uid in job.series_uids if uid in known)
    return RoutingOutcome(used, job.profile, job.priority.name.lower(), job.destinations)


def _planned(plan: Plan, known: Mapping[str, SeriesRecord]) -> RoutingOutcome:
    if plan.profile is None:
        return RoutingOutcome(why=plan.why)
    uids = dict.fromkeys(series.series_instance_uid for series in plan.selection.used)
    used = tuple(known[uid] for uid in uids if uid in known)
    return RoutingOutcome(used, plan.profile, plan.priority.name.lower(), plan.destinations)


def _differences(done: RoutingOutcome, now: RoutingOutcome) -> tuple[str, ...]:
    if not (done.profile and now.profile):
        return () if done.profile == now.profile else (now.words,)
    found = []
    uids = [{series.series_instance_uid for series in outcome.series} for outcome in (done, now)]
    if uids[0] != uids[1]:
        found.append(f"{done.series_words}, now {now.series_words}")
    if done.profile != now.profile:
        found.append(f"profile {done.profile}, now {now.profile}")
    if done.priority != now.priority:
        found.append(f"priority {done.priority}, now {now.priority}")
    if set(done.destinations) != set(now.destinations):
        found.append(f"to {done.destination_words}, now to {now.destination_words}")
    return tuple(found)
