"""Which candidates are real? A random forest over the features of each (:mod:`.features`).

The forest is trained with scikit-learn (:mod:`training.fit.forest`) and read here as plain arrays: nothing is
unpickled, and scikit-learn is not needed to run it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.candidates import Candidate
from pipeline.errors import ProfileError
from pipeline.geometry import Acquisition
from pipeline.measure.region import MeasureParameters
from pipeline.networks.weights import Weights, load_weights
from pipeline.parameters import Parameters as BaseParameters

from . import Scores
from .features import NAMES, measure

if TYPE_CHECKING:
    from torch import Tensor

LEARNED = True
TRAINED_BY = "cmbtrain fit-forest DATASET --out DIR"
LEAST_ODDS = 1e-3
Floats = NDArray[np.float64]


class Parameters(BaseParameters):
    """Settings of the features and of how the forest is grown."""

    measure: MeasureParameters = Field(MeasureParameters(), description="How the objects are grown")
    trees: int = Field(300, gt=0, description="Trees in the forest")
    leaf: int = Field(3, gt=0, description="Least candidates in a leaf")


@dataclass(frozen=True, eq=False)
class Forest:
    """Binary decision trees, one after the other in flat arrays with one entry per node.

    Parameters
    ----------
    roots : ndarray of int, shape (trees,)
        First node of each tree.
    left, right : ndarray of int
        Next node; at a leaf the node itself.
    feature : ndarray of int
        Column that is tested; −1 at a leaf.
    threshold : ndarray of float64
        Values up to it go left.
    missing_left : ndarray of bool
        Whether NaN goes left.
    value : ndarray of float64
        Share of microbleeds at a leaf.
    calibration : ndarray of float64, shape (2,)
        Offset and slope that calibrate the log odds of the forest.
    """

    roots: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: Floats
    missing_left: NDArray[np.bool_]
    value: Floats
    calibration: Floats

    def vote(self, features: NDArray[np.float32]) -> Floats:
        """Mean share of microbleeds over all trees: scikit-learn's ``predict_proba(features)[:, 1]``, shape (n,)."""
        features = np.asarray(features, np.float32)
        rows = np.arange(len(features))[:, None]
        node = np.broadcast_to(self.roots, (len(features), len(self.roots))).copy()
        while ((asked := self.feature[node]) >= 0).any():
            value = features[rows, np.maximum(asked, 0)]
            goes_left = np.where(np.isnan(value), self.missing_left[node], value <= self.threshold[node])
            node = np.where(goes_left, self.left[node], self.right[node])
        return np.asarray(self.value[node].mean(axis=1))

    def probability(self, features: NDArray[np.float32]) -> Floats:
        """Calibrated probability of a microbleed, shape (n,)."""
        return calibrated(self.vote(features), self.calibration)


def log_odds(votes: Floats) -> Floats:
    """Log odds of shares of votes, kept finite."""
    held = np.clip(votes, LEAST_ODDS, 1 - LEAST_ODDS)
    return np.asarray(np.log(held / (1 - held)))


def calibrated(votes: Floats, calibration: Floats) -> Floats:
    """Probabilities from shares of votes (Platt scaling of their log odds)."""
    offset, slope = calibration
    return np.asarray(1 / (1 + np.exp(-(offset + slope * log_odds(votes)))))


def read_forest(tensors: Mapping[str, Tensor], where: str = "") -> Forest:
    """Make the forest of a weights file's tensors.

    Raises
    ------
    ProfileError
        If they are not those of a forest over these features.
    """
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    names = arrays.pop("names", np.empty(0, np.uint8)).tobytes().decode("utf-8", "replace")
    if set(arrays) != {f.name for f in fields(Forest)}:
        raise ProfileError("the weights are not those of a forest", where=where, do="train it again")
    if names.split("\n") != list(NAMES):
        raise ProfileError("the forest was trained on other features", where=where, do="train it again")
    return Forest(**arrays)


@lru_cache(maxsize=2)
def _load(weights: Weights) -> Forest:
    return read_forest(load_weights(weights), str(weights.file))


def score(
    acquisition: Acquisition,
    brain: NDArray[np.bool_],
    candidates: Sequence[Candidate],
    parameters: Parameters,
    *,
    weights: Weights,
    device: str = "cpu",  # noqa: ARG001 (a forest needs no accelerator)
) -> Scores:
    """Score each candidate.

    Raises
    ------
    ProfileError
        If the weights are missing or are not those of the profile.
    """
    forest = _load(weights)
    if not candidates:
        return Scores(np.empty(0))
    return Scores(forest.probability(measure(acquisition, brain, candidates, parameters.measure)))
