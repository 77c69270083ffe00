"""Which candidates are real? AlexNet or ResNet-50 on 224 × 224 × 3 patches, as Afzal et al. (2021) classify them.

The paper does not say what the three channels hold; here they are the slice of the candidate and its two neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.candidates import Candidate
from pipeline.geometry import Acquisition
from pipeline.networks.inputs import Inputs, cut_patches
from pipeline.networks.weights import Weights
from pipeline.parameters import Parameters as BaseParameters

from . import Scores

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Mask = NDArray[np.bool_]
LEARNED = True
BLEED = 1
CHANNELS = ("unit",)
SLICES = 3


class Parameters(BaseParameters):
    """Settings of the network and its patches."""

    backbone: Literal["alexnet", "resnet50"] = Field("alexnet", description="Which network")
    side_mm: float = Field(24.0, gt=0, description="Edge of a patch in plane")
    samples: int = Field(48, ge=8, description="Voxels along it that are read, before it is enlarged to 224")
    slice_mm: float = Field(2.0, gt=0, description="Between the three slices")


def build(parameters: Parameters) -> nn.Module:
    """Make the network with fresh weights."""
    from pipeline.networks.transfer import make_transfer

    return make_transfer(parameters.backbone)


def channels(_parameters: Parameters) -> tuple[str, ...]:
    """Names of the channels of a patch."""
    return CHANNELS


def step(parameters: Parameters) -> float:
    """Between the voxels of a patch in plane, mm."""
    return parameters.side_mm / parameters.samples


def cut(
    inputs: Inputs, centres: NDArray[np.float64], parameters: Parameters, device: torch.device | str = "cpu"
) -> Tensor:
    """Patches ``(n, 1, 3, samples, samples)`` of the SWI in [0, 1]; :func:`join` makes them the network's input."""
    step = parameters.side_mm / parameters.samples
    shape = (SLICES, parameters.samples, parameters.samples)
    return cut_patches(inputs, centres, shape, (step, step, parameters.slice_mm), CHANNELS, device)


def join(patches: Tensor) -> Tensor:
    """The network's input ``(n, 3, 224, 224)``, normalised as ImageNet was."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    from pipeline.networks.transfer import DEVIATION, MEAN, SIZE

    images = F.interpolate(patches[:, 0], (SIZE, SIZE), mode="bilinear", align_corners=False)
    mean, deviation = (torch.tensor(v, device=images.device)[:, None, None] for v in (MEAN, DEVIATION))
    return (images - mean) / deviation


def score(
    acquisition: Acquisition,
    brain: Mask,
    candidates: Sequence[Candidate],
    parameters: Parameters,
    *,
    weights: Weights,
    device: str = "cpu",
) -> Scores:
    """Score each candidate."""
    from .probability import score_with

    def joined(inputs: Inputs, centres: NDArray[np.float64], p: Parameters, where: torch.device) -> Tensor:
        return join(cut(inputs, centres, p, where))

    return score_with(
        build, joined, acquisition, brain, candidates, parameters, weights, device, bleed=BLEED, mirror=False
    )
