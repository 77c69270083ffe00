"""Which candidates are real? A residual 3D network that sees SWI, phase and magnitude in 16 mm around each.

Magnitude and phase may be missing; the brain mask is a channel, so that the network knows the surface of the brain.
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
BLEED = 0


class Parameters(BaseParameters):
    """Settings of the network and its patches."""

    channels: tuple[Literal["swi", "cosine", "sine", "magnitude", "brain"], ...] = Field(
        ("swi", "cosine", "sine", "magnitude", "brain"), min_length=1, description="See `pipeline.networks.inputs`"
    )
    shape: tuple[int, int, int] = Field((12, 32, 32), description="Voxels of a patch (k, j, i)")
    step_mm: tuple[float, float, float] = Field((0.5, 0.5, 1.5), description="Between them along (i, j, k)")
    width: int = Field(32, ge=4, description="Channels of the finest resolution")
    dropout: float = Field(0.3, ge=0, lt=1, description="Before the last layer, in training")
    middle: bool = Field(False, description="Let the last layer see the means over the middle of the patch, too")
    mirror: bool = Field(True, description="Mean of the patch and its mirror image")


def build(parameters: Parameters) -> nn.Module:
    """Make the network with fresh weights."""
    from pipeline.networks.context import ContextNet

    return ContextNet(len(parameters.channels), parameters.width, parameters.dropout, middle=parameters.middle)


def channels(parameters: Parameters) -> tuple[str, ...]:
    """Names of the channels of a patch."""
    return parameters.channels


def step(parameters: Parameters) -> float:
    """Between the voxels of a patch in plane, mm."""
    return parameters.step_mm[0]


def cut(
    inputs: Inputs, centres: NDArray[np.float64], parameters: Parameters, device: torch.device | str = "cpu"
) -> Tensor:
    """Patches ``(n, channels, k, j, i)``."""
    return cut_patches(inputs, centres, parameters.shape, parameters.step_mm, parameters.channels, device)


def join(patches: Tensor) -> Tensor:
    """The network's input: the patches as they are."""
    return patches


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

    return score_with(
        build, cut, acquisition, brain, candidates, parameters, weights, device,
        bleed=BLEED, mirror=parameters.mirror,
    )  # fmt: skip
