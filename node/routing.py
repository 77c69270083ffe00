"""Which series are analysed, with which profile and priority, and who gets the results?

The answer follows from an ordered table of rules (:mod:`node.rules`). What a series *is* (its role) is decided in
:mod:`pipeline.study`; what to do with it is decided here, and every series that is not analysed is told why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog

from node.archive import Archive
from node.comparison import Choice, choose
from node.config import Settings
from node.ledger import Job, Ledger, NewJob, Priority, SeriesVerdict
from node.ledger import Series as Known
from node.ledger import Study as KnownStudy
from node.priors.waiting import look, still_waits
from node.rules import Origin, Rule, Table, recognition
from pipeline.errors import CmbError
from pipeline.study import Pick, Role, Series, Study, pick, read_studies

log = structlog.get_logger(__name__)


class Action(StrEnum):
    """What happens to a series."""

    ANALYSE = "analyse"
    USE = "use"  # with the series that is analysed
    IGNORE = "ignore"


class RoutingError(CmbError):
    """Studies could not be routed; they stay ready and are tried again."""


@dataclass(frozen=True)
class SeriesPlan:
    """What happens to one series, and why."""

    series: Series
    action: Action
    why: str


@dataclass(frozen=True)
class Plan:
    """What happens to a study. Without `profile` nothing is analysed, and `why` says why."""

    series: tuple[SeriesPlan, ...]
    pick: Pick
    why: str
    profile: str | None = None
    priority: Priority = Priority.ROUTINE
    destinations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What the result says of how it was routed."""


def plan(study: Study, origins: Mapping[str, Origin], table: Table, settings: Settings) -> Plan:
    """Decide what happens to a study.

    Parameters
    ----------
    origins : mapping of str to Origin
        By Series Instance UID; a series without one is judged by its own header alone.
    """
    rules = {
        (leaf.series_instance_uid, leaf.role): table.first(leaf, origins.get(leaf.series_instance_uid, Origin()))
        for series in study.series
        for leaf in (series, *series.leaves)
    }
    everything = pick(study)
    chosen = pick(_only_wanted(study, rules), t2star=True)
    rule = _deciding(everything, chosen, rules, origins, table)
    if rule is None or rule.action == "ignore":
        # Nothing is analysed, so nothing is used either.
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


Fitting = Mapping[tuple[str, Role], Rule | None]


def _deciding(
    everything: Pick, chosen: Pick, rules: Fitting, origins: Mapping[str, Origin], table: Table
) -> Rule | None:
    """Find the rule that decides about the study: that of the series chosen, or of the SWI that can be computed.

    An SWI is computed only for a study that has none: where a rule sets one aside, that stands.
    """
    if chosen.swi is not None:
        return rules[chosen.swi.series_instance_uid, chosen.swi.role]
    if everything.swi is not None or chosen.magnitude is None or not chosen.analysable:
        return None
    origin = origins.get(chosen.magnitude.series_instance_uid, Origin())
    return table.first(replace(chosen.magnitude, role=Role.SWI), origin, computed=True)


def _only_wanted(study: Study, rules: Fitting) -> Study:
    """Leave out what could be analysed but a rule sets aside, so that another series can be chosen."""

    def wanted(leaf: Series) -> bool:
        rule = rules[leaf.series_instance_uid, leaf.role]
        if leaf.role == Role.T2STAR:
            return _accepts_t2star(rule)
        return leaf.role != Role.SWI or (rule is not None and rule.action == "analyse")

    kept = []
    for series in study.series:
        leaves = tuple(leaf for leaf in series.leaves if wanted(leaf))
        if leaves:
            kept.append(replace(series, parts=leaves) if series.parts else series)
    return replace(study, series=tuple(kept))


def _accepts_t2star(rule: Rule | None) -> bool:
    if rule is None or rule.profile is None:
        return False
    from pipeline.profile import load_profile

    return load_profile(rule.profile).suits.t2star


def _nothing(everything: Pick, computed: Rule | None, rules: Fitting) -> str:
    """Why nothing of a study is analysed."""
    swi = everything.swi or everything.t2star
    if everything.swi is None and everything.analysable:
        return _set_aside("the SWI that could be computed from magnitude and phase", computed)
    if swi is None:
        return everything.why
    rule = rules[swi.series_instance_uid, swi.role]
    if swi.role == Role.T2STAR and rule is not None and rule.action == "analyse":
        return f"{everything.why}; profile {rule.profile} does not"
    return _set_aside(f"{swi.label} is {'SWI' if everything.swi else 'T2*-weighted, there is no SWI'}", rule)


def _set_aside(what: str, rule: Rule | None) -> str:
    if rule is None:
        return f"{what}, but no routing rule fits it"
    return f"{what}, but set aside by rule {rule.name!r}" + (f": {rule.why}" if rule.why else "")


def _series_plan(series: Series, chosen: Pick, rule: Rule | None) -> SeriesPlan:
    uid = series.series_instance_uid
    if chosen.swi is not None and uid == chosen.swi.series_instance_uid:
        return SeriesPlan(series, Action.ANALYSE, chosen.why)
    for name, used in (("phase", chosen.phase), ("magnitude", chosen.magnitude)):
        if used is None or used.series_instance_uid != uid:
            continue
        if chosen.swi is None:
            return SeriesPlan(series, Action.ANALYSE, chosen.why)
        return SeriesPlan(series, Action.USE, f"{name}, used with SWI {chosen.swi.label}")
    return _ignored(series, rule, chosen.used[0].label)


