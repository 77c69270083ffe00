"""How is a profile trained from start to end? First stage, what it proposes, second stage, calibration, thresholds."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from training.datasets.cache import CachedStudy

from .classifier import fit_classifier, start_network
from .detector import fit_detector
from .recipe import commit, recipe_digest
from .training_run import TrainingRun, required
from .weights import header_of, sha256_of, start_from_imagenet, with_weights

FITTED = "fitted.json"
SCHEMA = "cmb-fitted/1"
_SETTINGS = "settings.json"
_START = "start.json"


def fit(job: TrainingRun) -> dict[str, Any]:
    """Train every learned stage of a profile that is not trained in `job.out` yet.

    Returns
    -------
    dict
        What ``fitted.json`` holds: weights, thresholds, calibration, figures on the validation studies.

    Raises
    ------
    InputError
        When the configuration lacks a stage, or the folder holds a run of other settings.
    """
    learned = _learned(job)
    if "classifier" not in learned:
        raise InputError(f"profile {job.profile.name} has no classifier to train")
    if job.profile.classifier is not None and (job.pretrained or job.start):
        # What it starts from is wanted at the end; if it does not fit, say so before hours of training.
        start_network(job, job.profile.classifier, required(job.config.classifier, "classifier"))
    _claim(job)
    about = _about(job, _start(job))
    if not about["start"]:
        job = replace(job, config=job.config.model_copy(update={"pretrained": "none"}))
    profile, scores = job.profile, {}
    if "candidates" in learned:
        path = job.out / f"{profile.name}-{profile.candidates.method}.safetensors"
        if not path.is_file():
            fit_detector(job, path)
            gc.collect()  # the trainer's cycles keep the crops of the first stage: gigabytes
        scores["detector_score"] = float(header_of(path)["validation_score"])
        profile = with_weights(profile, "candidates", path)
    path = job.out / f"{profile.name}-{learned['classifier']}.safetensors"
    document = {**about, **fit_classifier(job, profile, path)}
    document["figures"] |= scores
    names = [f"{profile.name}-{method}.safetensors" for method in learned.values()]
    document["weights"] = {name: sha256_of(job.out / name) for name in names}
    (job.out / FITTED).write_text(json.dumps(document, indent=1) + "\n")
    return document


def _learned(job: TrainingRun) -> dict[str, str]:
    """Methods of the stages that learn."""
    stages = {"candidates": job.profile.candidates, "classifier": job.profile.classifier}
    return {n: s.method for n, s in stages.items() if s is not None and getattr(s.module, "LEARNED", False)}


def _claim(job: TrainingRun) -> None:
    """Mark the folder with what is trained in it, so that a run goes on only with the same."""
    names = sorted(s.name for side in job.split for s in side)
    settings = {"config": job.config.model_dump(mode="json"), "recipe": recipe_digest(job.profile), "studies": names}
    if job.start is not None:
        settings["start"] = job.start.weights
    if job.pretrained is not None:
        settings["pretrained"] = sha256_of(job.pretrained)
    mark = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    path = job.out / _SETTINGS
    if path.is_file() and json.loads(path.read_text())["sha256"] != mark:
        what = "holds a training run with other settings or studies"
        raise InputError(what, where=str(job.out), do="use another --out")
    job.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"sha256": mark, **settings}, indent=1) + "\n")


def _start(job: TrainingRun) -> dict[str, str]:
    """What the networks start from: files with their SHA-256; none for random numbers. Decided once for a run."""
    path = job.out / _START
    if not path.is_file():
        start = {} if job.start is None else dict(job.start.weights)
        if job.pretrained is not None:
            start[job.pretrained.name] = sha256_of(job.pretrained)
        path.write_text(json.dumps(start or _imagenet(job), indent=1) + "\n")
    known: dict[str, str] = json.loads(path.read_text())
    return known


def _imagenet(job: TrainingRun) -> dict[str, str]:
    """The file of ImageNet weights, if they are wanted and can be had, and the start of its SHA-256, from its name."""
    if job.config.pretrained != "imagenet" or job.profile.classifier is None:
        return {}
    method = job.profile.classifier.module
    parameters = method.Parameters(**job.profile.classifier.parameters)
    try:
        name = start_from_imagenet(method.build(parameters), parameters.backbone)
    except InputError as error:
        job.say(f"TRAINING STARTS FROM RANDOM NUMBERS: {error}")
        return {}
    return {name: Path(name).stem.rsplit("-", 1)[-1]}


def _about(job: TrainingRun, start: dict[str, str]) -> dict[str, Any]:
    """What the weights come from, for their model card."""
    return {
        "schema": SCHEMA,
        "profile": job.profile.name,
        "recipe": recipe_digest(job.profile),
        "commit": commit(),
        "seed": job.config.seed,
        "config": job.config.model_dump(mode="json"),
        "start": start,
        "training": _side(job.split.train),
        "validation": _side(job.split.validation),
    }


def _side(studies: Sequence[CachedStudy]) -> dict[str, Any]:
    return {
        "studies": len(studies),
        "anatomies": sorted({s.anatomy for s in studies}),
        "visible_bleeds": sum(len(s.visible_bleeds()) for s in studies),
        "sha256": hashlib.sha256("\n".join(sorted(s.name for s in studies)).encode()).hexdigest(),
    }
