"""What has changed since the prior study, and what must a reader know before relying on it?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.brain import extract_brain
from pipeline.detect import Detection, RegisteredPrior
from pipeline.findings import Certainty, ChangeOverTime, Findings
from pipeline.parameters import ChangeParameters

from .aria_h import aria_h, flags
from .caveats import of_readings, of_scans
from .reference import Prior, ReferenceImage, make_reference
from .registration import Pose, register
from .trends import TrendDecision, Trends

UNGRADED = "ARIA-H is not graded: one scan is SWI, the other T2*-GRE"
THRESHOLDS = "the grades of ARIA-H were defined on T2*-GRE; SWI shows more microbleeds"
GONE = "microbleeds seldom vanish: one that is no longer seen usually reflects a difference between the images"


def compare(
    detection: Detection, prior: Prior, parameters: ChangeParameters, reference: ReferenceImage | None = None
) -> Detection:
    """Compare the findings with a prior study of the same patient.

    Parameters
    ----------
    detection : Detection
        The present result.
    prior : Prior
        The prior result and its reference image.
    parameters : ChangeParameters
        Distances and thresholds.
    reference : ReferenceImage, optional
        That of `detection`, if there is one already.

    Returns
    -------
    Detection
        The lesions with their trend, and `findings.change`. If the two studies cannot be registered, `change` says so
        and no lesion has a trend.
    """
    if prior.reference is None:
        return not_compared(detection, prior, prior.why or "the reference image of the prior study is missing")
    here = reference or _reference(detection)
    pose = register(here, prior.reference)
    if why := pose.objection(parameters):
        return not_compared(detection, prior, why, pose.fit)
    judged = judge(detection, prior, here, pose, parameters)
    if prior.swi is None:
        return judged
    to_prior = np.asarray(np.linalg.inv(pose.matrix), dtype=np.float64)
    return replace(judged, prior=RegisteredPrior(prior.swi, to_prior))


def judge(
    detection: Detection, prior: Prior, here: ReferenceImage, pose: Pose, parameters: ChangeParameters
) -> Detection:
    """Decide what became of every microbleed, with the prior study at `pose`; see :func:`compare`."""
    if prior.reference is None:
        raise ValueError("the prior study has no reference image")
    outcome = TrendDecision(detection.findings, prior, here, prior.reference, pose, parameters).outcome()
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
    """Say why an existing prior study could not be compared with."""
    rounded = None if fit is None else round(fit, 3)
    change = replace(_since(prior), why=why, fit=rounded)
    lesions = tuple(replace(lesion, trend=None, prior_tracking_uid=None) for lesion in detection.findings.lesions)
    return replace(detection, findings=replace(detection.findings, lesions=lesions, change=change))


def _caveats(
    outcome: Trends, present: Findings, prior: Prior, here: ReferenceImage, parameters: ChangeParameters
) -> Iterator[str]:
    """What a reader must know about this comparison, the most important first."""
    if prior.reference is None:  # for the type checker: `compare` has returned before
        raise AssertionError
    grade = _grade(len(outcome.new), here, prior.reference, parameters)
    if grade is None:
        yield UNGRADED
    yield from of_scans(here.scan, prior.reference.scan)
    yield from of_readings(present, prior.findings)
    for numbers, why in _grouped([(str(lesion.id), why) for lesion, why in outcome.undecided]):
        many = len(numbers) > 1
        yield f"microbleed{'s' if many else ''} {_listed(numbers)} {'are' if many else 'is'} not counted as new: {why}"
    for numbers, why in _grouped([("", why) for _, why in outcome.unclear]):
        what = (
            "1 microbleed of the prior study is"
            if len(numbers) == 1
            else f"{len(numbers)} microbleeds of the prior study are"
        )
        yield f"{what} not counted as no longer seen: {why}"
    if grade is not None:
        yield from _how_sure(grade, outcome, parameters)
        if here.scan.sequence == "swi":
            yield THRESHOLDS
    if outcome.gone:
        yield GONE


def _how_sure(grade: str, outcome: Trends, parameters: ChangeParameters) -> Iterator[str]:
    definite = sum(lesion.certainty is Certainty.DEFINITE for lesion in outcome.new)
    if (alone := aria_h(definite, parameters)) != grade:
        yield f"ARIA-H would be {alone} by the definite microbleeds alone ({definite} new)"
    every = len(outcome.new) + len(outcome.undecided)
    if (most := aria_h(every, parameters)) != grade:
        yield f"ARIA-H would be {most} if the {len(outcome.undecided)} undecided were new"


def _grade(new: int, here: ReferenceImage, there: ReferenceImage, parameters: ChangeParameters) -> str | None:
    return aria_h(new, parameters) if here.scan.sequence == there.scan.sequence else None


def _grouped(said: Sequence[tuple[str, str]]) -> Iterator[tuple[list[str], str]]:
    for why in dict.fromkeys(why for _, why in said):
        yield [name for name, one in said if one == why], why


def _listed(numbers: Sequence[str]) -> str:
    return numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}"


def _since(prior: Prior) -> ChangeOverTime:
    """The study that is compared with; the rest is filled in later."""
    return ChangeOverTime(
        prior_study_instance_uid=prior.study_instance_uid,
        prior_study_date=prior.study_date,
        prior_sr_sop_instance_uid=prior.sr_sop_instance_uid,
        prior_sr_series_instance_uid=prior.sr_series_instance_uid,
        assessed=False,
    )


def _reference(detection: Detection) -> ReferenceImage:
    brain = detection.brain
    if brain is None:
        brain = extract_brain(detection.acquisition.magnitude or detection.acquisition.swi)
    return make_reference(detection.acquisition, brain)
