"""Is this candidate a microbleed or a mimic? A residual 3D network that sees it in its surroundings."""

from __future__ import annotations

from torch import Tensor, nn

from .heatmap import FOLD, KINDS, Residual, fold

CLASSES = (*KINDS, "nothing")
"""The classes; the first is the microbleed."""


class ContextNet(nn.Module):
    """Four resolutions, the first with 2 × 2 pixels folded into channels, then the mean over space.

    Parameters
    ----------
    channels : int
        Of the input.
    width : int
        Channels of the finest resolution.
    dropout : float
        Before the last layer.
    """

    def __init__(self, channels: int, width: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
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
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(before, len(CLASSES))
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of patches ``(n, channels, k, j, i)``, j and i even."""
        logits: Tensor = self.head(self.features(fold(patches)))
        return logits
