"""How is the first stage trained? On crops or slices; the best epoch is chosen on whole validation studies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader

from pipeline.candidates import Candidate, heatmap, yolo
from pipeline.errors import InputError
from pipeline.inputs import Inputs
from pipeline.networks.yolo import YoloNet
from training.datasets.cache import CachedStudy
from training.fit.config import StageConfig
from training.fit.job import Job, required
from training.fit.modules import DetectorModule, HeatmapModule, YoloModule
from training.fit.samples import Crops, Slices, box_sides, collate_slices, heatmap_grids, slice_grids
from training.fit.targets import fit_anchors
from training.fit.trainer import train
from training.fit.weights import save_weights

Prepared = tuple[DetectorModule, DataLoader[Any]]


def fit_detector(job: Job, path: Path) -> None:
    """Train the first stage of a profile and write its weights, with the validation score in their header."""
    stage = required(job.config.detector, "detector")
    job.seed()
    method = job.profile.candidates.method
    studies = _validation_studies(job, stage)
    module, samples = _PREPARE[method](job, stage, studies)
    validation = DataLoader(cast("Any", torch.arange(len(studies))), batch_size=None)
    score = train(module, samples, validation, job.config, stage, job.out / "detector", job.say, job.minutes)
    about = {"profile": job.profile.name, "method": method, "validation_score": f"{score:.6f}"}
    sha = save_weights(module.network, path, about)
    job.say(f"detector: validation score {score:.3f}, {path.name}, SHA-256 {sha[:8]}…")


def _validation_studies(job: Job, stage: StageConfig) -> list[CachedStudy]:
    """Studies the best epoch is chosen with: those with bleeds first, where not all are used."""
    ranked = sorted(job.split.validation, key=lambda s: (not s.bleeds(), s.name))
    return ranked[: stage.validation_studies] if stage.validation_studies else ranked


def _heatmap(job: Job, stage: StageConfig, studies: list[CachedStudy]) -> Prepared:
    parameters = heatmap.Parameters(**job.profile.candidates.parameters)
    # Mirroring doubles the time of a validation and hardly changes which epoch is best.
    reading = parameters.model_copy(update={"mirror": False})

    def locate(network: nn.Module, inputs: Inputs, device: torch.device) -> list[Candidate]:
        return heatmap.locate(network, inputs, reading, device)

    network = heatmap.build(parameters)
    job.begin(network, "candidates")
    samples = Crops(heatmap_grids(job.split.train, parameters), stage)
    module = HeatmapModule(parameters, network, stage, job.config.seed, locate, studies)
    return module, job.loader(samples, stage.batch)


def _yolo(job: Job, stage: StageConfig, studies: list[CachedStudy]) -> Prepared:
    parameters = yolo.Parameters(**job.profile.candidates.parameters)
    grids = slice_grids(job.split.train, parameters)
    sides = box_sides(grids)
    if not sides.size:
        raise InputError("there is no visible bleed in the training studies")
    network = cast("YoloNet", yolo.build(parameters))
    network.set_anchors(fit_anchors(sides))
    job.begin(network, "candidates")

    def locate(network: nn.Module, inputs: Inputs, device: torch.device) -> list[Candidate]:
        return yolo.locate(network, inputs, parameters, device)

    module = YoloModule(network, stage, job.config.seed, locate, studies)
    return module, job.loader(Slices(grids, stage), stage.batch, collate_fn=collate_slices)


_PREPARE: dict[str, Callable[[Job, StageConfig, list[CachedStudy]], Prepared]] = {"heatmap": _heatmap, "yolo": _yolo}
