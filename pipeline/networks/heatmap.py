"""Where are the centres? A small 3D U-Net that maps the centres of microbleeds and of each kind of mimic.

Centres as the peaks of a heat map follow CenterNet (Zhou et al. 2019, arXiv:1904.07850). Mapping the mimics too
makes the network distinguish them from microbleeds. The grid is anisotropic (0.5 × 0.5 × 2 mm):
the input folds 2 × 2 pixels into channels, which loses nothing and makes a complete brain affordable on a CPU; the next
step halves only the plane, after which voxels are about cubic.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

FOLD = 2
"""Grid voxels along i and j for one voxel of the map."""
MULTIPLE = (4, 16, 16)
"""The network takes sizes ``(k, j, i)`` that are multiples of these."""
KINDS = ("bleed", "calcification", "vein", "other")
"""One map for each."""


class HeatmapNet(nn.Module):
    """Residual U-Net of four resolutions.

    Parameters
    ----------
    channels : int
        Of the input.
    width : int
        Channels of the finest resolution; twice, four and five times as many follow.
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        sizes = (width, 2 * width, 4 * width, 5 * width)
        self.stem = _convolution(channels * FOLD**2, width)
        self.blocks = nn.ModuleList(Residual(n) for n in sizes)
        steps = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
        self.downs = nn.ModuleList(
            _convolution(a, b, stride=step) for a, b, step in zip(sizes[:-1], sizes[1:], steps, strict=True)
        )
        self.joins = nn.ModuleList(_join(a, b) for a, b in pairwise(sizes))
        self.head = nn.Conv3d(width, len(KINDS), 1)
        # Every voxel starts at a probability of 1 %, or the many empty voxels dominate the loss (Lin 2017).
        nn.init.constant_(_bias(self.head), -math.log(99))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(n, kinds, k, j / 2, i / 2)`` of images ``(n, channels, k, j, i)``."""
        folded = fold(images)
        x = self.blocks[0](self.stem(folded))
        passed = []
        for down, block in zip(self.downs, self.blocks[1:], strict=True):
            passed.append(x)
            x = block(down(x))
        for join, fine in zip(reversed(self.joins), reversed(passed), strict=True):
            x = join(torch.cat([fine, F.interpolate(x, fine.shape[2:], mode="nearest")], 1))
        with torch.autocast(x.device.type, enabled=False):  # neighbours must not become equal
            logits: Tensor = self.head(x.float())
        return logits


class Residual(nn.Module):
    """Two convolutions added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv3d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm3d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        added: Tensor = self.second(self.first(x))
        return F.relu(x + added)


def fold(images: Tensor) -> Tensor:
    """Fold 2 × 2 pixels of every slice into channels."""
    n, c, k, j, i = images.shape
    folded = images.reshape(n, c, k, j // FOLD, FOLD, i // FOLD, FOLD).permute(0, 1, 4, 6, 2, 3, 5)
    return folded.reshape(n, c * FOLD**2, k, j // FOLD, i // FOLD)


def _convolution(before: int, after: int, stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Sequential:
    convolution = nn.Conv3d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(after), nn.ReLU(inplace=True))


def _join(fine: int, coarse: int) -> nn.Sequential:
    """Combine two resolutions by 1 × 1 × 1 convolutions, then convolve: a third of the work of convolving both."""
    mix = nn.Conv3d(fine + coarse, fine, 1, bias=False)
    return nn.Sequential(mix, nn.BatchNorm3d(fine), nn.ReLU(inplace=True), *_convolution(fine, fine))


def _bias(layer: nn.Conv3d) -> Tensor:
    assert layer.bias is not None  # noqa: S101
    return layer.bias
