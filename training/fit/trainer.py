"""How does a training run? Lightning's trainer: progress, checkpoints, going on, precision, devices, logs."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader

from pipeline.errors import CmbError
from pipeline.networks.loading import channels_last

from .config import FitConfig, StageConfig
from .modules import SCORE, StageModule

Say = Callable[[str], None]


class TrainingInterrupted(CmbError):  # noqa: N818 - nothing is wrong: the same command goes on
    """The time was up before the last epoch."""


class ProgressLines(Callback):
    """A line for each validation, where there is no terminal for a bar."""

    def __init__(self, stage: str, say: Say) -> None:
        self._stage, self._say = stage, say

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Say the figures of this epoch."""
        if trainer.is_global_zero:
            metrics = sorted((n, float(v)) for n, v in trainer.callback_metrics.items() if not n.startswith("lr-"))
            figures = ", ".join(f"{name} {value:.4g}" for name, value in metrics)
            self._say(f"{self._stage}, epoch {pl_module.current_epoch + 1}/{trainer.max_epochs}: {figures}")


def train(
    module: StageModule,
    samples: DataLoader[Any],
    validation: DataLoader[Any],
    config: FitConfig,
    stage: StageConfig,
    folder: Path,
    say: Say,
    minutes: float = 0,
) -> float:
    """Train a network and leave its best epoch in it; goes on from the last checkpoint in `folder`.

    Returns
    -------
    float
        The validation score of the best epoch.

    Raises
    ------
    TrainingInterrupted
        When `minutes` were up first.
    """
    _be_quiet()
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    if not on_gpu:
        channels_last(module.network)
    kept = folder / "checkpoints"
    best = ModelCheckpoint(kept, "best", monitor=SCORE, mode="max", enable_version_counter=False)
    each = ModelCheckpoint(kept, "last", enable_version_counter=False, save_on_train_epoch_end=True)
    timer = Timer(timedelta(minutes=minutes)) if minutes else None
    callbacks: list[Callback] = [best, each, LearningRateMonitor("step"), ProgressLines(folder.name, say)]
    trainer = lightning.Trainer(
        accelerator={"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[config.device],
        devices=config.devices,
        strategy="ddp" if config.devices > 1 else "auto",
        precision=fast_precision(on_gpu) if config.precision == "auto" else config.precision,
        max_epochs=stage.epochs,
        check_val_every_n_epoch=min(stage.validate_every, stage.epochs),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=min(20, stage.steps),
        logger=[CSVLogger(folder, "csv"), TensorBoardLogger(folder, "tensorboard")],
        callbacks=[*callbacks, *([timer] if timer else [])],
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        default_root_dir=folder,
    )
    last = kept / "last.ckpt"
    trainer.fit(module, samples, validation, ckpt_path=last if last.is_file() else None, weights_only=True)
    if trainer.current_epoch < stage.epochs:
        done = f"{folder.name} stopped after {trainer.current_epoch} of {stage.epochs} epochs"
        raise TrainingInterrupted(done, do="the same command continues")
    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)
    if module.averaged is not None:
        module.network.load_state_dict(module.averaged.module.state_dict())
    return float(best.best_model_score or 0.0)


def fast_precision(on_gpu: bool) -> Literal["32-true", "bf16-mixed"]:
    """The fastest of the precisions that train alike: a processor without AVX-512 is 12 times slower in bfloat16."""
    fast = torch.cuda.is_bf16_supported() if on_gpu else torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return "bf16-mixed" if fast else "32-true"


def _be_quiet() -> None:
    """Leave out Lightning's remarks on hardware and its tips; what goes wrong is raised."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
