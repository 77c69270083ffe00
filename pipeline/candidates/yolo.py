"""Where might a microbleed be? Boxes of a 2D detector in each slice, combined across slices (Al-masni 2020).

The input has two channels: the SWI averaged over each slice and its two neighbours, and the complemented phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.geometry import Acquisition
from pipeline.networks.inputs import Inputs, prepare
from pipeline.networks.weights import Weights
from pipeline.parameters import Parameters as BaseParameters

from . import Candidate

if TYPE_CHECKING:
    import torch
    from torch import nn

Mask = NDArray[np.bool_]
LEARNED = True
CHANNELS = ("adjacent", "complement")


class Parameters(BaseParameters):
    """Settings of the network and of how boxes become candidates."""

    width: float = Field(0.25, gt=0, le=1, description="Scale of the channels; 1 is the published network")
    stride: int = Field(16, description="Pixels per cell: 32 as published, or 16")
    step_mm: float = Field(0.5, gt=0, description="Pixel in plane; slices stay as they are")
    batch: int = Field(8, gt=0, description="Slices at a time")
    threshold: float = Field(0.05, ge=0, lt=1, description="Least confidence of a box")
    overlap: float = Field(
        0.3, gt=0, lt=1, description="Of two boxes that overlap more than this, the more confident is kept (NMS)"
    )
    merge_mm: float = Field(4.0, gt=0, description="Boxes closer than this, in any slice, are one candidate")
    max_candidates: int = Field(400, gt=0, description="Largest number of candidates; the most confident are kept")


class Box(NamedTuple):
    """A box of one slice: centre and slice in the study's voxels, and confidence."""

    i: float
    j: float
    k: float
    confidence: float


def build(parameters: Parameters) -> nn.Module:
    """Make the network with fresh weights."""
    from pipeline.networks.yolo import YoloNet

    return YoloNet(len(CHANNELS), parameters.width, parameters.stride)


def propose(
    acquisition: Acquisition, brain: Mask, parameters: Parameters, *, weights: Weights, device: str = "cpu"
) -> list[Candidate]:
    """Find boxes slice by slice, and the candidates they make; see :func:`pipeline.candidates.heatmap.propose`.

    Returns
    -------
    list of Candidate
        Surest first; the score is the highest confidence of its boxes, 0 to 1.
    """
    from pipeline.networks.loading import load_network

    loaded = load_network(build, parameters, weights, device)
    if not brain.any():
        return []
    return locate(loaded.network, prepare(acquisition, brain), parameters, loaded.device)


def locate(network: nn.Module, inputs: Inputs, parameters: Parameters, device: torch.device) -> list[Candidate]:
    """Find the candidates of one study."""
    boxes = find_boxes(network, inputs, parameters, device)
    return merge(boxes, inputs.spacing, parameters)


def find_boxes(network: nn.Module, inputs: Inputs, parameters: Parameters, device: torch.device) -> list[Box]:
    """Boxes in the brain, after non-maximum suppression in each slice."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    from pipeline.networks.yolo import YoloNet

    assert isinstance(network, YoloNet)  # noqa: S101
    grid = inputs.grid((parameters.step_mm, parameters.step_mm, None), CHANNELS)
    slices = torch.from_numpy(np.flatnonzero(inputs.brain.any((1, 2))))
    found = []
    with torch.inference_mode():
        for some in slices.split(parameters.batch):
            images = grid.values[:, some].transpose(0, 1).to(device)
            rows, columns = (-n % 32 for n in images.shape[2:])
            decoded = network.decode(network(F.pad(images, (0, columns, 0, rows))).float())
            image, anchor, row, column = torch.nonzero(decoded.confidence >= parameters.threshold, as_tuple=True)
            boxes = decoded.boxes[image, anchor, row, column].float().cpu()
            confidence = decoded.confidence[image, anchor, row, column].float().cpu()
            image = image.cpu()
            kept = suppress(boxes, confidence, image, parameters.overlap)
            middle = (boxes[kept, :2] + boxes[kept, 2:]) / 2 - 0.5  # pixel centres at whole numbers
            found.append(torch.cat([middle, some[image[kept], None], confidence[kept, None]], 1))
    rows_found = torch.cat(found).double().numpy() if found else np.empty((0, 4))
    at = grid.to_crop(rows_found[:, :3])
    at[:, 2] = rows_found[:, 2]
    voxels = np.rint(at[:, ::-1]).astype(int)
    within = np.clip(voxels, 0, np.array(inputs.brain.shape) - 1)
    inside = (within == voxels).all(1) & inputs.brain[tuple(within.T)]
    placed = np.column_stack([inputs.to_study(at[inside]), rows_found[inside, 3]])
    return [Box(i, j, k, c) for i, j, k, c in placed.tolist()]


def suppress(boxes: torch.Tensor, confidence: torch.Tensor, image: torch.Tensor, overlap: float) -> torch.Tensor:
    """Non-maximum suppression: of boxes of the same image that overlap more than allowed, keep the surest.

    Parameters
    ----------
    boxes : Tensor
        Corners ``(n, 4)``: x and y of one, x and y of the opposite one.
    confidence, image : Tensor
        Of each box ``(n,)``.
    overlap : float
        Area of the intersection over that of the union.

    Returns
    -------
    Tensor
        Indices of the boxes that are kept, surest first.
    """
    import torch

    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left = confidence.argsort(descending=True, stable=True)
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        sides = torch.minimum(boxes[left, 2:], boxes[best, 2:]) - torch.maximum(boxes[left, :2], boxes[best, :2])
        common = sides.clamp(min=0).prod(1)
        apart = common / (area[left] + area[best] - common) <= overlap
        left = left[apart | (image[left] != image[best])]
    return torch.stack(kept) if kept else left


def merge(boxes: list[Box], spacing: tuple[float, float, float], parameters: Parameters) -> list[Candidate]:
    """Put boxes together: the surest takes in all that are near, and so on with what is left."""
    if not boxes:
        return []
    table = np.array(sorted(boxes, key=lambda b: (-b.confidence, b)))
    at = table[:, :3] * spacing
    # A neighbouring slice is always near, whatever its thickness.
    scaled = at * (1, 1, min(1.0, 0.75 * parameters.merge_mm / spacing[2]))
    free = np.ones(len(table), bool)
    candidates = []
    for n in range(len(table)):
        if not free[n]:
            continue
        near = free & (np.linalg.norm(scaled - scaled[n], axis=1) <= parameters.merge_mm)
        free &= ~near
        i, j, k = np.average(table[near, :3], axis=0, weights=table[near, 3]).tolist()
        candidates.append(Candidate((i, j, k), float(table[n, 3])))
        if len(candidates) == parameters.max_candidates:
            break
    return candidates