def _ignored(series: Series, rule: Rule | None, analysed: str) -> SeriesPlan:
    if rule is None:
        return SeriesPlan(series, Action.IGNORE, f"no routing rule fits it ({series.why})")
    if rule.action == "analyse":
        other = f"{analysed} is analysed instead" if analysed else "nothing of this study can be analysed"
        return SeriesPlan(series, Action.IGNORE, f"{other} ({series.why})")
    return SeriesPlan(series, Action.IGNORE, f"{rule.why} ({series.why})" if rule.why else series.why)


def route_ready(ledger: Ledger, archive: Archive, table: Table, settings: Settings) -> list[Job]:
    """Route every study that is ready; the jobs that stand for them. One that cannot be routed holds up no other.

    Raises
    ------
    RoutingError
        After the others: a study could not be routed for a reason that may pass, and stays ready.
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
        except Exception as error:  # a disk that is away, a database that restarts, a fault of ours
            failed.append((uid, error))
        else:
            opened += [job] if job is not None else []
    if failed:
        uid, first = failed[0]
        raise RoutingError(f"{len(failed)} not routed yet: {type(first).__name__}: {first}", where=uid) from first
    return opened


def route_study(ledger: Ledger, archive: Archive, study_uid: str, table: Table, settings: Settings) -> Job | None:
    """Route one study that has settled: say what happens to each series, and open its job if there is one.

    A study that is to be compared with an earlier one may have to wait for that (:mod:`node.priors.waiting`).

    Reading the headers takes a while, and images may come meanwhile: then the study stays ready, and the job is held
    back until the next routing supersedes it.
    """
    study = ledger.study(study_uid)
    known = {series.series_instance_uid: series for series in ledger.series(study_uid)}
    instances = ledger.instances(*known)
    there = [archive.path(instance.path) for instance in instances if instance.removed_at is None]
    studies, unreadable = read_studies(there, recognition(settings))
    found = next((s for s in studies if s.study_instance_uid == study_uid), Study(study_uid, ()))
    planned = plan(found, {uid: _origin(series, study) for uid, series in known.items()}, table, settings)
    used = {s.series.series_instance_uid for s in planned.series if s.action != Action.IGNORE}
    gone = sum(i.removed_at is not None for i in instances if i.series_instance_uid in used)
    if gone:
        why = f"{gone} of its images were removed by retention; send the whole study again"
        planned = replace(planned, profile=None, why=why, series=tuple(_unused(s, why) for s in planned.series))
    if study.fetched:
        planned = _for_comparison(ledger, study_uid, planned)
    elif planned.profile is not None and settings.change.enabled:
        outlook = look(ledger, study, planned.priority, settings.priors, settings.change.min_days)
        if outlook.waits_for:
            ledger.hold_study(study_uid, outlook.waits_for)
            return None
        planned = replace(planned, notes=outlook.notes)
    job = None
    if planned.profile is not None:
        broken = [f"{file.path.name}: {file.why}" for file in unreadable]
        earlier = choose(ledger, study, settings.change)
        planned = replace(planned, notes=(*planned.notes, *earlier.notes))
        extra = earlier.part_of_key(settings.change)
        job = ledger.open_job(_new_job(planned, [known[uid] for uid in sorted(used)], broken, earlier, extra))
    verdicts = [_verdict(series) for series in planned.series] + _unread(known, found)
    why = planned.why if found.series else "none of its objects can be read as DICOM images"
    if ledger.mark_routed(study_uid, study.revision, verdicts, why, job_id=job.id if job else None):
        log.info("study routed", study=study_uid, job=job.id if job else None, why=why)
    return job


def _for_comparison(ledger: Ledger, study_uid: str, planned: Plan) -> Plan:
    """A study that was fetched is as urgent as the one it is compared with, and its results go nowhere."""
    _, priority = ledger.fetched_for(study_uid)
    return replace(planned, priority=priority, destinations=(), why=f"for comparison only: {planned.why}")


def _origin(series: Known, study: KnownStudy) -> Origin:
    return Origin(
        series.manufacturer, study.study_description, series.station_name, series.institution, series.calling_ae
    )


def _unused(series: SeriesPlan, why: str) -> SeriesPlan:
    return series if series.action == Action.IGNORE else replace(series, action=Action.IGNORE, why=why)


def _verdict(series: SeriesPlan) -> SeriesVerdict:
    return SeriesVerdict(
        series.series.series_instance_uid,
        series.action != Action.IGNORE,
        series.series.role,
        series.series.rule,
        series.why,
        series.series.needs_confirmation,
    )


def _unread(known: Mapping[str, Known], found: Study) -> list[SeriesVerdict]:
    """Verdicts on series of which no file could be read."""
    read = {series.series_instance_uid for series in found.series}
    why = "none of its objects can be read as DICOM images"
    return [SeriesVerdict(uid, False, Role.OTHER, "", why) for uid in known if uid not in read]


def _new_job(
    planned: Plan, inputs: Sequence[Known], broken: Sequence[str], earlier: Choice, extra: Mapping[str, object]
) -> NewJob:
    """Make the job of a plan; its key is made of every image it uses, the profile, and what it is compared with."""
    from pipeline.profile import load_profile

    assert planned.profile is not None  # noqa: S101 - for the type checker
    chosen = planned.pick
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


def _warnings(inputs: Sequence[Known], broken: Sequence[str]) -> Iterator[str]:
    """What a reader of the result should know about how its input came; the pipeline says the rest."""
    for known in inputs:
        if not known.whole:
            yield f"series {known.series_number} may be incomplete: {known.settled_why}"
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        yield f"left out, not readable: {broken[0]}{more}"
