"""How much does the figure depend on the rule? All microbleeds or those of 2 mm and more, matched within 5 or 3 mm.

STRIVE (Wardlaw 2013) calls a microbleed what is 2 mm or more across. Two kinds of interval stand side by side: the
bootstrap knows that the microbleeds of one head are alike, but is blind where all are found; Wilson's (1927) is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from .bootstrap import Estimate, Resamples
from .froc import CountedCandidates, Froc
from .matching import MATCH_MM
from .metrics import StudyResult
from .outcomes import MarkOutcome, judge

STRICT_MM = 3.0
STRIVE_MM = 2.0
RATE = 0.5
"""False positives per study at which the rules are compared."""


@dataclass(frozen=True)
class RuleSensitivity:
    """Sensitivity at :data:`RATE` by one rule.

    Parameters
    ----------
    name : str
        The rule in words.
    bleeds : int
        Visible microbleeds that it counts.
    sensitivity : Estimate
        With the bootstrap's interval.
    wilson : tuple of float or None
        Wilson's 95 % interval.
    """

    name: str
    bleeds: int
    sensitivity: Estimate
    wilson: tuple[float, float] | None


def by_rule(results: Sequence[StudyResult], resamples: Resamples) -> list[RuleSensitivity]:
    """Sensitivity by each of the four rules."""
    return [
        _sensitivity(results, resamples, within, least)
        for least in (0.0, STRIVE_MM)
        for within in (MATCH_MM, STRICT_MM)
    ]


def _sensitivity(
    results: Sequence[StudyResult], resamples: Resamples, within_mm: float, least_mm: float
) -> RuleSensitivity:
    curve = Froc([_counted(result, within_mm, least_mm) for result in results])
    bleeds = sum(_counts(b.diameter_mm, least_mm) for r in results for b in r.case.truth.visible)
    found = resamples.estimate(lambda weights: float(curve.sensitivity_at((RATE,), weights)[0]))
    size = f"≥ {least_mm:g} mm" if least_mm else "all visible"
    wilson = None
    if bleeds and found.value is not None:
        interval = binomtest(round(found.value * bleeds), bleeds).proportion_ci(0.95, "wilson")
        wilson = (float(interval.low), float(interval.high))
    return RuleSensitivity(f"{size}, within {within_mm:g} mm", bleeds, found, wilson)


def _counts(diameter_mm: float | None, least_mm: float) -> bool:
    """Whether a microbleed is large enough; one of unknown size only where all count."""
    return least_mm == 0 or (diameter_mm is not None and diameter_mm >= least_mm)


def _counted(result: StudyResult, within_mm: float, least_mm: float) -> CountedCandidates:
    """The scored candidates by this rule; what finds a smaller microbleed is neither found nor false."""
    bleeds = result.case.truth.bleeds
    judged = judge([j.mark for j in result.candidates], result.case.truth, within_mm)
    kept = [
        j
        for j in judged
        if j.verdict is MarkOutcome.FALSE
        or (j.verdict is MarkOutcome.HIT and j.bleed is not None and _counts(bleeds[j.bleed].diameter_mm, least_mm))
    ]
    return CountedCandidates(
        np.array([j.mark.probability for j in kept], float),
        np.array([j.verdict is MarkOutcome.HIT for j in kept], bool),
        sum(_counts(b.diameter_mm, least_mm) for b in result.case.truth.visible),
    )
