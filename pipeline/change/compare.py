"""Which bleeds are new, which were there, which are no longer seen? And what must be known before that is believed.

A difference counts only where both scans could have shown it. A bleed outside the brain of the other scan, or where the
other reading has a candidate below its threshold or one that a reader rejected, is neither new nor gone: microbleeds
stay for years, and what wavers about a threshold is more often the image than the brain. Such bleeds are counted apart
and named, and the grade of ARIA-H is made without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.brain import extract_brain
from pipeline.change.caveats import of_readings, of_scans
from pipeline.change.grading import aria_h, flags
from pipeline.change.matching import match, near
from pipeline.change.prior import Prior
from pipeline.change.reference import Reference, make_reference
from pipeline.change.registration import Pose, register
from pipeline.detect import Detection
from pipeline.findings import Certainty, ChangeOverTime, Findings, Lesion, Point, PriorLesion, RejectedLesion, Trend
from pipeline.parameters import ChangeParameters

Points = NDArray[np.float64]
UNGRADED = "ARIA-H is not graded: one scan is SWI, the other T2*-GRE"
THRESHOLDS = "the grades of ARIA-H were made on T2*-GRE; SWI shows more microbleeds"
GONE = "microbleeds seldom vanish: one that is no longer seen is more often a matter of the images"


def compare(
    detection: Detection, prior: Prior, parameters: ChangeParameters, reference: Reference | None = None
) -> Detection:
    """Compare what was found with an earlier scan of the same patient.

    Parameters
    ----------
    detection : Detection
        What was found now.
    prior : Prior
        The earlier result and its reference image.
    parameters : ChangeParameters
        Distances and thresholds.
    reference : Reference, optional
        That of `detection`, if it was made already.

    Returns
    -------
    Detection
        The lesions with their trend, and `findings.change`. Where the two cannot be laid on each other, that is said
        there and no lesion has a trend.
    """
    if prior.reference is None:
        return not_compared(detection, prior, prior.why or "the reference image of the earlier scan is not there")
    here = reference or _reference(detection)
    pose = register(here, prior.reference)
    if why := pose.objection(parameters):
        return not_compared(detection, prior, why, pose.fit)
    return judge(detection, prior, here, pose, parameters)


def judge(detection: Detection, prior: Prior, here: Reference, pose: Pose, parameters: ChangeParameters) -> Detection:
    """Say what has become of every bleed, with the earlier scan at `pose`; :func:`compare` says the rest."""
    if prior.reference is None:
        raise ValueError("the earlier scan has no reference image")
    outcome = _Comparison(detection.findings, prior, here, prior.reference, pose, parameters).outcome()
    caveats = _caveats(outcome, detection.findings, prior, here, parameters)
    change = replace(
        _since(prior),
        assessed=True,
        why="",
        new=len(outcome.new),
        stable=len(outcome.stable),
        no_longer_seen=outcome.gone,
        aria_h=_grade(len(outcome.new), here, prior.reference, parameters),
        flags=flags(len(detection.findings.lesions), parameters),
        caveats=tuple(caveats),
        fit=round(pose.fit, 3),
        undecided=tuple(sorted(lesion.id for lesion, _ in outcome.undecided)),
        unclear=tuple(lesion for lesion, _ in outcome.unclear),
    )
    lesions = tuple(outcome.marked(lesion) for lesion in detection.findings.lesions)
    return replace(detection, findings=replace(detection.findings, lesions=lesions, change=change))


def not_compared(detection: Detection, prior: Prior, why: str, fit: float | None = None) -> Detection:
    """Say that an earlier scan is there and why it could not be compared with."""
    rounded = None if fit is None else round(fit, 3)
    change = replace(_since(prior), why=why, fit=rounded)
    lesions = tuple(replace(lesion, trend=None, prior_tracking_uid=None) for lesion in detection.findings.lesions)
    return replace(detection, findings=replace(detection.findings, lesions=lesions, change=change))


@dataclass(frozen=True, eq=False)
class _Outcome:
    """Bleeds of both scans by what became of them; the reason beside those that nothing can be said of."""

    stable: dict[int, str]  # number of the bleed now, tracking UID then
    new: tuple[Lesion, ...]
    undecided: tuple[tuple[Lesion, str], ...]
    gone: tuple[PriorLesion, ...]
    unclear: tuple[tuple[PriorLesion, str], ...]

    def marked(self, lesion: Lesion) -> Lesion:
        if lesion.id in self.stable:
            return replace(lesion, trend=Trend.STABLE, prior_tracking_uid=self.stable[lesion.id])
        trend = Trend.NEW if any(lesion.id == new.id for new in self.new) else None
        return replace(lesion, trend=trend, prior_tracking_uid=None)


@dataclass(frozen=True, eq=False)
class _Comparison:
    present: Findings
    prior: Prior
    here: Reference
    there: Reference
    pose: Pose
    parameters: ChangeParameters

    def outcome(self) -> _Outcome:
        now, then = self.present.lesions, self.prior.findings.lesions
        at, was = _centres(now), self.pose.to_present(_centres(then))
        pairs = match(at, was, self.parameters.match_mm)
        alone = [n for n in range(len(now)) if n not in {a for a, _ in pairs}]
        lost = [n for n in range(len(then)) if n not in {b for _, b in pairs}]
        before = self._doubts(at[alone], self.prior.findings, self.there, then=True)
        after = self._doubts(was[lost], self.present, self.here, then=False)
        moved = [_moved(then[n], was[n]) for n in lost]
        return _Outcome(
            stable={now[a].id: then[b].tracking_uid for a, b in pairs},
            new=tuple(now[n] for n, why in zip(alone, before, strict=True) if not why),
            undecided=tuple((now[n], why) for n, why in zip(alone, before, strict=True) if why),
            gone=tuple(lesion for lesion, why in zip(moved, after, strict=True) if not why),
            unclear=tuple((lesion, why) for lesion, why in zip(moved, after, strict=True) if why),
        )

    def _doubts(self, places: Points, other: Findings, scan: Reference, *, then: bool) -> list[str]:
        """Why the other reading does not tell that there was nothing at these places (present coordinates)."""
        to_here = self.pose.to_present if then else np.asarray
        seen = scan.shows(self.pose.to_prior(places) if then else places, self.parameters.coverage_mm)
        rejected = near(places, to_here(_centres(other.rejected)), self.parameters.match_mm)
        faint = near(places, to_here(self._below_threshold(other)), self.parameters.doubt_mm)
        said = ("the earlier scan", "the earlier reading") if then else ("this scan", "this reading")
        words = {
            "unseen": f"{said[0]} does not show the place",
            "rejected": f"a reader rejected what {said[1]} has there",
            "faint": f"{said[1]} has a candidate below its threshold there",
        }
        return [
            words["unseen"] if not s else words["rejected"] if r else words["faint"] if f else ""
            for s, r, f in zip(seen, rejected, faint, strict=True)
        ]

    def _below_threshold(self, findings: Findings) -> Points:
        """Centres of candidates that were scored, are not nothing, and were not reported."""
        reported = {one.centroid_lps_mm for one in findings.lesions} | {
            one.centroid_lps_mm for one in findings.rejected
        }
        scored = [c for c in findings.candidates if c.probability >= self.parameters.doubt_probability]
        return _points([c.centroid_lps_mm for c in scored if c.centroid_lps_mm not in reported])


def _caveats(
    outcome: _Outcome, present: Findings, prior: Prior, here: Reference, parameters: ChangeParameters
) -> Iterator[str]:
    """What a reader must know of this comparison; what weighs most comes first."""
    if prior.reference is None:  # for the type checker: `compare` ended before
        raise AssertionError
    grade = _grade(len(outcome.new), here, prior.reference, parameters)
    if grade is None:
        yield UNGRADED
    yield from of_scans(here.scan, prior.reference.scan)
    yield from of_readings(present, prior.findings)
    for numbers, why in _grouped([(str(lesion.id), why) for lesion, why in outcome.undecided]):
        many = len(numbers) > 1
        yield f"microbleed{'s' if many else ''} {_listed(numbers)} not counted as new: {why}"
    for numbers, why in _grouped([("", why) for _, why in outcome.unclear]):
        what = "1 earlier microbleed is" if len(numbers) == 1 else f"{len(numbers)} earlier microbleeds are"
        yield f"{what} not counted as no longer seen: {why}"
    if grade is not None:
        yield from _how_sure(grade, outcome, parameters)
        if here.scan.sequence == "swi":
            yield THRESHOLDS
    if outcome.gone:
        yield GONE


def _how_sure(grade: str, outcome: _Outcome, parameters: ChangeParameters) -> Iterator[str]:
    definite = sum(lesion.certainty is Certainty.DEFINITE for lesion in outcome.new)
    if (alone := aria_h(definite, parameters)) != grade:
        yield f"ARIA-H would be {alone} by definite microbleeds alone ({definite} new)"
    every = len(outcome.new) + len(outcome.undecided)
    if (most := aria_h(every, parameters)) != grade:
        yield f"ARIA-H would be {most} if the {len(outcome.undecided)} that were not counted are new"


def _grade(new: int, here: Reference, there: Reference, parameters: ChangeParameters) -> str | None:
    return aria_h(new, parameters) if here.scan.sequence == there.scan.sequence else None


def _grouped(said: Sequence[tuple[str, str]]) -> Iterator[tuple[list[str], str]]:
    for why in dict.fromkeys(why for _, why in said):
        yield [name for name, one in said if one == why], why


def _listed(numbers: Sequence[str]) -> str:
    return numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}"


def _since(prior: Prior) -> ChangeOverTime:
    """Name what is compared with; the rest is yet to be said."""
    return ChangeOverTime(
        prior_study_instance_uid=prior.study_instance_uid,
        prior_study_date=prior.study_date,
        prior_sr_sop_instance_uid=prior.sr_sop_instance_uid,
        prior_sr_series_instance_uid=prior.sr_series_instance_uid,
        assessed=False,
    )


def _reference(detection: Detection) -> Reference:
    brain = detection.brain
    if brain is None:
        brain = extract_brain(detection.acquisition.magnitude or detection.acquisition.swi)
    return make_reference(detection.acquisition, brain)


def _moved(lesion: Lesion, at: Points) -> PriorLesion:
    x, y, z = (round(float(v), 2) for v in at)  # no more than the registration can tell
    facts = {name: getattr(lesion, name) for name in PriorLesion.__dataclass_fields__ if name != "centroid_lps_mm"}
    return PriorLesion(centroid_lps_mm=(x, y, z), **facts)


def _centres(lesions: Sequence[Lesion | RejectedLesion]) -> Points:
    return _points([lesion.centroid_lps_mm for lesion in lesions])


def _points(places: Sequence[Point]) -> Points:
    return np.asarray(places, dtype=np.float64).reshape(-1, 3)
