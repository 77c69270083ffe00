"""Everything that is measured of one profile on one cohort, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.text import numbered

from .bootstrap import Estimate, Resamples
from .burden import NAMES, BurdenAgreement, burden
from .calibration import Calibration, calibration
from .groups import BY, FalseKind, Group, false_kinds, sensitivity_by, size_classes
from .metrics import DetectionCounts, StudyResult, froc_of
from .outcomes import MarkOutcome
from .rules import RuleSensitivity, by_rule

RATES = (0.5, 1.0, 2.0, 8.0)
"""False positives per study at which sensitivity is quoted."""
FEW_BLEEDS = 200
"""With fewer visible microbleeds a sensitivity of 95 % cannot be claimed."""
FEW_SUBJECTS = 20
"""With fewer subjects the bootstrap gives intervals that are too narrow."""


@dataclass(frozen=True)
class CohortMeasurement:
    """The set that was measured on; the same for every profile."""

    studies: int
    subjects: int
    anatomies: int
    bleeds: int
    visible: int
    mimics: int
    simulated: bool
    rules: tuple[str, ...]

    @classmethod
    def of(cls, results: Sequence[StudyResult]) -> CohortMeasurement:
        """Count what is in the studies."""
        cases = [result.case for result in results]
        truths = [case.truth for case in cases]
        return cls(
            studies=len(cases),
            subjects=len({case.subject for case in cases}),
            anatomies=len({case.anatomy for case in cases}),
            bleeds=sum(len(truth.bleeds) for truth in truths),
            visible=sum(len(truth.visible) for truth in truths),
            mimics=sum(len(truth.mimics) for truth in truths),
            simulated=any(case.simulated for case in cases),
            rules=tuple(sorted({truth.rule for truth in truths})),
        )

    def __str__(self) -> str:
        studies = numbered(self.studies, "simulated study" if self.simulated else "study")
        persons = numbered(self.subjects, "subject")
        if self.anatomies != self.subjects:
            persons += f" and {numbered(self.anatomies, 'anatomy')}"
        return f"{studies} of {persons}, {self.visible} visible of {numbered(self.bleeds, 'microbleed')}"


@dataclass(frozen=True)
class EvaluationSummary:
    """All figures of one profile.

    Parameters
    ----------
    profile : str
        Its name.
    figures : dict
        ``sensitivity``, ``fp_per_study``, ``precision``, ``f1`` of the reported lesions, and of all scored candidates
        ``candidate_sensitivity`` and ``candidate_fp_per_study``: the ceiling of the stages after the first.
    at_rates : dict
        Sensitivity at each of :data:`RATES`, from all scored candidates.
    curve : list of tuple
        FROC: false positives per study, sensitivity and threshold.
    rules : list of RuleSensitivity
        Sensitivity by stricter and by wider rules.
    groups : dict
        Sensitivity of the reported lesions by size, region and placement.
    false : list of FalseKind
        What false positives lie on.
    burden : BurdenAgreement
        Agreement of burden classes.
    all_scores, reported_scores : Calibration
        Reliability of all scored candidates, and of the reported lesions alone.
    not_counted : int
        Reported microbleeds that cannot be seen: neither found nor false.
    refused : dict
        Studies that were refused, with the reason; their microbleeds count as missed.
    silent : tuple of str
        Studies with visible microbleeds, an empty answer, and no warning but the profile's usual caveats.
    seconds : dict
        Mean time of each stage.
    """

    profile: str
    figures: dict[str, Estimate]
    at_rates: dict[float, Estimate]
    curve: list[tuple[float, float, float]]
    rules: list[RuleSensitivity]
    groups: dict[str, list[Group]]
    false: list[FalseKind]
    burden: BurdenAgreement
    all_scores: Calibration
    reported_scores: Calibration
    not_counted: int
    refused: dict[str, str]
    silent: tuple[str, ...]
    seconds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; a figure is ``[value, low, high]``, its 95 % interval."""
        return {
            "profile": self.profile,
            **{name: estimate.to_json() for name, estimate in self.figures.items()},
            "sensitivity_at_fp": {f"{rate:g}": estimate.to_json() for rate, estimate in self.at_rates.items()},
            "froc": [[round(f, 5), round(s, 5), _finite(t)] for f, s, t in self.curve],
            "sensitivity_by_rule": [_flat(asdict(rule)) for rule in self.rules],
            "sensitivity_by": {by: [_flat(asdict(group)) for group in groups] for by, groups in self.groups.items()},
            "false_positives_on": [_flat(asdict(kind)) for kind in self.false],
            "burden": {
                "classes": list(NAMES),
                "true_by_reported": [list(row) for row in self.burden.table],
                "weighted_kappa": self.burden.kappa.to_json(),
                "same_class": self.burden.same.to_json(),
            },
            "calibration": {"scored": asdict(self.all_scores), "reported": asdict(self.reported_scores)},
            "not_counted": self.not_counted,
            "refused": self.refused,
            "silent_empty": list(self.silent),
            "seconds": self.seconds,
        }


