"""How does each kind of network learn? Lightning modules: a loss, an optimiser, and what chooses the best epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.functional.classification import binary_average_precision

from pipeline.candidates import Candidate, heatmap
from pipeline.classifiers.probability import bleed_odds
from pipeline.networks.heatmap import FOLD
from pipeline.networks.inputs import Inputs
from pipeline.networks.yolo import YoloNet
from training.datasets.cache import CachedStudy
from training.evaluation.froc import CountedCandidates, Froc

from .augmentation import augment_volumes, vary_one_of_six
from .config import StageConfig
from .losses import classifier_loss, heatmap_loss, yolo_loss
from .samples import inputs_of
from .targets import draw_heatmaps

RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""False positives a study at which sensitivity is averaged."""
SCORE = "validation_score"
"""What the best epoch is chosen by; larger is better."""
SIGMA_MM = 1.2
"""Width of a peak of the heat map."""
CLIP_NORM = 10.0
"""Largest norm of the gradient; a larger one is clipped to it."""

Locate = Callable[[nn.Module, Inputs, torch.device], list[Candidate]]


class StageModule(lightning.LightningModule):
    """A network with its optimiser and schedule."""

    def __init__(self, network: nn.Module, config: StageConfig, seed: int) -> None:
        super().__init__()
        self.network, self.config, self.seed = network, config, seed
        self.averaged: AveragedModel | None = None
        if config.average:
            self.averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.average), use_buffers=True)

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and kept: with the moving average of the weights, if there is one."""
        averaged: nn.Module = self.network if self.averaged is None else self.averaged.module
        return averaged

    def on_train_batch_end(self, _outputs: Any, _batch: Any, _index: int) -> None:
        """Bring the moving average up to date."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def on_train_start(self) -> None:
        """Give every process of a distributed run samples of its own."""
        torch.manual_seed(self.seed + 1000 * self.global_rank + self.current_epoch)

    def configure_optimizers(self) -> Any:
        """The optimiser and, per batch, the learning rate."""
        c = self.config
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        optimiser: torch.optim.Optimizer
        if c.optimiser == "sgd":
            optimiser = torch.optim.SGD(parameters, c.learning_rate, c.momentum, weight_decay=c.weight_decay)
        else:
            kind = torch.optim.AdamW if c.optimiser == "adamw" else torch.optim.Adam
            fused = self.device.type == "cpu"  # without it, AlexNet's 57 million weights take half of a batch's time
            optimiser = kind(parameters, c.learning_rate, weight_decay=c.weight_decay, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self.rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, _optimiser: torch.optim.Optimizer) -> None:
        """Clip here: Lightning refuses to with a fused optimiser, even where no gradient is scaled."""
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM)

    def rate(self, step: int) -> float:
        """Share of the full learning rate at a batch: rising first, then by the schedule."""
        c = self.config
        total = c.epochs * c.steps
        rise = min(1.0, (step + 1) / c.warmup) if c.warmup else 1.0
        if c.schedule == "constant":
            return rise
        if c.schedule == "steps":  # a tenth after a quarter and again after three quarters, as yolov2.cfg
            return rise * 0.1 ** ((step >= total / 4) + (step >= 3 * total / 4))
        return rise * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, step / total))) / 2)


class DetectorModule(StageModule):
    """A detector; its best epoch is the one that finds most on whole validation studies, read as in the clinic."""

    def __init__(
        self, network: nn.Module, config: StageConfig, seed: int, locate: Locate, validation: list[CachedStudy]
    ) -> None:
        super().__init__(network, config, seed)
        self._locate = locate
        self._studies = validation
        self._scored: list[CountedCandidates] = []

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._scored = []

    def validation_step(self, batch: Tensor, _index: int) -> None:
        """Find candidates in one study."""
        study = self._studies[int(batch)]
        candidates = self._locate(self.kept, inputs_of(study), self.device)
        points = study.geometry.to_lps(np.array([c.ijk for c in candidates]).reshape(-1, 3))
        scores = np.array([c.score for c in candidates], np.float64)
        self._scored.append(CountedCandidates.of(points, scores, *study.reference()))

    def on_validation_epoch_end(self) -> None:
        """Log the mean sensitivity over false-positive rates, and two of them."""
        curve = np.nan_to_num(Froc(self._scored).sensitivity_at(RATES))
        self.log(SCORE, float(np.mean(curve)), prog_bar=True, rank_zero_only=True)
        self.log("sensitivity_at_1_fp", float(curve[1]), rank_zero_only=True)
        self.log("sensitivity_at_32_fp", float(curve[-1]), rank_zero_only=True)


