"""What is the input of the networks? One preprocessing for training and clinical use, done once per study.

Grey values are shares of the brain's median, phase is a unit vector (its cosine and sine), so that it can be
interpolated across a wrap and "no phase" is simply the zero vector. Grids and patches are in millimetres: a network
sees the same physical scale whatever the voxel size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import Acquisition

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Mask = NDArray[np.bool_]
FloatVolume = NDArray[np.float32]
Triple = tuple[float, float, float]

BRIGHTEST = 3.0
"""Grey values are clipped to this, in brain medians."""
MARGIN_MM = 4.0
"""Margin of image around the brain; beyond it everything is 0, whether or not the skull was removed before."""
SAME_STEP = 0.12
"""A voxel size within this relative distance of the grid step is used as it is."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The input of the networks: a study cropped to the brain, in units of its median.

    Parameters
    ----------
    swi : ndarray of float32, shape (slices, rows, columns) of the crop
        In medians of the brain, 0 to 3.
    phase : ndarray of float32 or None
        Radians, paramagnetic blood positive.
    magnitude : ndarray of float32 or None
        In medians of the brain, 0 to 3.
    brain : ndarray of bool
        The brain mask.
    spacing : tuple of float
        Voxel size along ``(i, j, k)``, mm.
    origin : tuple of int
        Voxel ``(i, j, k)`` of the study that the crop starts at.
    """

    swi: FloatVolume
    phase: FloatVolume | None
    magnitude: FloatVolume | None
    brain: Mask
    spacing: Triple
    origin: tuple[int, int, int]
    _grids: dict[tuple[object, ...], InputGrid] = field(default_factory=dict, repr=False)

    @cached_property
    def _channels(self) -> dict[str, FloatVolume]:
        return {}

    def channel(self, name: str) -> FloatVolume:
        """One channel by its name, see :data:`CHANNELS`."""
        if name not in self._channels:
            self._channels[name] = np.asarray(CHANNELS[name](self), np.float32)
        return self._channels[name]

    def stack(self, names: Sequence[str]) -> Tensor:
        """Channels as a tensor ``(channels, k, j, i)``."""
        import torch

        return torch.stack([torch.from_numpy(self.channel(name)) for name in names])

    def grid(self, step_mm: tuple[float | None, float | None, float | None], names: Sequence[str]) -> InputGrid:
        """Channels on a grid with steps ``(i, j, k)``; kept for the next call.

        A step of None, or one close to the voxel's, leaves an axis as it is. Coarser grids average (no aliasing).
        """
        key = (*step_mm, *names)
        if key not in self._grids:
            self._grids[key] = _resample(self.stack(names), self, step_mm)
        return self._grids[key]

    def to_study(self, ijk: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxel coordinates in the study of coordinates ``(…, 3)`` in the crop."""
        return np.asarray(ijk + np.asarray(self.origin, np.float64))

    def to_crop(self, ijk: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxel coordinates in the crop of coordinates in the study."""
        return np.asarray(ijk - np.asarray(self.origin, np.float64))


@dataclass(frozen=True, eq=False)
class InputGrid:
    """Channels ``(channels, k, j, i)`` resampled; `scale` is crop voxels for one of the grid, along (i, j, k)."""

    values: Tensor
    scale: Triple

    def to_crop(self, ijk: NDArray[np.float64]) -> NDArray[np.float64]:
        """Crop coordinates of grid coordinates; voxel centres are at whole numbers in both."""
        scale = np.asarray(self.scale)
        return np.asarray((ijk + 0.5) * scale - 0.5)

    def from_crop(self, ijk: NDArray[np.float64]) -> NDArray[np.float64]:
        """Grid coordinates of crop coordinates."""
        return np.asarray((ijk + 0.5) / np.asarray(self.scale) - 0.5)


_prepared: WeakKeyDictionary[Acquisition, tuple[Mask, Inputs]] = WeakKeyDictionary()


def prepare(acquisition: Acquisition, brain: Mask) -> Inputs:
    """Crop and normalise a study; cached by acquisition and brain."""
    known = _prepared.get(acquisition)
    if known is not None and known[0] is brain:
        return known[1]
    inputs = make_inputs(acquisition, brain)
    _prepared[acquisition] = brain, inputs
    return inputs


def make_inputs(acquisition: Acquisition, brain: Mask) -> Inputs:
    """Crop and normalise a study.

    Raises
    ------
    ValueError
        If the brain is empty.
    """
    if not brain.any():
        raise ValueError("the brain mask is empty")
    spacing = acquisition.swi.geometry.spacing
    box = _box(brain, spacing)
    inside = np.ascontiguousarray(brain[box])
    kept = _rim(inside, spacing)
    phase, magnitude = acquisition.phase, acquisition.magnitude
    return Inputs(
        _relative(acquisition.swi.array, brain, box) * kept,
        None if phase is None else np.asarray(phase.array[box] * kept, np.float32),
        None if magnitude is None else _relative(magnitude.array, brain, box) * kept,
        inside,
        spacing,
        (box[2].start, box[1].start, box[0].start),
    )


def _box(brain: Mask, spacing: Triple) -> tuple[slice, slice, slice]:
    slices = []
    for axis, step in enumerate(spacing[::-1]):
        inside = np.flatnonzero(brain.any(tuple(a for a in range(3) if a != axis)))
        margin = int(np.ceil(MARGIN_MM / step))
        low, high = max(int(inside[0]) - margin, 0), min(int(inside[-1]) + margin + 1, brain.shape[axis])
        slices.append(slice(low, high))
    return slices[0], slices[1], slices[2]


def _rim(brain: Mask, spacing: Triple) -> Mask:
    """The brain with the margin around it in plane, and one slice more on either side."""
    cross = ndimage.generate_binary_structure(2, 1)[None]
    wide = ndimage.binary_dilation(brain, cross, iterations=max(1, int(MARGIN_MM / min(spacing[:2]))))
    return np.asarray(ndimage.maximum_filter1d(wide, 3, axis=0, mode="constant"))


def _relative(array: FloatVolume, brain: Mask, box: tuple[slice, slice, slice]) -> FloatVolume:
    median = float(np.median(array[brain])) or 1.0
    return np.clip(array[box] / np.float32(median), 0, BRIGHTEST).astype(np.float32)


def _cosine(inputs: Inputs) -> FloatVolume:
    return np.zeros_like(inputs.swi) if inputs.phase is None else np.cos(inputs.phase)


def _sine(inputs: Inputs) -> FloatVolume:
    return np.zeros_like(inputs.swi) if inputs.phase is None else np.sin(inputs.phase)


def _magnitude(inputs: Inputs) -> FloatVolume:
    return np.zeros_like(inputs.swi) if inputs.magnitude is None else inputs.magnitude


def _unit(inputs: Inputs) -> FloatVolume:
    """SWI in [0, 1]: 1 from twice the median of the brain on."""
    return np.clip(inputs.swi / 2, 0, 1)


def _adjacent(inputs: Inputs) -> FloatVolume:
    """Mean of each slice and its two neighbours (Al-masni 2020); at the ends a neighbour is the slice itself."""
    return ndimage.uniform_filter1d(inputs.channel("unit"), 3, axis=0, mode="nearest")


def _complement(inputs: Inputs) -> FloatVolume:
    """One minus the phase scaled to [0, 1], so that a microbleed is dark (Al-masni 2020); 0.5 without phase."""
    if inputs.phase is None:
        return np.full_like(inputs.swi, 0.5)
    return np.asarray(0.5 - np.clip(inputs.phase, -np.pi, np.pi) / (2 * np.pi), np.float32)


CHANNELS: dict[str, Callable[[Inputs], NDArray[np.floating]]] = {
    "swi": lambda inputs: inputs.swi,
    "cosine": _cosine,
    "sine": _sine,
    "magnitude": _magnitude,
    "brain": lambda inputs: inputs.brain.astype(np.float32),
    "unit": _unit,
    "adjacent": _adjacent,
    "complement": _complement,
}
"""How each channel is computed, by its name."""
MISSING: dict[str, float] = {"cosine": 0.0, "sine": 0.0, "complement": 0.5, "magnitude": 0.0}
"""The value of a channel whose image is missing."""
PHASE_CHANNELS = ("cosine", "sine", "complement")


def _resample(stack: Tensor, inputs: Inputs, step_mm: tuple[float | None, float | None, float | None]) -> InputGrid:
    from torch.nn import functional as F  # noqa: N812

    sizes, scale = [], []
    for n, voxel, step in zip(stack.shape[:0:-1], inputs.spacing, step_mm, strict=True):
        keep = step is None or abs(voxel / step - 1) <= SAME_STEP
        size = n if keep or step is None else max(1, round(n * voxel / step))
        sizes.append(size)
        scale.append(n / size)
    columns, rows, slices = sizes
    channels, k, j, i = stack.shape
    if (rows, columns) != (j, i):
        stack = F.interpolate(stack, (rows, columns), mode="bilinear", antialias=True, align_corners=False)
    if slices != k:
        lines = stack.reshape(channels, 1, k, rows * columns)
        lines = F.interpolate(lines, (slices, rows * columns), mode="bilinear", antialias=True, align_corners=False)
        stack = lines.reshape(channels, slices, rows, columns)
    return InputGrid(stack.contiguous(), (scale[0], scale[1], scale[2]))


def cut_patches(
    inputs: Inputs,
    centres_ijk: NDArray[np.float64],
    shape: tuple[int, int, int],
    step_mm: Triple,
    names: Sequence[str],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Sample patches of a fixed physical size around points.

    Parameters
    ----------
    inputs : Inputs
        The study.
    centres_ijk : ndarray, shape (n, 3)
        Centres ``(i, j, k)`` in the study, fractional.
    shape : tuple of int
        Voxels of a patch ``(k, j, i)``.
    step_mm : tuple of float
        Between them along ``(i, j, k)``.
    names : sequence of str
        Channels.
    device : torch.device or str
        Where to sample.

    Returns
    -------
    Tensor, shape (n, channels, k, j, i)
        Trilinear; the border is repeated beyond the crop.
    """
    import torch
    from torch.nn import functional as F  # noqa: N812

    volume = inputs.stack(names).to(device)
    centres = torch.from_numpy(inputs.to_crop(np.asarray(centres_ijk, np.float64).reshape(-1, 3))).to(device)
    size = torch.tensor(inputs.swi.shape[::-1], device=device, dtype=torch.float64)
    # Offsets of a patch's voxels from its centre in crop voxels, axes k, j, i; coordinates i, j, k.
    axes = [
        (torch.arange(n, device=device, dtype=torch.float64) - (n - 1) / 2) * step / voxel
        for n, step, voxel in zip(shape[::-1], step_mm, inputs.spacing, strict=True)
    ]
    k, j, i = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    points = centres[:, None, None, None] + torch.stack([i, j, k], -1)
    unit = ((points + 0.5) * 2 / size - 1).to(torch.float32)
    n = len(centres)
    sampled = F.grid_sample(
        volume[None], unit.reshape(1, n * shape[0], shape[1], shape[2], 3), padding_mode="border", align_corners=False
    )
    return sampled[0].reshape(len(names), n, *shape).transpose(0, 1)
