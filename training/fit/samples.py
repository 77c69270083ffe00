"""What does a network see while it learns? Crops, slices and patches, drawn at random from the studies.

Random numbers come from torch's generator, which Lightning seeds for every worker, so a run can be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import Dataset

from pipeline.candidates import yolo
from pipeline.networks.inputs import Inputs, make_inputs
from training.datasets.cache import CachedStudy
from training.datasets.mark_kinds import BLEED, MISTAKE
from training.datasets.record import Mark

from .augmentation import vary_slice
from .config import Augmentation, StageConfig
from .reweighting import NEEDED
from .targets import NO_POINT, box_side_px, boxes_of_slice, kind_of

SMALL_MM = 2.0
"""Microbleeds of a smaller apparent diameter are missed most often; see `small_weight`."""
MOST_POINTS = 24
"""Of one crop."""
BRAIN_SAMPLES = 4000
"""Places in the brain that crops without a mark are drawn from."""


@dataclass(frozen=True, eq=False)
class GridStudy:
    """A study on the grid of a detector: half-precision channels, marks as grid coordinates ``(i, j, k)``."""

    values: Tensor
    marks: tuple[Mark, ...]
    points: NDArray[np.float64]
    brain: NDArray[np.float64]
    step_mm: tuple[float, float, float]
    mimics_known: bool

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        """Of the marks, see :func:`training.fit.targets.kind_of`."""
        return np.array([kind_of(m) for m in self.marks], np.int64)


def inputs_of(study: CachedStudy) -> Inputs:
    """The study as the networks of the clinic see it."""
    return make_inputs(study.acquisition(), study.brain)


def on_grid(
    study: CachedStudy, step_mm: tuple[float | None, float | None, float | None], channels: Sequence[str]
) -> GridStudy:
    """Put a study on a detector's grid, by the clinic's own preprocessing."""
    inputs = inputs_of(study)
    grid = inputs.grid(step_mm, channels)
    inside = np.argwhere(inputs.brain)[:, ::-1].astype(np.float64)
    chosen = inside[np.linspace(0, len(inside) - 1, min(BRAIN_SAMPLES, len(inside))).astype(int)]
    steps = tuple(v * s for v, s in zip(inputs.spacing, grid.scale, strict=True))
    return GridStudy(
        grid.values.half(),
        study.marks,
        grid.from_crop(inputs.to_crop(study.points(study.marks))),
        grid.from_crop(chosen),
        (steps[0], steps[1], steps[2]),
        study.mimics_known,
    )


Place = tuple[int, int]


class SamplePlaces:
    """Draws a study and a place in it: a visible microbleed, a mimic or null insertion, a mistake, or any in the brain.

    A mimic is drawn by its kind first, so that the rare ones are seen as often as the many veins.
    """

    def __init__(self, studies: Sequence[GridStudy], config: StageConfig) -> None:
        self.studies = studies
        self.bleeds: list[Place] = []
        self.mimics: dict[str, list[Place]] = {}
        self.mistakes: list[Place] = []
        for s, study in enumerate(studies):
            for n, mark in enumerate(study.marks):
                if study.kinds[n] == 0:
                    self.bleeds.append((s, n))
                elif mark.kind == MISTAKE:
                    self.mistakes.append((s, n))
                elif mark.kind != BLEED:
                    self.mimics.setdefault(mark.kind, []).append((s, n))
        small = [studies[s].marks[n].size_mm < SMALL_MM for s, n in self.bleeds]
        self._weights = torch.where(torch.tensor(small), config.small_weight, 1.0) if small else torch.ones(0)
        self.shares = config.positive_share, config.mimic_share, config.mistake_share

    def draw(self) -> tuple[int, NDArray[np.float64]]:
        """A study, and grid coordinates ``(i, j, k)``."""
        draw = torch.rand(1).item()
        bleed, mimic, mistake = self.shares
        if draw < bleed and self.bleeds:
            return self._at(self.bleeds[int(torch.multinomial(self._weights, 1).item())])
        if draw < bleed + mimic and self.mimics:
            places = list(self.mimics.values())[_integer(len(self.mimics))]
            return self._at(places[_integer(len(places))])
        if 1 - draw < mistake and self.mistakes:
            return self._at(self.mistakes[_integer(len(self.mistakes))])
        s = _integer(len(self.studies))
        return s, self.studies[s].brain[_integer(len(self.studies[s].brain))]

    def _at(self, place: Place) -> tuple[int, NDArray[np.float64]]:
        s, n = place
        return s, self.studies[s].points[n]


def _integer(n: int) -> int:
    return int(torch.randint(n, (1,)).item())


class CropDataset(Dataset[dict[str, Tensor]]):
    """Crops for the heat-map network, each with the marks in it."""

    def __init__(self, studies: Sequence[GridStudy], config: StageConfig) -> None:
        self.studies, self.crop = studies, config.crop
        self.length = config.steps * config.batch
        self.places = SamplePlaces(studies, config)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, _index: int) -> dict[str, Tensor]:
        s, centre = self.places.draw()
        study = self.studies[s]
        shape = np.array(study.values.shape[1:])
        crop = np.array(self.crop)
        # The place may lie anywhere in the middle two thirds.
        jitter = (torch.rand(3).numpy() - 0.5) * crop * 2 / 3
        low = np.rint(centre[::-1] + jitter - crop / 2).astype(int)
        low = np.clip(low, 0, np.maximum(shape - crop, 0))
        k, j, i = (slice(a, a + n) for a, n in zip(low, crop, strict=True))
        image = study.values[:, k, j, i]
        missing = crop - image.shape[1:]
        pad = (0, int(missing[2]), 0, int(missing[1]), 0, int(missing[0]))
        points, kinds = _within(study, low, crop)
        return {
            "image": F.pad(image.float()[None], pad, mode="replicate")[0].half(),
            "points": points,
            "kinds": kinds,
            "mimics_known": torch.tensor(study.mimics_known),
            "step_mm": torch.tensor(study.step_mm[::-1], dtype=torch.float32),
        }


def _within(study: GridStudy, low: NDArray[np.int64], crop: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Marks in or just beside a crop as ``(k, j, i)`` in it, microbleeds first, and their kinds; of a fixed number."""
    at = study.points[:, ::-1] - low if len(study.marks) else np.empty((0, 3))
    near = np.flatnonzero(((at > -4) & (at < crop + 4)).all(1) & (study.kinds != NO_POINT))
    near = near[np.argsort(study.kinds[near], kind="stable")][:MOST_POINTS]
    points, kinds = np.zeros((MOST_POINTS, 3), np.float32), np.full(MOST_POINTS, NO_POINT)
    points[: len(near)], kinds[: len(near)] = at[near], study.kinds[near]
    return torch.from_numpy(points), torch.from_numpy(kinds)


