"""How is the first stage trained? On crops or slices; the best epoch is chosen on whole validation studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader

from pipeline.candidates import Candidate, heatmap, yolo
from pipeline.errors import InputError
from pipeline.networks.inputs import Inputs
from pipeline.networks.loading import channels_last
from pipeline.networks.yolo import YoloNet
from training.datasets.cache import CachedStudy

from .config import StageConfig
from .mistakes import mark_mistakes
from .modules import DetectorModule, HeatmapModule, YoloModule
from .samples import CropDataset, SliceDataset, box_sides, collate_slices, on_grid, slice_grids, training_channels
from .targets import fit_anchors
from .trainer import train
from .training_run import TrainingRun, required
from .weights import save_weights

Prepared = tuple[DetectorModule, DataLoader[Any]]


def fit_detector(job: TrainingRun, path: Path) -> None:
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


def _validation_studies(job: TrainingRun, stage: StageConfig) -> list[CachedStudy]:
    """Studies the best epoch is chosen with: those with microbleeds first, where not all are used."""
    ranked = sorted(job.split.validation, key=lambda s: (not s.visible_bleeds(), s.name))
    return ranked[: stage.validation_studies] if stage.validation_studies else ranked


def _heatmap(job: TrainingRun, stage: StageConfig, studies: list[CachedStudy]) -> Prepared:
    parameters = heatmap.Parameters(**job.profile.candidates.parameters)
    # Mirroring doubles the time of a validation and hardly changes which epoch is best.
    reading = parameters.model_copy(update={"mirror": False})

    def locate(network: nn.Module, inputs: Inputs, device: torch.device) -> list[Candidate]:
        return heatmap.locate(network, inputs, reading, device)

    network = heatmap.build(parameters)
    job.begin(network, "candidates")
    channels = training_channels(parameters.channels, stage.augmentation)
    train: Sequence[CachedStudy] = job.split.train
    if job.start is not None and stage.mistake_share:
        channels_last(network).eval()
        train = mark_mistakes(job, lambda inputs, device: locate(network.to(device), inputs, device))
        network.train()
    samples = CropDataset([on_grid(s, parameters.step_mm, channels) for s in train], stage)
    module = HeatmapModule(parameters, channels, network, stage, job.config.seed, locate, studies)
    return module, job.loader(samples, stage.batch)


def _yolo(job: TrainingRun, stage: StageConfig, studies: list[CachedStudy]) -> Prepared:
    parameters = yolo.Parameters(**job.profile.candidates.parameters)
    grids = slice_grids(job.split.train, parameters)
    sides = box_sides(grids)
    if not sides.size:
        raise InputError("there is no visible microbleed in the training studies")
    network = cast("YoloNet", yolo.build(parameters))
    network.set_anchors(fit_anchors(sides))
    job.begin(network, "candidates")

    def locate(network: nn.Module, inputs: Inputs, device: torch.device) -> list[Candidate]:
        return yolo.locate(network, inputs, parameters, device)

    module = YoloModule(network, stage, job.config.seed, locate, studies)
    return module, job.loader(SliceDataset(grids, stage), stage.batch, collate_fn=collate_slices)


_PREPARE: dict[str, Callable[[TrainingRun, StageConfig, list[CachedStudy]], Prepared]] = {
    "heatmap": _heatmap,
    "yolo": _yolo,
}
