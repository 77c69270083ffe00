"""Where might a microbleed be? At the peaks of the map of a 3D network (:mod:`pipeline.networks.heatmap`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from pipeline.geometry import Acquisition
from pipeline.networks.inputs import InputGrid, Inputs, prepare
from pipeline.networks.weights import Weights
from pipeline.parameters import Parameters as BaseParameters

from . import Candidate

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Mask = NDArray[np.bool_]
LEARNED = True
OVERLAP = 8
"""Slices of context that neighbouring slabs share; the network depends on little beyond them."""


class Parameters(BaseParameters):
    """Settings of the network and of how peaks are read."""

    channels: tuple[Literal["swi", "cosine", "sine", "magnitude", "brain"], ...] = Field(
        ("swi", "cosine", "sine"), min_length=1, description="Channels of the input, see `pipeline.networks.inputs`"
    )
    width: int = Field(16, ge=4, description="Channels of the finest resolution")
    step_mm: tuple[float, float, float] = Field((0.5, 0.5, 2.0), description="Grid along (i, j, k)")
    mirror: bool = Field(True, description="Mean of the image and its mirror image")
    slab: int = Field(40, ge=4, description="Largest number of slices at a time, without context; bounds the memory")
    threshold: float = Field(0.02, ge=0, lt=1, description="Least probability of a peak")
    separation_mm: float = Field(2.0, gt=0, description="Of two peaks closer than this, the higher is kept")
    margin_mm: float = Field(0.0, ge=0, description="How far outside the brain mask a peak may lie")
    max_candidates: int = Field(200, gt=0, description="Largest number of candidates; the strongest are kept")


def build(parameters: Parameters) -> nn.Module:
    """Make the network with fresh weights."""
    from pipeline.networks.heatmap import HeatmapNet

    return HeatmapNet(len(parameters.channels), parameters.width)


def propose(
    acquisition: Acquisition, brain: Mask, parameters: Parameters, *, weights: Weights, device: str = "cpu"
) -> list[Candidate]:
    """Find the peaks of the map of microbleeds.

    Parameters
    ----------
    acquisition : Acquisition
        The study.
    brain : ndarray of bool, shape (slices, rows, columns)
        The brain mask; peaks farther outside it than the margin are left out.
    parameters : Parameters
        The settings.
    weights : Weights
        Of the network.
    device : str
        ``auto``, ``cpu`` or ``cuda``.

    Returns
    -------
    list of Candidate
        Strongest first; the score is the height of the peak, 0 to 1.
    """
    from pipeline.networks.loading import load_network

    loaded = load_network(build, parameters, weights, device)
    if not brain.any():
        return []
    return locate(loaded.network, prepare(acquisition, brain), parameters, loaded.device)


def locate(network: nn.Module, inputs: Inputs, parameters: Parameters, device: torch.device) -> list[Candidate]:
    """Find the peaks of the map of a network for one study."""
    grid = inputs.grid(parameters.step_mm, parameters.channels)
    return peaks(respond(network, grid.values, parameters, device), grid, inputs, parameters)


def respond(network: nn.Module, values: Tensor, parameters: Parameters, device: torch.device) -> Tensor:
    """Probability of the centre of a microbleed on the folded grid, ``(k, j / 2, i / 2)``."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    from pipeline.networks.hardware import mixed_precision
    from pipeline.networks.heatmap import FOLD, MULTIPLE

    slices, rows, columns = values.shape[1:]
    parts = []
    # Slabs of equal height: their overlap is computed twice.
    height = -(-slices // -(-slices // parameters.slab))
    with torch.inference_mode(), mixed_precision(device):
        for start in range(0, slices, height):
            low, high = max(0, start - OVERLAP), min(slices, start + height + OVERLAP)
            slab = values[None, :, low:high].to(device)
            missing = [(-n) % m for n, m in zip(slab.shape[2:], MULTIPLE, strict=True)]
            slab = F.pad(slab, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")
            heat = _one(network, slab)
            if parameters.mirror:
                heat = (heat + _one(network, slab.flip(-1)).flip(-1)) / 2
            heat = heat[: high - low, : -(-rows // FOLD), : -(-columns // FOLD)]
            parts.append(heat[start - low : start - low + height].float().cpu())
    return torch.cat(parts)


def _one(network: nn.Module, slab: Tensor) -> Tensor:
    heat: Tensor = network(slab)[0, 0].float().sigmoid()
    return heat


def peaks(heat: Tensor, grid: InputGrid, inputs: Inputs, parameters: Parameters) -> list[Candidate]:
    """Read the peaks of a map, in the brain, strongest first."""
    from torch.nn import functional as F  # noqa: N812

    from pipeline.networks.heatmap import FOLD

    # Size of a voxel of the map, along k, j, i.
    steps = [grid.scale[a] * inputs.spacing[a] * (1 if a == 2 else FOLD) for a in (2, 1, 0)]
    reach = [max(1, round(parameters.separation_mm / step)) for step in steps]
    highest = F.max_pool3d(heat[None], [2 * r + 1 for r in reach], 1, reach)[0]
    tops = ((heat == highest) & (heat >= parameters.threshold) & (heat > 0)).numpy()
    found = np.argwhere(tops)
    array = heat.numpy()
    found = found[_in_brain(found.astype(np.float64), grid, inputs, parameters.margin_mm)]
    scores = array[tuple(found.T)]
    strongest = np.lexsort((*found.T[::-1], -scores))
    labels, _ = ndimage.label(tops, np.ones((3, 3, 3)))
    _, first = np.unique(labels[tuple(found[strongest].T)], return_index=True)  # a flat top is one peak
    strongest = strongest[np.sort(first)][: parameters.max_candidates]
    refined = np.array([_refine(array, peak) for peak in found[strongest]]).reshape(-1, 3)
    places = inputs.to_study(grid.to_crop(_on_grid(refined)))
    return [Candidate((x, y, z), float(s)) for (x, y, z), s in zip(places.tolist(), scores[strongest], strict=True)]


def _on_grid(folded: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grid coordinates (i, j, k) of voxels (k, j, i) of the map."""
    from pipeline.networks.heatmap import FOLD

    k, j, i = folded.T
    return np.column_stack([FOLD * i + (FOLD - 1) / 2, FOLD * j + (FOLD - 1) / 2, k])


def _in_brain(folded: NDArray[np.float64], grid: InputGrid, inputs: Inputs, margin_mm: float) -> NDArray[np.bool_]:
    """Whether voxels (k, j, i) of the map lie in the brain, or no farther than `margin_mm` outside."""
    voxels = np.rint(grid.to_crop(_on_grid(folded))[:, ::-1]).astype(int)
    last = np.array(inputs.brain.shape) - 1
    steps = np.array(inputs.spacing[::-1])
    ranges = [np.arange(-n, n + 1) for n in np.floor(margin_mm / steps).astype(int)]
    around = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 3)
    around = around[np.linalg.norm(around * steps, axis=1) <= margin_mm]
    inside = np.zeros(len(voxels), bool)
    for offset in around:
        inside |= inputs.brain[tuple(np.clip(voxels + offset, 0, last).T)]
    return inside


def _refine(heat: NDArray[np.float32], peak: NDArray[np.int64]) -> NDArray[np.float64]:
    """Centre of the map within a voxel of the peak, axes (k, j, i)."""
    low = np.maximum(peak - 1, 0)
    box = heat[tuple(slice(a, b + 2) for a, b in zip(low, peak, strict=True))].astype(np.float64)
    axes = np.meshgrid(*(np.arange(n) for n in box.shape), indexing="ij")
    return np.asarray([low[a] + float((axes[a] * box).sum() / box.sum()) for a in range(3)])
