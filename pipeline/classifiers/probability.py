"""How does a network score candidates? What the learned classifiers have in common: batches, then calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.candidates import Candidate
from pipeline.geometry import Acquisition
from pipeline.networks.hardware import mixed_precision
from pipeline.networks.inputs import Inputs, prepare
from pipeline.networks.loading import load_network
from pipeline.networks.weights import Weights
from pipeline.parameters import Parameters

from . import Scores

Mask = NDArray[np.bool_]
P = TypeVar("P", bound=Parameters)
BATCH = 64
FURTHEST = 12.0
"""Log odds are clipped to this."""


def odds(
    network: nn.Module,
    patches: Callable[[NDArray[np.float64]], Tensor],
    centres: NDArray[np.float64],
    device: torch.device,
    *,
    bleed: int,
    mirror: bool,
) -> NDArray[np.float64]:
    """Log odds of a microbleed at each centre; `patches` cuts the input for some of them, `bleed` is its class."""
    found = []
    with torch.inference_mode(), mixed_precision(device):
        for start in range(0, len(centres), BATCH):
            batch = patches(centres[start : start + BATCH]).to(device)
            views = [batch, batch.flip(-1)] if mirror else [batch]
            found.append(
                torch.stack([bleed_odds(network(view).float(), bleed) for view in views]).mean(0).double().cpu()
            )
    return np.asarray(torch.cat(found).numpy()) if found else np.empty(0)


def bleed_odds(logits: Tensor, bleed: int) -> Tensor:
    """Log odds of one class against all others."""
    others = torch.cat([logits[:, :bleed], logits[:, bleed + 1 :]], 1)
    return logits[:, bleed] - others.logsumexp(1)


def calibrate(
    own: NDArray[np.float64], candidates: NDArray[np.float64], calibration: Sequence[float]
) -> NDArray[np.float64]:
    """Probabilities from the log odds of the classifier and of the candidates' scores."""
    offset, weight, of_candidate = calibration
    total = offset + weight * np.clip(own, -FURTHEST, FURTHEST) + of_candidate * candidates
    return np.asarray(1 / (1 + np.exp(-np.clip(total, -30, 30))))


def candidate_odds(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Log odds of scores that lie between 0 and 1; others are clipped."""
    scores = np.clip([c.score for c in candidates], 1e-4, 1 - 1e-4)
    return np.asarray(np.log(scores / (1 - scores)), np.float64)


def centres_of(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Their voxel coordinates, ``(n, 3)``."""
    return np.array([c.ijk for c in candidates], np.float64).reshape(-1, 3)


def score_with(
    build: Callable[[P], nn.Module],
    cut: Callable[[Inputs, NDArray[np.float64], P, torch.device], Tensor],
    acquisition: Acquisition,
    brain: Mask,
    candidates: Sequence[Candidate],
    parameters: P,
    weights: Weights,
    device: str,
    *,
    bleed: int,
    mirror: bool,
) -> Scores:
    """Score candidates with the network of a profile."""
    loaded = load_network(build, parameters, weights, device)
    if not candidates:
        return Scores(np.empty(0), np.empty(0))
    inputs = prepare(acquisition, brain)
    own = odds(
        loaded.network,
        lambda centres: cut(inputs, centres, parameters, loaded.device),
        centres_of(candidates),
        loaded.device,
        bleed=bleed,
        mirror=mirror,
    )
    return Scores(calibrate(own, candidate_odds(candidates), loaded.calibration), own)
