"""How does one sample become many? Batches of 3D patches on the device they train on; slices with torchvision.

MONAI and torchio vary one sample at a time on the processor; here a whole batch is turned, mirrored and zoomed in one
resampling, so the processors of a small machine are left for the reading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipeline.networks.inputs import MISSING, PHASE_CHANNELS

from .config import Augmentation
from .reweighting import reweight

GREY_CHANNELS = ("swi", "magnitude", "unit", "adjacent")
SOFTEST_PX = 1.2
"""Largest standard deviation of a blur in plane, pixels."""
SOFTEST_NEIGHBOUR = 0.3
"""Largest share of each neighbouring slice."""


def augment_volumes(
    images: Tensor, channels: Sequence[str], settings: Augmentation, step_mm: float, points: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Vary a batch of patches.

    Parameters
    ----------
    images : Tensor, shape (n, channels, k, j, i)
        With the names of their channels in `channels`.
    settings : Augmentation
        How much.
    step_mm : float
        In-plane step, for shifts; they are left out where there are points.
    points : Tensor, shape (n, p, 3), optional
        Voxel coordinates ``(k, j, i)`` that move with the images.

    Returns
    -------
    Tensor, Tensor or None
        The same shapes.
    """
    if settings.kind == "none":
        return images, points
    images, points = _move(images, settings, 0.0 if points is not None else settings.shift_mm / step_mm, points)
    images = reweight(images, channels, settings.reweight)
    images = _drop(_soften(images, settings), channels, settings)
    return _shade(images, channels, settings), points


def _uniform(n: int, reach: float, device: torch.device) -> Tensor:
    return (2 * torch.rand(n, device=device) - 1) * reach


