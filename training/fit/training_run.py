"""What does one training need to know? The recipe, the configuration, the studies, and where things go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
from torch import nn
from torch.utils.data import DataLoader

from pipeline.errors import InputError
from pipeline.networks.loading import choose_device
from pipeline.networks.weights import Weights, load_weights
from pipeline.profile import Profile

from .config import FitConfig, StageConfig
from .holdout import Holdout
from .trainer import Say
from .weights import start_from, take_over

Stage = Literal["candidates", "classifier"]


@dataclass(frozen=True)
class TrainingRun:
    """One training.

    Parameters
    ----------
    profile : Profile
        The recipe, without weights.
    config : FitConfig
        How to train.
    split : Holdout
        The studies.
    out : Path
        Folder of the run: checkpoints, logs, weights, ``fitted.json``.
    pretrained : Path, optional
        Weights that the classifier starts from, where they fit.
    start : Profile, optional
        A trained profile of the same methods whose networks every stage starts from.
    minutes : float
        Most for each stage, after which the run stops and can go on; 0 for as long as it takes.
    say : callable
        Told what happens.
    """

    profile: Profile
    config: FitConfig
    split: Holdout
    out: Path
    pretrained: Path | None = None
    start: Profile | None = None
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

    def begin(self, network: nn.Module, stage: Stage) -> None:
        """Let a network start where the job says: from the pretrained file (a classifier) or a trained profile."""
        if stage == "classifier" and self.pretrained is not None:
            where, fresh = self.pretrained.name, start_from(network, self.pretrained)
        elif self.start is not None:
            weights = self._start_weights(self.start, stage)
            where, fresh = weights.name, take_over(network, load_weights(weights), weights.name)
        else:
            return
        self.say(f"started from {where}; fresh: {', '.join(fresh) or 'nothing'}")

    def _start_weights(self, start: Profile, stage: Stage) -> Weights:
        given, wanted = getattr(start, stage), getattr(self.profile, stage)
        if given is None or wanted is None or given.method != wanted.method or given.weights is None:
            raise InputError(
                f"profile {start.name} has no weights for the {stage} of {self.profile.name}",
                do="start from a trained profile of the same methods",
            )
        weights: Weights = given.weights
        return weights


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
