"""Is this candidate a microbleed or a mimic? A residual 3D network that sees it in its surroundings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .heatmap import FOLD, KINDS, Residual, fold

CLASSES = (*KINDS, "nothing")
"""The classes; the first is the microbleed."""


class ContextNet(nn.Module):
    """Four resolutions, the first with 2 × 2 pixels folded into channels, then the mean over space.

    The mean over the whole patch cannot well tell the candidate from what lies beside it. With `middle`, the last layer
    also sees the means over the middle of the second and third resolution.

    Parameters
    ----------
    channels : int
        Of the input.
    width : int
        Channels of the finest resolution.
    dropout : float
        Before the last layer.
    middle : bool
        Let the last layer see the middle of the patch, too.
    """

    def __init__(self, channels: int, width: int = 32, dropout: float = 0.3, *, middle: bool = False) -> None:
        super().__init__()
        self.middle = middle
        sizes = (width, 2 * width, 4 * width, 4 * width)
        steps = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))
        layers: list[nn.Module] = []
        before = channels * FOLD**2
        for after, step in zip(sizes, steps, strict=True):
            layers += [
                nn.Conv3d(before, after, 3, stride=step, padding=1, bias=False),
                nn.BatchNorm3d(after),
                nn.ReLU(inplace=True),
                Residual(after),
            ]
            before = after
        self.features = nn.Sequential(*layers)
        seen = sum(sizes[1:]) if middle else before
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(seen, len(CLASSES))
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of patches ``(n, channels, k, j, i)``, j and i even."""
        x, resolutions = fold(patches), []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, Residual):
                resolutions.append(x)
        seen = [*map(middle_of, resolutions[1:3]), x] if self.middle else [x]
        logits: Tensor = self.head[1:](torch.cat([self.head[0](one) for one in seen], 1))
        return logits


def middle_of(x: Tensor) -> Tensor:
    """The middle of ``(n, channels, k, j, i)``: about a quarter of each axis."""
    for axis in (2, 3, 4):
        size = x.shape[axis]
        kept = max(1, size // 4)
        kept += (size - kept) % 2
        x = x.narrow(axis, (size - kept) // 2, kept)
    return x
