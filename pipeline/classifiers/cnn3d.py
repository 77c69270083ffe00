"""Which candidates are real? The 3D CNN of Al-masni et al. (2020) on patches of SWI and complemented phase.

The published code takes one channel of 16 × 32 × 16 voxels and does not say what they are. Here they are a cube of
16 voxels of the SWI and, beside it, the same cube of the phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
CHANNELS = ("unit", "complement")
BLEED = 1
CUBE = (16, 16, 16)


class Parameters(BaseParameters):
    """Settings of the patches."""

    step_mm: tuple[float, float, float] = Field((0.5, 0.5, 2.0), description="Between voxels along (i, j, k)")
    dropout: float = Field(0.3, ge=0, lt=1, description="Before the last layers, in training")
    mirror: bool = Field(False, description="Mean of the patch and its mirror image")


def build(parameters: Parameters) -> nn.Module:
    """Make the network with fresh weights."""
    from pipeline.networks.cnn3d import Cnn3dNet

    return Cnn3dNet(parameters.dropout)


def channels(_parameters: Parameters) -> tuple[str, ...]:
    """Names of the channels of a patch."""
    return CHANNELS


def step(parameters: Parameters) -> float:
    """Between the voxels of a patch in plane, mm."""
    return parameters.step_mm[0]


def cut(
    inputs: Inputs, centres: NDArray[np.float64], parameters: Parameters, device: torch.device | str = "cpu"
) -> Tensor:
    """Patches ``(n, 2, 16, 16, 16)``: SWI and phase as two channels; :func:`join` puts them side by side."""
    return cut_patches(inputs, centres, CUBE, parameters.step_mm, CHANNELS, device)


def join(patches: Tensor) -> Tensor:
    """The network's input ``(n, 1, 16, 32, 16)``."""
    import torch

    return torch.cat([patches[:, :1], patches[:, 1:]], 3)


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
        build, joined, acquisition, brain, candidates, parameters, weights, device,
        bleed=BLEED, mirror=parameters.mirror,
    )  # fmt: skip
