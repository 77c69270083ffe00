"""Which series are analysed, with which profile and priority, and where do the results go?

An ordered table of rules decides (:mod:`node.route.rules`). The role of a series is determined in
:mod:`pipeline.read.study`; what happens to it is decided here, with a reason for every series that is not analysed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog

from node.analyse.prior_choice import PriorChoice, choose
from node.archive import Archive
from node.ledger import Job, Ledger, NewJob, Priority, SeriesRecord, SeriesVerdict, StudyRecord
from node.logs import explain
from node.priors.waiting import look, still_waits
from node.settings import Settings
from node.settings.recognition import recognition
from pipeline.errors import CmbError
from pipeline.read.study import Series, SeriesRole, SeriesSelection, Study, read_studies, select_series

from .rules import RoutingRule, RoutingTable, SeriesOrigin

log = structlog.get_logger(__name__)


class SeriesAction(StrEnum):
    """What happens to a series."""

    ANALYSE = "analyse"
    USE = "use"  # together with the series that is analysed
    IGNORE = "ignore"


class RoutingError(CmbError):
    """Studies could not be routed; they stay ready and are tried again."""


@dataclass(frozen=True)
class SeriesPlan:
    """What happens to one series, and why."""

    series: Series
    action: SeriesAction
    why: str


@dataclass(frozen=True)
class Plan:
    """What happens to a study; without `profile` nothing is analysed, for the reason `why`."""

    series: tuple[SeriesPlan, ...]
    selection: SeriesSelection
    why: str
    profile: str | None = None
    priority: Priority = Priority.ROUTINE
    destinations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Notes on routing that go into the result."""


def plan(study: Study, origins: Mapping[str, SeriesOrigin], table: RoutingTable, settings: Settings) -> Plan:
    """Decide what happens to a study.

    Parameters
    ----------
    origins : mapping of str to SeriesOrigin
        By Series Instance UID; a series without an origin is judged by its header alone.
    """
    rules = {
        (leaf.series_instance_uid, leaf.role): table.first(leaf, origins.get(leaf.series_instance_uid, SeriesOrigin()))
        for series in study.series
        for leaf in (series, *series.leaves)
    }
    everything = select_series(study)
    chosen = select_series(_without_excluded(study, rules), t2star=True)
    rule = _deciding(everything, chosen, rules, origins, table)
    if rule is None or rule.action == "ignore":
        # Nothing is analysed, so nothing is used with it.
        unused = tuple(_ignored(s, rules[s.series_instance_uid, s.role], "") for s in study.series)
        return Plan(unused, everything, _nothing(everything, rule, rules))
    return Plan(
        tuple(_series_plan(s, chosen, rules[s.series_instance_uid, s.role]) for s in study.series),
        chosen,
        chosen.why,
        rule.profile,
        Priority[(rule.priority or "routine").upper()],
        tuple(sorted(settings.destinations)) if rule.destinations is None else rule.destinations,
    )


RulesBySeries = Mapping[tuple[str, SeriesRole], RoutingRule | None]


def _deciding(
    everything: SeriesSelection,
    chosen: SeriesSelection,
    rules: RulesBySeries,
    origins: Mapping[str, SeriesOrigin],
    table: RoutingTable,
) -> RoutingRule | None:
    """Find the rule that decides about the study: that of the chosen series, or of the SWI that can be computed.

    An SWI is computed only for a study that has none, not for one whose SWI a rule excludes.
    """
    if chosen.swi is not None:
        return rules[chosen.swi.series_instance_uid, chosen.swi.role]
    if everything.swi is not None or chosen.magnitude is None or not chosen.analysable:
        return None
    origin = origins.get(chosen.magnitude.series_instance_uid, SeriesOrigin())
    return table.first(replace(chosen.magnitude, role=SeriesRole.SWI), origin, computed=True)


def _without_excluded(study: Study, rules: RulesBySeries) -> Study:
    """Leave out series that a rule excludes from analysis, so that another one can be chosen."""

    def wanted(leaf: Series) -> bool:
        rule = rules[leaf.series_instance_uid, leaf.role]
        if leaf.role == SeriesRole.T2STAR:
            return _accepts_t2star(rule)
        return leaf.role != SeriesRole.SWI or (rule is not None and rule.action == "analyse")

    kept = []
    for series in study.series:
        leaves = tuple(leaf for leaf in series.leaves if wanted(leaf))
        if leaves:
            kept.append(replace(series, parts=leaves) if series.parts else series)
    return replace(study, series=tuple(kept))


def _accepts_t2star(rule: RoutingRule | None) -> bool:
    if rule is None or rule.profile is None:
        return False
    from pipeline.profile import load_profile

    return load_profile(rule.profile).suits.t2star