def _move(images: Tensor, settings: Augmentation, shift: float, points: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Mirror along every axis, turn and zoom in plane, shift in plane: one affine map from output to input voxels."""
    n, device = len(images), images.device
    angle = _uniform(n, math.radians(settings.rotate_deg), device)
    zoom = 1 + _uniform(n, settings.scale, device)
    flips = torch.where(torch.rand(n, 3, device=device) < 0.5, -1.0, 1.0)  # i, j, k
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    matrix = torch.zeros(n, 3, 3, device=device)
    matrix[:, 0, 0], matrix[:, 0, 1] = cos * flips[:, 0], -sin * flips[:, 1]
    matrix[:, 1, 0], matrix[:, 1, 1] = sin * flips[:, 0], cos * flips[:, 1]
    matrix[:, 2, 2] = flips[:, 2]
    offset = torch.stack([_uniform(n, shift, device), _uniform(n, shift, device), torch.zeros(n, device=device)], 1)
    size = torch.tensor(images.shape[:1:-1], device=device, dtype=torch.float32)  # i, j, k
    # In the units of grid_sample half an axis is 1.
    theta = torch.cat([matrix * (size[None, None, :] / size[None, :, None]), (2 * offset / size)[:, :, None]], 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    if points is None:
        return moved, None
    middle = (size - 1) / 2
    centred = points.flip(-1).to(torch.float32) - middle - offset[:, None]
    back = torch.linalg.inv(matrix)
    return moved, (torch.einsum("nab,npb->npa", back, centred) + middle).flip(-1)


def _soften(images: Tensor, settings: Augmentation) -> Tensor:
    """Blur some samples in plane and across slices; one draw of widths for all of them."""
    chosen = torch.rand(len(images), device=images.device) < settings.soften
    if not chosen.any():
        return images
    some = images[chosen]
    sigma, neighbour = (torch.rand(2) * torch.tensor([SOFTEST_PX, SOFTEST_NEIGHBOUR])).tolist()
    before, after = some[:, :, :1], some[:, :, -1:]
    padded = torch.cat([before, some, after], 2)
    some = (1 - 2 * neighbour) * some + neighbour * (padded[:, :, :-2] + padded[:, :, 2:])
    images[chosen] = v2.functional.gaussian_blur(some, [5, 5], [max(0.1, sigma)] * 2)
    return images


def _drop(images: Tensor, channels: Sequence[str], settings: Augmentation) -> Tensor:
    """Take phase or magnitude away, as a study without them would be."""
    n = len(images)
    for names, share in ((PHASE_CHANNELS, settings.no_phase), (("magnitude",), settings.no_magnitude)):
        gone = torch.rand(n, device=images.device) < share
        for at, name in enumerate(channels):
            if name in names:
                images[gone, at] = MISSING[name]
    return images


def _shade(images: Tensor, channels: Sequence[str], settings: Augmentation) -> Tensor:
    """Vary contrast, brightness and noise of grey values, and the strength of the phase."""
    n, device = len(images), images.device
    shape = (n, 1, 1, 1)
    power = (1 + _uniform(n, settings.contrast, device)).reshape(shape)
    gain = (1 + _uniform(n, settings.brightness, device)).reshape(shape)
    noise = (torch.rand(n, device=device) * settings.noise).reshape(shape)
    for at, name in enumerate(channels):
        if name in GREY_CHANNELS:
            grey = images[:, at]
            varied = grey.clamp(min=0) ** power * gain
            there = grey.abs().amax((1, 2, 3), keepdim=True) > 0
            images[:, at] = torch.where(there, varied + noise * torch.randn_like(varied), grey)
    strength = (1 + _uniform(n, settings.phase_scale, device)).reshape(shape)
    if "cosine" in channels and "sine" in channels:
        c, s = channels.index("cosine"), channels.index("sine")
        length = torch.hypot(images[:, c], images[:, s])
        angle = torch.atan2(images[:, s], images[:, c]) * strength
        images[:, c], images[:, s] = length * angle.cos(), length * angle.sin()
    if "complement" in channels:
        at = channels.index("complement")
        images[:, at] = 0.5 + (images[:, at] - 0.5) * strength
    return images


def vary_slice(image: Tensor, boxes: Tensor, settings: Augmentation, missing_phase: float) -> tuple[Tensor, Tensor]:
    """Vary a slice ``(2, rows, columns)`` and its boxes ``(m, 4)``: mirror, turn, zoom, brightness (torchvision v2)."""
    rows, columns = image.shape[-2:]
    if settings.kind != "none":
        # Boxes of microbleeds are squares round a disc: turned about their centres they stay as they are.
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        sides = boxes[:, 2:] - boxes[:, :2]
        points = torch.cat([centres, centres + 1e-3], 1)
        tagged = tv_tensors.BoundingBoxes(points, format="XYXY", canvas_size=(rows, columns))
        zoom = (1 - settings.scale, 1 + settings.scale)
        moves = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomAffine(settings.rotate_deg, scale=zoom, interpolation=v2.InterpolationMode.BILINEAR),
            ]
        )
        turned, moved = moves(tv_tensors.Image(image), tagged)
        image, at = torch.as_tensor(turned).clone(), torch.as_tensor(moved)[:, :2]
        inside = ((at > 0) & (at < at.new_tensor([columns, rows]) - 1)).all(1)
        boxes = torch.cat([at - sides / 2, at + sides / 2], 1)[inside]
        gain = 1 + (2 * torch.rand(1).item() - 1) * settings.brightness
        image[0] = image[0] * gain + torch.randn_like(image[0]) * settings.noise * torch.rand(1).item()
    if torch.rand(1).item() < missing_phase:
        image[1] = MISSING["complement"]
    return image, boxes


def vary_one_of_six(images: Tensor) -> Tensor:
    """Draw for each image ``(n, 3, rows, columns)`` one of the six that Afzal et al. (2021) make of it."""
    drawn = torch.randint(6, (len(images),)).tolist()
    return torch.stack([_one_of_six(image, which) for image, which in zip(images, drawn, strict=True)])


def _one_of_six(image: Tensor, which: int) -> Tensor:
    """As it is, mirrored left–right or top–bottom, turned by −30° or +30°, blurred with a σ of 0 to 3 pixels."""
    if which in (1, 2):
        return image.flip(-which)
    if which in (3, 4):
        angle = -30.0 if which == 3 else 30.0
        return v2.functional.rotate(image, angle, v2.InterpolationMode.BILINEAR, fill=[0.0])
    if which == 5:
        sigma = max(0.1, 3 * torch.rand(1).item())
        return v2.functional.gaussian_blur(image, [13, 13], [sigma, sigma])
    return image
