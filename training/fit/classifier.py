"""How is the second stage trained? On what the first proposes; then calibrated, on validation studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, WeightedRandomSampler

from pipeline.classifiers.probability import bleed_odds, calibrate
from pipeline.errors import InputError
from pipeline.networks.loading import choose_device
from pipeline.profile import ClassifierStage, Profile
from training.evaluation.froc import Froc

from .calibration import fit_calibration
from .config import StageConfig
from .mining import SKIP, MinedCandidates, mine, score_mined
from .modules import ClassifierModule
from .samples import SMALL_MM, PatchDataset
from .trainer import train
from .training_run import TrainingRun, required
from .weights import freeze_all_but_last, halve, save_weights, start_from_imagenet

RATES = (0.5, 1.0, 2.0, 8.0, 32.0)
"""False positives a study at which sensitivity is reported."""


def fit_classifier(job: TrainingRun, profile: Profile, path: Path) -> dict[str, Any]:
    """Train the second stage of a profile whose first is ready, and write its weights.

    Returns
    -------
    dict
        ``thresholds``, ``calibration`` and ``figures`` on the validation studies.
    """
    assert profile.classifier is not None  # noqa: S101 - asked by the caller
    stage, mining = required(job.config.classifier, "classifier"), job.config.mining
    kept = job.out / "mined"
    found = mine(job.split.train, profile, mining, job.device, training=True, keep=kept, say=job.say)
    held_out = mine(job.split.validation, profile, mining, job.device, training=False, keep=kept, say=job.say)
    job.seed()  # only now: what was loaded before draws random numbers, too
    network = start_network(job, profile.classifier, stage)
    score = _train(job, profile.classifier, stage, network, found, held_out)
    halve(network)  # what follows is of the weights as they are kept
    own = _odds(network, held_out, profile.classifier, choose_device(job.config.device))
    used = held_out.kinds != SKIP
    calibration = fit_calibration(own[used], held_out.odds[used], held_out.kinds[used] == 0)
    about = {"profile": profile.name, "method": profile.classifier.method}
    sha = save_weights(network, path, about, calibration)
    curve = Froc(score_mined(held_out, calibrate(own, held_out.odds, calibration), job.split.validation))
    rate = job.config.false_positives
    possible = min(1.0, curve.threshold_at(rate))
    definite = max(possible, min(1.0, curve.threshold_at(rate / 5)), 0.5)
    sensitivity = np.nan_to_num(curve.sensitivity_at(RATES)).tolist()
    figures = {f"sensitivity_at_{r:g}_fp": v for r, v in zip(RATES, sensitivity, strict=True)}
    figures["classifier_average_precision"] = score
    job.say(f"classifier: {path.name}, SHA-256 {sha[:8]}…; " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    thresholds = {"possible": _down(possible), "definite": _down(definite)}
    return {"thresholds": thresholds, "calibration": list(calibration), "figures": figures}


def _down(threshold: float) -> float:
    """Down to four digits, so that what reached the threshold still does."""
    return float(np.floor(threshold * 1e4) / 1e4)


def start_network(job: TrainingRun, classifier: ClassifierStage, stage: StageConfig) -> nn.Module:
    """Build the network and let it start where the job says."""
    method = classifier.module
    parameters = method.Parameters(**classifier.parameters)
    network: nn.Module = method.build(parameters)
    if job.pretrained is not None or job.start is not None:
        job.begin(network, "classifier")
    elif job.config.pretrained == "imagenet":
        start_from_imagenet(network, parameters.backbone)
    if stage.freeze:
        freeze_all_but_last(network)
    return network


def _train(
    job: TrainingRun,
    classifier: ClassifierStage,
    stage: StageConfig,
    network: nn.Module,
    found: MinedCandidates,
    held_out: MinedCandidates,
) -> float:
    method = classifier.module
    kept, used = torch.from_numpy(found.kinds != SKIP), torch.from_numpy(held_out.kinds != SKIP)
    classes, truth = found.classes(classifier.method)[kept], held_out.classes(classifier.method)[used]
    bleeds = classes == method.BLEED
    if not bleeds.any() or bleeds.all():
        what = "no microbleed is" if not bleeds.any() else "only microbleeds are"
        raise InputError(f"{what} among the training candidates", do="check the data set and the first stage")
    weights = sample_weights(found.kinds[kept.numpy()], found.sizes[kept.numpy()], stage)
    sampler = WeightedRandomSampler(weights.tolist(), stage.steps * stage.batch)
    samples = job.loader(PatchDataset(found.patches[kept], classes), stage.batch, sampler=sampler)
    validation: DataLoader[Any] = DataLoader(PatchDataset(held_out.patches[used], truth), stage.batch)
    parameters = method.Parameters(**classifier.parameters)
    module = ClassifierModule(
        network, stage, job.config.seed, method.join, method.channels(parameters), method.BLEED, method.step(parameters)
    )
    return train(module, samples, validation, job.config, stage, job.out / "classifier", job.say, job.minutes)


def sample_weights(kinds: NDArray[np.int64], sizes: NDArray[np.float64], stage: StageConfig) -> NDArray[np.float64]:
    """How often each candidate is drawn.

    Microbleeds make up `positive_share`, small ones more than others. Of the rest, the share `balance` is drawn evenly
    by kind, so that the rare mimics are seen as often as the many places with nothing; the remainder as they come.
    """
    bleeds = kinds == 0
    weights = np.where(sizes < SMALL_MM, stage.small_weight, 1.0) * bleeds
    weights *= stage.positive_share / weights.sum()
    others = (~bleeds).astype(float)
    for kind in np.unique(kinds[~bleeds]):
        of_kind = kinds == kind
        each = stage.balance / len(np.unique(kinds[~bleeds])) / of_kind.sum()
        others[of_kind] = each + (1 - stage.balance) / (~bleeds).sum()
    return np.asarray(weights + (1 - stage.positive_share) * others)


def _odds(
    network: nn.Module, mined: MinedCandidates, classifier: ClassifierStage, device: torch.device
) -> NDArray[np.float64]:
    """Log odds of mined candidates, mirrored where the profile mirrors."""
    method = classifier.module
    network = network.to(device).eval()
    parts = [np.empty(0)]
    with torch.inference_mode():
        for some in mined.patches.split(64):
            patches = some.float().to(device)
            views = [patches, patches.flip(-1)] if classifier.parameters.get("mirror") else [patches]
            odds = [bleed_odds(network(method.join(view)), method.BLEED).double().cpu().numpy() for view in views]
            parts.append(np.mean(odds, axis=0))
    return np.concatenate(parts)
