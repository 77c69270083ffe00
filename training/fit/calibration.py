"""What probability does a score stand for? Platt's logistic fit over both stages, on validation studies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from pipeline.classifiers.probability import FURTHEST

Values = NDArray[np.float64]
RIDGE = 1e-2


def fit_line(odds: Values, truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Offset and slope of the log odds that fit what happened; the slope is at least 0."""
    offset, slope, _ = fit_calibration(odds, np.zeros_like(odds), truth)
    return offset, slope


def fit_calibration(own: Values, candidate: Values, truth: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Fit offset and weights of the log odds of the classifier and of the first stage.

    Both weights are at least 0: more evidence never lowers a probability. Targets are smoothed as by Platt (1999), so a
    perfect separation does not give infinite odds.

    Returns
    -------
    tuple of float
        As :func:`pipeline.classifiers.probability.calibrate` takes them; neutral when there is only one class.
    """
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return 0.0, 1.0, 0.0
    wanted = np.where(truth, (positive + 1) / (positive + 2), 1 / (negative + 2))
    features = np.column_stack([np.ones_like(own), np.clip(own, -FURTHEST, FURTHEST), candidate])

    def loss(weights: Values) -> tuple[float, Values]:
        odds = features @ weights
        cost = np.logaddexp(0, odds) - wanted * odds
        away = weights - (0.0, 1.0, 0.0)
        away[0] = 0
        gradient = features.T @ (1 / (1 + np.exp(-odds)) - wanted) + 2 * RIDGE * away
        return float(cost.sum() + RIDGE * (away**2).sum()), gradient

    found = minimize(loss, [0.0, 1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(None, None), (0, None), (0, None)])
    offset, weight, of_candidate = (float(v) for v in found.x)
    return offset, weight, of_candidate
