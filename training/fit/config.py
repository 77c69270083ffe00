"""What can be set of a training? A TOML file; two for each profile come with the package, for a processor and a GPU."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from pipeline.errors import InputError
from pipeline.parameters import Parameters

FOLDER = Path(__file__).parents[1] / "configs"


class Augmentation(Parameters):
    """How samples are varied; lengths of ranges are drawn uniformly."""

    kind: Literal["none", "random", "six-fold"] = Field(
        "random", description="six-fold: one of the six of Afzal et al. (2021): two flips, ±30°, blur"
    )
    rotate_deg: float = Field(15.0, ge=0, le=180, description="In-plane rotation, either way")
    scale: float = Field(0.15, ge=0, lt=1, description="In-plane zoom, either way")
    shift_mm: float = Field(1.0, ge=0, description="Of the candidate in its patch, either way")
    contrast: float = Field(0.2, ge=0, lt=1, description="Grey values to a power of 1 ± this")
    brightness: float = Field(0.1, ge=0, lt=1, description="Grey values times 1 ± this")
    noise: float = Field(0.04, ge=0, description="Largest standard deviation, in brain medians")
    phase_scale: float = Field(0.3, ge=0, lt=1, description="Phase times 1 ± this: field strength and echo time differ")
    reweight: float = Field(0.0, ge=0, le=1, description="Share of samples whose SWI is made again")
    soften: float = Field(
        0.0, ge=0, le=1, description="Share of samples blurred, as by larger voxels or thicker slices"
    )
    no_phase: float = Field(0.25, ge=0, le=1, description="Share of samples that lose their phase")
    no_magnitude: float = Field(0.4, ge=0, le=1, description="Share of samples that lose their magnitude")


class StageConfig(Parameters):
    """How one network is trained."""

    epochs: int = Field(gt=0)
    steps: int = Field(gt=0, description="Batches an epoch")
    batch: int = Field(gt=0)
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd")
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    warmup: int = Field(100, ge=0, description="Batches in which the learning rate rises")
    validate_every: int = Field(1, gt=0, description="Epochs between validations")
    validation_studies: int = Field(0, ge=0, description="At most this many; 0 uses all")
    positive_share: float = Field(0.5, gt=0, lt=1, description="Share of samples with a microbleed in them")
    mimic_share: float = Field(0.2, ge=0, lt=1, description="Share of samples with a mimic or a null insertion")
    mistake_share: float = Field(
        0.0, ge=0, lt=1, description="Share of samples where the detector that it starts from is wrong (fit --start)"
    )
    small_weight: float = Field(2.0, gt=0, description="How much more often a microbleed below 2 mm is drawn")
    balance: float = Field(0.0, ge=0, le=1, description="Share of the classifier's other samples drawn evenly by kind")
    average: float = Field(0.0, ge=0, lt=1, description="Decay of the moving average of the weights; 0 keeps none")
    bleed_weight: float = Field(1.0, gt=0, description="Weight of a microbleed in the classifier's loss")
    crop: tuple[int, int, int] = Field((16, 96, 96), description="Voxels (k, j, i) of a detector's sample")
    freeze: bool = Field(False, description="Train the replaced last layers only (transfer)")
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _shares(self) -> StageConfig:
        if self.positive_share + self.mimic_share + self.mistake_share > 1:
            raise ValueError("positive_share, mimic_share and mistake_share are more than 1 together")
        return self


class MiningConfig(Parameters):
    """How the second stage's samples are found with the first."""

    candidates: int = Field(200, gt=0, description="Kept from each study, the strongest first")
    match_mm: float = Field(3.0, gt=0, description="A candidate this near to a microbleed is one")
    ignore_mm: float = Field(6.0, gt=0, description="Candidates between the two distances are left out")
    add_bleeds: bool = Field(True, description="Also the marked microbleeds that no candidate found")


class FitConfig(Parameters):
    """One training of all learned stages of a profile."""

    seed: int = Field(1, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(1, gt=0, description="GPUs; more than one train with DDP")
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = Field(
        "auto",
        description="auto: bf16-mixed where the GPU, or the processor with AVX-512, computes it fast, else 32-true",
    )
    workers: int = Field(0, ge=0, description="Processes that prepare samples")
    pretrained: Literal["none", "imagenet"] = Field("none", description="Start of a transfer network")
    validation_share: float = Field(0.2, gt=0, lt=1, description="Of the heads, where the data set has no split")
    false_positives: float = Field(0.5, gt=0, description="A validation study, at the threshold `possible`")
    detector: StageConfig | None = None
    mining: MiningConfig = MiningConfig()
    classifier: StageConfig | None = None


def default_config(profile: str) -> str:
    """Name of the configuration that trains a profile of the package on this machine."""
    import torch

    return f"{profile}-{'gpu' if torch.cuda.is_available() else 'cpu'}"


def load_config(name_or_path: str) -> FitConfig:
    """Read a configuration: a file, or one of the package by its name, such as ``heatmap-gpu``.

    Raises
    ------
    InputError
        When there is none, or it is not complete and correct.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = FOLDER / f"{name_or_path}.toml"
    try:
        return FitConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise InputError("no such configuration", where=name_or_path, do=f"use {known}, or a file") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"is not TOML: {error}", where=str(path)) from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(problems, where=str(path)) from error