def _nothing(everything: SeriesSelection, computed: RoutingRule | None, rules: RulesBySeries) -> str:
    """Say why nothing of a study is analysed."""
    swi = everything.swi or everything.t2star
    if everything.swi is None and everything.analysable:
        return _excluded("the SWI that could be computed from magnitude and phase", computed)
    if swi is None:
        return everything.why
    rule = rules[swi.series_instance_uid, swi.role]
    if swi.role == SeriesRole.T2STAR and rule is not None and rule.action == "analyse":
        return f"{everything.why}; profile {rule.profile} does not"
    return _excluded(f"{swi.label} is {'SWI' if everything.swi else 'T2*-weighted, there is no SWI'}", rule)


def _excluded(what: str, rule: RoutingRule | None) -> str:
    if rule is None:
        return f"{what}, but no routing rule matches it"
    return f"{what}, but excluded by rule {rule.name!r}" + (f": {rule.why}" if rule.why else "")


def _series_plan(series: Series, chosen: SeriesSelection, rule: RoutingRule | None) -> SeriesPlan:
    uid = series.series_instance_uid
    if chosen.swi is not None and uid == chosen.swi.series_instance_uid:
        return SeriesPlan(series, SeriesAction.ANALYSE, chosen.why)
    for name, used in (("phase", chosen.phase), ("magnitude", chosen.magnitude)):
        if used is None or used.series_instance_uid != uid:
            continue
        if chosen.swi is None:
            return SeriesPlan(series, SeriesAction.ANALYSE, chosen.why)
        return SeriesPlan(series, SeriesAction.USE, f"{name}, used with SWI {chosen.swi.label}")
    return _ignored(series, rule, chosen.used[0].label)


def _ignored(series: Series, rule: RoutingRule | None, analysed: str) -> SeriesPlan:
    if rule is None:
        return SeriesPlan(series, SeriesAction.IGNORE, f"no routing rule matches it ({series.why})")
    if rule.action == "analyse":
        other = f"{analysed} is analysed instead" if analysed else "nothing of this study can be analysed"
        return SeriesPlan(series, SeriesAction.IGNORE, f"{other} ({series.why})")
    return SeriesPlan(series, SeriesAction.IGNORE, f"{rule.why} ({series.why})" if rule.why else series.why)


def route_ready(ledger: Ledger, archive: Archive, table: RoutingTable, settings: Settings) -> list[Job]:
    """Route every study that is ready, and return their jobs. A study that cannot be routed does not delay others.

    Raises
    ------
    RoutingError
        After the others: a study could not be routed for a reason that may pass; it stays ready.
    """
    opened: list[Job] = []
    failed: list[tuple[str, Exception]] = []
    for study in ledger.studies_ready():
        uid = study.study_instance_uid
        if still_waits(ledger, study, settings.change.min_days):
            continue
        try:
            job = route_study(ledger, archive, uid, table, settings)
        except CmbError as error:
            ledger.mark_routed(uid, study.revision, why=f"cannot be routed: {error}")
            log.error("study cannot be routed", study=uid, why=str(error))
        except Exception as error:  # disk or database unavailable, or a fault of the node
            failed.append((uid, error))
        else:
            opened += [job] if job is not None else []
    if failed:
        uid, first = failed[0]
        raise RoutingError(f"{len(failed)} not routed yet: {explain(first)}", where=uid) from first
    return opened


def route_study(
    ledger: Ledger, archive: Archive, study_uid: str, table: RoutingTable, settings: Settings
) -> Job | None:
    """Route one settled study: record what happens to each series, and open its job if there is one.

    A study that is to be compared with an earlier one may have to wait for it (:mod:`node.priors.waiting`). If images
    arrive while the headers are read, the study stays ready, and the job is held back until the next routing supersedes
    it.
    """
    study = ledger.study(study_uid)
    stored = plan_stored(ledger, archive, study, table, settings)
    planned, known = stored.plan, stored.known
    if planned.profile is not None and settings.change.enabled and not study.fetched and not study.is_phantom:
        outlook = look(ledger, study, planned.priority, settings.priors, settings.change.min_days)
        if outlook.waits_for:
            ledger.hold_study(study_uid, outlook.waits_for)
            return None
        planned = replace(planned, notes=outlook.notes)
    job = None
    if planned.profile is not None:
        used = {s.series.series_instance_uid for s in planned.series if s.action != SeriesAction.IGNORE}
        earlier = choose(ledger, study, settings.change)
        planned = replace(planned, notes=(*planned.notes, *earlier.notes))
        extra = earlier.part_of_key(settings.change)
        job = ledger.open_job(_new_job(planned, [known[uid] for uid in sorted(used)], stored.broken, earlier, extra))
    verdicts = [_verdict(series) for series in planned.series] + _unread(known, planned)
    number = job.id if job else None
    if ledger.mark_routed(study_uid, study.revision, verdicts, planned.why, job_id=number):
        log.info("study routed", study=study_uid, job=number, why=planned.why)
    return job