class SliceDataset(Dataset[tuple[Tensor, Tensor]]):
    """Slices for the 2D detector, each with the boxes of the microbleeds it shows."""

    def __init__(self, studies: Sequence[GridStudy], config: StageConfig) -> None:
        self.studies, self.crop, self.settings = studies, config.crop[1:], config.augmentation
        self.length = config.steps * config.batch
        self.places = SamplePlaces(studies, config)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, _index: int) -> tuple[Tensor, Tensor]:
        s, centre = self.places.draw()
        study = self.studies[s]
        k = int(np.clip(round(centre[2]), 0, study.values.shape[1] - 1))
        image = study.values[:, k].float()
        bleeds = [n for n in range(len(study.marks)) if study.kinds[n] == 0]
        boxes = torch.from_numpy(
            boxes_of_slice(
                study.points[bleeds], [study.marks[n] for n in bleeds], k, study.step_mm[2], study.step_mm[0]
            )
        )
        image, boxes = self._place(image, boxes, centre)
        return vary_slice(image, boxes, self.settings, self.settings.no_phase)

    def _place(self, image: Tensor, boxes: Tensor, centre: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Cut or fill a slice to the size of the batch, with the place it was chosen for in it."""
        for axis, want, at in ((1, self.crop[0], centre[1]), (2, self.crop[1], centre[0])):
            spare = image.shape[axis] - want
            low = int(np.clip(round(at - want * (0.25 + 0.5 * torch.rand(1).item())), 0, max(spare, 0)))
            image = image.narrow(axis, low, min(want, image.shape[axis]))
            boxes = boxes - boxes.new_tensor([0, low, 0, low] if axis == 1 else [low, 0, low, 0])
        missing = [w - n for w, n in zip(self.crop, image.shape[1:], strict=True)]
        image = F.pad(image[None], (0, missing[1], 0, missing[0]), mode="replicate")[0]
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((middle >= 0) & (middle < middle.new_tensor([self.crop[1], self.crop[0]]))).all(1)
        return image.clone(), boxes[inside]


def collate_slices(batch: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    """Images as one tensor, boxes as a list."""
    return torch.stack([image for image, _ in batch]), [boxes for _, boxes in batch]


def box_sides(studies: Sequence[GridStudy]) -> NDArray[np.float64]:
    """Edges of the boxes of all microbleeds, pixels."""
    return np.array(
        [box_side_px(m, s.step_mm[0]) for s in studies for m, k in zip(s.marks, s.kinds, strict=True) if k == 0]
    )


class PatchDataset(Dataset[dict[str, Any]]):
    """Patches around candidates, with their classes."""

    def __init__(self, patches: Tensor, classes: Tensor) -> None:
        self.patches, self.classes = patches, classes

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"patch": self.patches[index], "class": self.classes[index]}


def training_channels(channels: Sequence[str], settings: Augmentation) -> tuple[str, ...]:
    """Channels of the crops: those of the network, then what another scanner's SWI is made of."""
    extra = [name for name in NEEDED if name not in channels] if settings.reweight else []
    return (*channels, *extra)


def slice_grids(studies: Sequence[CachedStudy], parameters: yolo.Parameters) -> list[GridStudy]:
    """Studies on the grid of the 2D detector."""
    return [on_grid(s, (parameters.step_mm, parameters.step_mm, None), yolo.CHANNELS) for s in studies]
