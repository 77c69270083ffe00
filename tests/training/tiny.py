"""Heads of 64 voxels with bleeds and calcifications, small enough to train on in seconds."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Acquisition, Geometry, Volume
from pipeline.profile import Profile, load_profile
from training.datasets.cache import CachedStudy, cache_study
from training.datasets.record import LabelledStudy, Mark, Record
from training.fit.config import FitConfig, MiningConfig, StageConfig

SHAPE = (16, 64, 64)
SPACING = (1.0, 1.0, 2.0)
KINDS = ("bleed", "bleed", "bleed", "calcification", "calcification")


def labelled(seed: int, *, phase: bool = True) -> tuple[LabelledStudy, NDArray[np.bool_]]:
    """Images and marks, and the brain."""
    rng = np.random.default_rng(seed)
    k, j, i = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    brain = ((k - 7.5) / 7) ** 2 + ((j - 31.5) / 28) ** 2 + ((i - 31.5) / 26) ** 2 < 1
    image, angle = np.where(brain, 1.0, 0.3), np.zeros(SHAPE)
    geometry = Geometry(SHAPE, np.array([[1, 0, 0, -30], [0, 1, 0, -20], [0, 0, 2, 5], [0, 0, 0, 1.0]]))
    marks = []
    for kind in KINDS:
        at = np.array([rng.uniform(20, 44), rng.uniform(20, 44), rng.uniform(4, 11)])
        far = np.sqrt(((k - at[2]) * 2) ** 2 + (j - at[1]) ** 2 + (i - at[0]) ** 2)
        dark = np.clip(2.7 - far, 0, 1)
        image *= 1 - 0.8 * dark
        angle += dark * (1.0 if kind == "bleed" else -1.0)
        x, y, z = geometry.to_lps(at).tolist()
        marks.append(Mark((x, y, z), kind, 4.0))
    image = 300 * np.clip(image + rng.normal(0, 0.03, SHAPE), 0, None)
    swi = Volume(image.astype(np.float32), geometry, ())
    phases = Volume(angle.astype(np.float32), geometry, ()) if phase else None
    return LabelledStudy(Acquisition(swi, phases), tuple(marks)), brain


@cache
def study(seed: int, split: str | None = "train") -> CachedStudy:
    """One of these heads as it lies in a cache."""
    images, brain = labelled(seed)
    record = Record(f"s{seed}", f"p{seed}", f"a{seed}", split, True, lambda: images)
    return cache_study(record, images, brain)


def studies() -> list[CachedStudy]:
    """Three heads to train on, two to validate with."""
    return [*(study(n) for n in range(3)), *(study(n, "validation") for n in (10, 11))]


SMALL: dict[str, dict[str, dict[str, Any]]] = {
    "heatmap": {
        "candidates": {"width": 4, "step_mm": [1.0, 1.0, 2.0], "threshold": 0.001, "slab": 8, "max_candidates": 20},
        "classifier": {"width": 4, "shape": [6, 12, 12], "step_mm": [1.0, 1.0, 2.0]},
    },
    "al-masni-2020": {"candidates": {"width": 0.02, "step_mm": 1.0, "threshold": 0.001, "max_candidates": 20}},
    "afzal-2021-alexnet": {"classifier": {"samples": 16}},
}


def recipe(name: str) -> Profile:
    """A profile of the product with networks of a few thousand weights."""
    document = load_profile(name).model_dump()
    for stage, parameters in SMALL[name].items():
        document[stage]["parameters"].update(parameters)
        document[stage]["weights"] = None
    return Profile.model_validate(document)


def config(**changes: Any) -> FitConfig:
    """Two epochs of a few batches."""
    stage = StageConfig(epochs=2, steps=3, batch=4, learning_rate=2e-3, warmup=0, crop=(8, 64, 64))
    document = {
        "device": "cpu",
        "precision": "32-true",
        "detector": stage,
        "classifier": stage,
        "mining": MiningConfig(candidates=20),
    }
    return FitConfig.model_validate({**document, **changes})
