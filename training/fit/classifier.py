"""How is the second stage trained? On what the first proposes; then calibrated, on validation studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, WeightedRandomSampler

from pipeline.classifiers._learned import bleed_odds, calibrate
from pipeline.errors import InputError
from pipeline.networks.loading import choose_device
from pipeline.profile import ClassifierStage, Profile
from training.fit.calibration import fit_calibration
from training.fit.config import StageConfig
from training.fit.job import Job, required
from training.fit.matching import froc, threshold_for
from training.fit.mining import SKIP, Mined, match_mined, mine
from training.fit.modules import ClassifierModule
from training.fit.samples import Patches
from training.fit.trainer import train
from training.fit.weights import freeze_all_but_last, halve, save_weights, start_from_imagenet

RATES = (0.5, 1.0, 2.0, 8.0, 32.0)
"""False positives a study at which sensitivity is reported."""


def fit_classifier(job: Job, profile: Profile, path: Path) -> dict[str, Any]:
    """Train the second stage of a profile whose first is ready, and write its weights.

    Returns
    -------
    dict
        ``thresholds``, ``calibration`` and ``figures`` on the validation studies.
    """
    assert profile.classifier is not None  # noqa: S101 - asked by the caller
    stage, mining = required(job.config.classifier, "classifier"), job.config.mining
    found = mine(job.split.train, profile, mining, job.device, training=True, say=job.say)
    held_out = mine(job.split.validation, profile, mining, job.device, training=False, say=job.say)
    job.seed()  # only now: what was loaded before draws random numbers, too
    network = start_network(job, profile.classifier, stage)
    score = _train(job, profile.classifier, stage, network, found, held_out)
    halve(network)  # what follows is of the weights as they are kept
    own = _odds(network, held_out, profile.classifier, choose_device(job.config.device))
    used = held_out.kinds != SKIP
    calibration = fit_calibration(own[used], held_out.odds[used], held_out.kinds[used] == 0)
    about = {"profile": profile.name, "method": profile.classifier.method}
    sha = save_weights(network, path, about, calibration)
    matched = match_mined(held_out, calibrate(own, held_out.odds, calibration), job.split.validation)
    rate = job.config.false_positives
    possible = threshold_for(matched, rate)
    definite = max(possible, threshold_for(matched, rate / 5), 0.5)
    figures = {f"sensitivity_at_{r:g}_fp": v for r, v in zip(RATES, froc(matched, RATES), strict=True)}
    figures["classifier_average_precision"] = score
    job.say(f"classifier: {path.name}, SHA-256 {sha[:8]}…; " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    thresholds = {"possible": _down(possible), "definite": _down(definite)}
    return {"thresholds": thresholds, "calibration": list(calibration), "figures": figures}


def _down(threshold: float) -> float:
    """Down to four digits, so that what reached the threshold still does."""
    return float(np.floor(threshold * 1e4) / 1e4)


def start_network(job: Job, classifier: ClassifierStage, stage: StageConfig) -> nn.Module:
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
    job: Job, classifier: ClassifierStage, stage: StageConfig, network: nn.Module, found: Mined, held_out: Mined
) -> float:
    method = classifier.module
    kept, used = torch.from_numpy(found.kinds != SKIP), torch.from_numpy(held_out.kinds != SKIP)
    classes, truth = found.classes(classifier.method)[kept], held_out.classes(classifier.method)[used]
    bleeds = classes == method.BLEED
    if not bleeds.any() or bleeds.all():
        what = "no bleed is" if not bleeds.any() else "only bleeds are"
        raise InputError(f"{what} among the training candidates", do="check the data set and the first stage")
    share = torch.where(bleeds, stage.positive_share / bleeds.sum(), (1 - stage.positive_share) / (~bleeds).sum())
    sampler = WeightedRandomSampler(share.tolist(), stage.steps * stage.batch)
    samples = job.loader(Patches(found.patches[kept], classes), stage.batch, sampler=sampler)
    validation: DataLoader[Any] = DataLoader(Patches(held_out.patches[used], truth), stage.batch)
    parameters = method.Parameters(**classifier.parameters)
    module = ClassifierModule(
        network, stage, job.config.seed, method.join, method.channels(parameters), method.BLEED, method.step(parameters)
    )
    return train(module, samples, validation, job.config, stage, job.out / "classifier", job.say, job.minutes)


def _odds(network: nn.Module, mined: Mined, classifier: ClassifierStage, device: torch.device) -> NDArray[np.float64]:
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
