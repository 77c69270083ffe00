"""Would the patient be put in the right class? Classes of lesion count, and weighted kappa between them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from pipeline.findings.summary import BURDENS

from .bootstrap import Estimate, Resamples, Weights
from .metrics import StudyResult

LIMITS = tuple(sorted(least for least, _ in BURDENS if least))
NAMES = ("0", "1–4", "5–9", "≥ 10")


@dataclass(frozen=True)
class BurdenAgreement:
    """How true classes (rows) and reported classes (columns) agree; kappa is quadratically weighted (Cohen 1968)."""

    table: tuple[tuple[int, ...], ...]
    kappa: Estimate
    same: Estimate


def burden_class(count: int) -> int:
    """Class of a number of microbleeds, 0 to 3."""
    return int(np.searchsorted(LIMITS, count, side="right"))


def burden(results: Sequence[StudyResult], resamples: Resamples) -> BurdenAgreement:
    """Compare the classes of visible and of reported microbleeds; a refused study counts as one without a report."""
    true = np.array([burden_class(len(r.case.truth.visible)) for r in results], dtype=np.intp)
    said = np.array([burden_class(len(r.lesions)) for r in results], dtype=np.intp)
    table = confusion_matrix(true, said, labels=range(len(NAMES)))
    return BurdenAgreement(
        tuple(tuple(int(n) for n in row) for row in table),
        resamples.estimate(lambda weights: weighted_kappa(true, said, weights)),
        resamples.estimate(lambda weights: float(weights @ (true == said) / weights.sum())),
    )


def weighted_kappa(true: NDArray[np.intp], said: NDArray[np.intp], weights: Weights) -> float:
    """Quadratically weighted kappa; NaN when only one class occurs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one class only: 0/0, which the NaN says
        return float(
            cohen_kappa_score(true, said, labels=range(len(NAMES)), weights="quadratic", sample_weight=weights)
        )