@dataclass(frozen=True)
class StoredPlan:
    """What happens to a study of the archive.

    Parameters
    ----------
    known : mapping of str to SeriesRecord
        Its series as the ledger has them, by Series Instance UID.
    broken : tuple of str
        Files that cannot be read, and why.
    """

    plan: Plan
    known: Mapping[str, SeriesRecord]
    broken: tuple[str, ...]


def plan_stored(
    ledger: Ledger, archive: Archive, study: StudyRecord, table: RoutingTable, settings: Settings
) -> StoredPlan:
    """Decide what happens to a study of the archive, from the headers of its files; nothing is written."""
    uid = study.study_instance_uid
    known = {series.series_instance_uid: series for series in ledger.series(uid)}
    instances = ledger.instances(*known)
    there = [archive.path(instance.path) for instance in instances if instance.removed_at is None]
    studies, unreadable = read_studies(there, recognition(settings))
    found = next((s for s in studies if s.study_instance_uid == uid), Study(uid, ()))
    planned = plan(found, {name: _origin(series, study) for name, series in known.items()}, table, settings)
    used = {s.series.series_instance_uid for s in planned.series if s.action != SeriesAction.IGNORE}
    gone = sum(i.removed_at is not None for i in instances if i.series_instance_uid in used)
    if gone:
        why = f"{gone} of its images are no longer in the archive; send the complete study again"
        planned = replace(planned, profile=None, why=why, series=tuple(_unused(s, why) for s in planned.series))
    if study.fetched:
        planned = _for_comparison(ledger, uid, planned)
    elif study.is_phantom:
        planned = replace(planned, priority=Priority.LOW, destinations=settings.qa.destinations)
    if not found.series:
        planned = replace(planned, why="none of its files can be read as DICOM images")
    return StoredPlan(planned, known, tuple(f"{file.path.name}: {file.why}" for file in unreadable))


def _for_comparison(ledger: Ledger, study_uid: str, planned: Plan) -> Plan:
    """Give a fetched study the priority of the study it is compared with, and no destinations."""
    _, priority = ledger.fetched_for(study_uid)
    return replace(planned, priority=priority, destinations=(), why=f"for comparison only: {planned.why}")


def _origin(series: SeriesRecord, study: StudyRecord) -> SeriesOrigin:
    return SeriesOrigin(
        series.manufacturer, study.study_description, series.station_name, series.institution, series.calling_ae
    )


def _unused(series: SeriesPlan, why: str) -> SeriesPlan:
    return series if series.action == SeriesAction.IGNORE else replace(series, action=SeriesAction.IGNORE, why=why)


def _verdict(series: SeriesPlan) -> SeriesVerdict:
    return SeriesVerdict(
        series.series.series_instance_uid,
        series.action != SeriesAction.IGNORE,
        series.series.role,
        series.series.rule,
        series.why,
        series.series.needs_confirmation,
    )


def _unread(known: Mapping[str, SeriesRecord], planned: Plan) -> list[SeriesVerdict]:
    """Verdicts on series without a readable file."""
    read = {one.series.series_instance_uid for one in planned.series}
    why = "none of its files can be read as DICOM images"
    return [SeriesVerdict(uid, False, SeriesRole.OTHER, "", why) for uid in known if uid not in read]


def _new_job(
    planned: Plan,
    inputs: Sequence[SeriesRecord],
    broken: Sequence[str],
    earlier: PriorChoice,
    extra: Mapping[str, object],
) -> NewJob:
    """Make the job of a plan; its key depends on every image used, the profile, and the comparison."""
    from pipeline.profile import load_profile

    assert planned.profile is not None  # noqa: S101 - for the type checker
    chosen = planned.selection
    swi, phase, magnitude = chosen.swi, chosen.phase, chosen.magnitude
    return NewJob(
        key=chosen.key(load_profile(planned.profile).digest, extra),
        study_instance_uid=chosen.used[0].study_instance_uid,
        swi_series_uid=swi.series_instance_uid if swi else None,
        phase_series_uid=phase.series_instance_uid if phase else None,
        magnitude_series_uid=magnitude.series_instance_uid if magnitude else None,
        profile=planned.profile,
        priority=planned.priority,
        destinations=planned.destinations,
        warnings=(*planned.notes, *_warnings(inputs, broken)),
        input_revision=sum(series.revision for series in inputs),
        prior_job_id=earlier.job.id if earlier.job else None,
    )


def _warnings(inputs: Sequence[SeriesRecord], broken: Sequence[str]) -> Iterator[str]:
    """Warnings about the reception of the input; the pipeline adds its own."""
    for known in inputs:
        if not known.whole:
            yield f"series {known.series_number} may be incomplete: {known.settled_why}"
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        yield f"left out, not readable: {broken[0]}{more}"