class HeatmapModule(DetectorModule):
    """The centre heat map; `channels` of the crops are those of the network and any that only augmentation needs."""

    def __init__(self, parameters: heatmap.Parameters, channels: Sequence[str], *args: Any) -> None:
        super().__init__(*args)
        self.parameters_of_method, self.channels = parameters, channels

    def on_after_batch_transfer(self, batch: Any, _loader: int) -> Any:
        """Vary the crops on the device they train on."""
        if not self.trainer.training:
            return batch
        with torch.autocast(batch["image"].device.type, enabled=False):
            images, points = augment_volumes(
                batch["image"].float(),
                self.channels,
                self.config.augmentation,
                self.parameters_of_method.step_mm[0],
                batch["points"],
            )
        seen = len(self.parameters_of_method.channels)
        return {**batch, "image": images[:, :seen], "points": points}

    def training_step(self, batch: dict[str, Tensor], _index: int) -> Tensor:
        """Loss of a batch of crops."""
        logits = self.network(batch["image"]).float()
        k, j, i = logits.shape[2:]
        step = batch["step_mm"][0] * batch["step_mm"].new_tensor([1, FOLD, FOLD])
        maps = draw_heatmaps(batch["points"], batch["kinds"], (k, j, i), step, SIGMA_MM)
        loss = heatmap_loss(logits, maps, batch["mimics_known"])
        self.log("training_loss", loss, prog_bar=True)
        return loss


class YoloModule(DetectorModule):
    """The 2D detector."""

    def training_step(self, batch: tuple[Tensor, list[Tensor]], _index: int) -> Tensor:
        """Loss of a batch of slices."""
        assert isinstance(self.network, YoloNet)  # noqa: S101
        images, boxes = batch
        loss = yolo_loss(self.network, self.network(images).float(), boxes)
        self.log("training_loss", loss, prog_bar=True, batch_size=len(images))
        return loss


class ClassifierModule(StageModule):
    """A classifier; its best epoch is the one of the highest average precision on the validation candidates.

    Parameters
    ----------
    join : callable
        Patches to the network's input, of the method's module.
    channels : tuple of str
        Of the patches.
    bleed : int
        Class of a microbleed.
    """

    def __init__(
        self,
        network: nn.Module,
        config: StageConfig,
        seed: int,
        join: Callable[[Tensor], Tensor],
        channels: tuple[str, ...],
        bleed: int,
        step_mm: float,
    ) -> None:
        super().__init__(network, config, seed)
        self._join, self._channels, self._bleed, self._step_mm = join, channels, bleed, step_mm
        self._odds: list[Tensor] = []
        self._truth: list[Tensor] = []

    def on_after_batch_transfer(self, batch: Any, _loader: int) -> Any:
        """Vary the patches on the device they train on, and make them the network's input."""
        patches = batch["patch"].float()
        settings, classes = self.config.augmentation, batch["class"]
        with torch.autocast(patches.device.type, enabled=False):
            if not self.trainer.training:
                return {"patch": self._join(patches), "class": classes}
            if settings.kind == "six-fold":
                return {"patch": vary_one_of_six(self._join(patches)), "class": classes}
            varied, _ = augment_volumes(patches, self._channels, settings, self._step_mm)
            return {"patch": self._join(varied), "class": classes}

    def training_step(self, batch: dict[str, Tensor], _index: int) -> Tensor:
        """Loss of a batch of patches."""
        logits = self.network(batch["patch"]).float()
        loss = classifier_loss(logits, batch["class"], self._bleed, self.config.bleed_weight)
        self.log("training_loss", loss, prog_bar=True, batch_size=len(logits))
        return loss

    def validation_step(self, batch: dict[str, Tensor], _index: int) -> None:
        """Log odds of a batch."""
        self._odds.append(bleed_odds(self.kept(batch["patch"]).float(), self._bleed).cpu())
        self._truth.append((batch["class"] == self._bleed).cpu())

    def on_validation_epoch_end(self) -> None:
        """Log the average precision."""
        odds, truth = torch.cat(self._odds), torch.cat(self._truth)
        self._odds, self._truth = [], []
        precision = binary_average_precision(odds.sigmoid(), truth.long()) if truth.any() else torch.tensor(0.0)
        self.log(SCORE, float(precision), prog_bar=True, rank_zero_only=True)
