"""Is this candidate a microbleed? The 3D CNN of Al-masni et al. (2020), stage 2, of 1.36 million parameters.

Layers, order (convolution, ReLU, batch normalisation) and sizes follow the authors' published code. Its BatchNorm ran
over an image axis instead of the channels, by mistake; that is corrected here.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

SHAPE = (16, 32, 16)
"""Voxels of the input: slices, rows (16 of the SWI, then 16 of the phase) and columns."""


class Cnn3dNet(nn.Module):
    """Five convolutions, two poolings, three dense layers."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        before = 1
        for n, after in enumerate((32, 64, 64, 128, 128), start=1):
            layers[f"conv{n}"] = nn.Conv3d(before, after, 3, padding=1)
            layers[f"relu{n}"] = nn.ReLU(inplace=True)
            layers[f"norm{n}"] = nn.BatchNorm3d(after)
            if n in (3, 5):
                layers[f"pool{n}"] = nn.MaxPool3d(2)
            before = after
        self.features = nn.Sequential(layers)
        voxels = SHAPE[0] * SHAPE[1] * SHAPE[2] // 4**3
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(128 * voxels, 32),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(32, 8),
            nn.ReLU(inplace=True),
            nn.Linear(8, 2),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Logits ``(n, 2)``, no microbleed and microbleed, of patches ``(n, 1, 16, 32, 16)``."""
        logits: Tensor = self.head(self.features(patches))
        return logits
