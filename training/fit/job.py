"""What does one training need to know? The recipe, the configuration, the studies, and where things go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from torch import nn
from torch.utils.data import DataLoader

from pipeline.errors import InputError
from pipeline.networks.loading import choose_device
from pipeline.profile import Profile
from training.fit.config import FitConfig, StageConfig
from training.fit.split import Split
from training.fit.trainer import Say
from training.fit.weights import start_from


@dataclass(frozen=True)
class Job:
    """One training.

    Parameters
    ----------
    profile : Profile
        The recipe, without weights.
    config : FitConfig
        How to train.
    split : Split
        The studies.
    out : Path
        Folder of the run: checkpoints, logs, weights, ``fitted.json``.
    pretrained : Path, optional
        Weights that the classifier starts from, where they fit.
    minutes : float
        Most for each stage, after which the run stops and can go on; 0 for as long as it takes.
    say : callable
        Told what happens.
    """

    profile: Profile
    config: FitConfig
    split: Split
    out: Path
    pretrained: Path | None = None
    minutes: float = 0
    say: Say = print

    @property
    def device(self) -> str:
        """Where networks run outside the trainer."""
        return str(choose_device(self.config.device))

    def seed(self) -> None:
        """Seed every generator, so that a stage gives the same whatever ran before it."""
        lightning.seed_everything(self.config.seed, workers=True, verbose=False)

    def loader(self, dataset: Any, batch: int, **options: Any) -> DataLoader[Any]:
        """Batches of a data set, prepared by the configured number of processes."""
        workers = self.config.workers
        return DataLoader(dataset, batch, num_workers=workers, persistent_workers=workers > 0, **options)

    def take_over(self, network: nn.Module) -> None:
        """Start a network from the pretrained file, where there is one."""
        if self.pretrained is not None:
            fresh = start_from(network, self.pretrained)
            self.say(f"started from {self.pretrained.name}; fresh: {', '.join(fresh) or 'nothing'}")


def required(stage: StageConfig | None, name: str) -> StageConfig:
    """A stage's part of the configuration.

    Raises
    ------
    InputError
        When there is none.
    """
    if stage is None:
        raise InputError(f"the configuration has no [{name}]")
    return stage