def by_study(results: Sequence[StudyResult]) -> dict[str, dict[str, Any]]:
    """What was missed and what was false in each study, and where: for whoever wants to look."""
    return {
        r.case.name: {
            "found": r.hits,
            "missed": [asdict(bleed) for bleed in r.missed],
            "false": [
                {"centre_lps_mm": j.mark.centre_lps_mm, "probability": j.mark.probability, "lies_on": j.lies_on}
                for j in r.lesions
                if j.verdict is MarkOutcome.FALSE
            ],
        }
        for r in results
    }


def _finite(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    """The same with every interval as a list."""
    return {k: list(v.values()) if isinstance(v, dict) else v for k, v in entry.items()}


def summarise(
    profile: str, results: Sequence[StudyResult], *, caveats: Sequence[str] = (), draws: int = 1000, seed: int = 0
) -> EvaluationSummary:
    """Measure everything.

    Parameters
    ----------
    profile : str
        Name of the profile.
    results : sequence of StudyResult
        Its answers, judged; at least one.
    caveats : sequence of str
        Warnings that the profile gives with every answer, so that they say nothing about any one study.
    draws, seed : int
        Resamples of the subjects, for the intervals.
    """
    resamples = Resamples([result.case.subject for result in results], draws, seed)
    counts, froc = DetectionCounts.of(results), froc_of(results)
    figures = {name: resamples.estimate(metric) for name, metric in counts.metrics().items()}
    ceiling = resamples.estimates(lambda weights: np.array([axis[-1] for axis in froc.curve(weights)[:2]]))
    figures["candidate_fp_per_study"], figures["candidate_sensitivity"] = ceiling
    rates = resamples.estimates(lambda weights: froc.sensitivity_at(RATES, weights))
    order = size_classes()
    return EvaluationSummary(
        profile=profile,
        figures=figures,
        at_rates=dict(zip(RATES, rates, strict=True)),
        curve=list(zip(*(axis.tolist() for axis in froc.curve()), strict=True)),
        rules=by_rule(results, resamples),
        groups={by: sensitivity_by(results, of, resamples, order) for by, of in BY.items()},
        false=false_kinds(results, resamples),
        burden=burden(results, resamples),
        all_scores=calibration([j for r in results for j in r.candidates]),
        reported_scores=calibration([j for r in results for j in r.lesions]),
        not_counted=sum(j.verdict is MarkOutcome.NOT_COUNTED for r in results for j in r.lesions),
        refused={r.case.name: r.refused for r in results if r.refused},
        silent=_silent(results, set(caveats)),
        seconds=_seconds(results),
    )


def _silent(results: Sequence[StudyResult], caveats: set[str]) -> tuple[str, ...]:
    names = []
    for result in results:
        answer = result.answer
        if (
            answer is not None
            and result.case.truth.visible
            and not answer.lesions
            and not set(answer.warnings) - caveats
        ):
            names.append(result.case.name)
    return tuple(names)


def _seconds(results: Sequence[StudyResult]) -> dict[str, float]:
    times = [r.answer.timing_s for r in results if r.answer is not None]
    stages = list(dict.fromkeys(stage for one in times for stage in one))
    mean = {stage: round(float(np.mean([one.get(stage, 0.0) for one in times])), 3) for stage in stages}
    return {**mean, "total": round(sum(mean.values()), 3)} if mean else {}
