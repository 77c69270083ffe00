"""What would another scanner's SWI of this patch look like? Made again from magnitude and phase.

A detector that has seen one phase mask learns its contrast. Magnitude and phase are the same whatever the scanner makes
of them, so the SWI is recomputed on the device that trains: high-pass, shape of the mask and power are drawn anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

NEEDED = ("swi", "cosine", "sine", "magnitude")
POWERS = (0.5, 6.0)
"""Range of the power of the phase mask."""
WIDTHS_PX = (6.0, 20.0)
"""Range of the Gaussian whose phase is taken out, as a standard deviation in pixels."""


def reweight(images: Tensor, channels: Sequence[str], share: float) -> Tensor:
    """Make the SWI of a share of the samples again, in place; those without phase or magnitude stay.

    Parameters
    ----------
    images : Tensor, shape (n, channels, k, j, i)
        Grey values in medians of the brain; phase as a unit vector, paramagnetic positive.
    channels : sequence of str
        Their names; nothing happens unless all of :data:`NEEDED` are there.
    share : float
        Of the samples.
    """
    if not share or any(name not in channels for name in NEEDED):
        return images
    at = {name: channels.index(name) for name in NEEDED}
    there = torch.stack([images[:, at[name]].abs().amax((1, 2, 3)) > 0 for name in ("cosine", "magnitude")]).all(0)
    chosen = there & (torch.rand(len(images), device=images.device) < share)
    if not chosen.any():
        return images
    some = images[chosen]
    length = torch.hypot(some[:, at["cosine"]], some[:, at["sine"]])
    phase = torch.atan2(some[:, at["sine"]], some[:, at["cosine"]])
    if torch.rand(1).item() < 0.5:
        phase = _high_passed(phase, some[:, at["magnitude"]])
        some[:, at["cosine"]], some[:, at["sine"]] = length * phase.cos(), length * phase.sin()
    some[:, at["swi"]] = some[:, at["magnitude"]] * _mask(phase)
    images[chosen] = some
    return images


def _high_passed(phase: Tensor, magnitude: Tensor) -> Tensor:
    """Phase over that of a Gaussian low-pass of the complex image, in plane."""
    sigma = WIDTHS_PX[0] + torch.rand(1).item() * (WIDTHS_PX[1] - WIDTHS_PX[0])
    size = min(2 * int(2 * sigma) + 1, 2 * (min(phase.shape[-2:]) // 2) - 1)
    complex_image = torch.stack([magnitude * phase.cos(), magnitude * phase.sin()], 1)
    low = v2.functional.gaussian_blur(complex_image.flatten(1, 2), [size, size], [sigma, sigma])
    real, imaginary = low.reshape(complex_image.shape).unbind(1)
    turned = phase - torch.atan2(imaginary, real)
    return torch.atan2(turned.sin(), turned.cos())


def _mask(phase: Tensor) -> Tensor:
    """Linear, cosine or sigmoid mask of each sample, to a power of its own."""
    n, device = len(phase), phase.device
    turn = phase.clamp(min=0) / torch.pi
    shapes = torch.stack([1 - turn, torch.cos(torch.pi / 2 * turn) ** 2, torch.sigmoid(10 * (0.4 - turn))])
    picked = shapes[torch.randint(len(shapes), (n,), device=device), torch.arange(n, device=device)]
    power = POWERS[0] + torch.rand(n, device=device) * (POWERS[1] - POWERS[0])
    return picked.clamp(0, 1) ** power.reshape(n, 1, 1, 1)
