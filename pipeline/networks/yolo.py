"""How is a slice searched in a single pass? The YOLOv2 architecture (Redmon and Farhadi 2017, CVPR), one class.

Darknet-19 with a passthrough from the last but one resolution, and five anchors per cell, as Al-masni et al. (2020)
train it. Three things that the paper leaves open, or that differ here, can be set: the input is any multiple of the
stride, not just 448 × 448; channels scale by `width` (1 is the published network, 200 MB); and `stride` 16 leaves out
the last pooling, because a microbleed of 2 mm is tiny in a cell of 16 mm. With one class the class output is constant
and left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

ANCHORS = 5
ANCHOR_START_PX = (5.0, 7.0, 9.0, 12.0, 18.0)
"""Squares, until anchors are fitted to the microbleeds of the training set."""

_PLAN: tuple[tuple[tuple[int, int], ...], ...] = (
    ((32, 3),),
    ((64, 3),),
    ((128, 3), (64, 1), (128, 3)),
    ((256, 3), (128, 1), (256, 3)),
    ((512, 3), (256, 1), (512, 3), (256, 1), (512, 3)),
    ((1024, 3), (512, 1), (1024, 3), (512, 1), (1024, 3)),
)
"""Channels and kernel of the convolutions of each resolution (yolov2.cfg)."""


class Boxes(NamedTuple):
    """Boxes ``(..., 4)`` as x1, y1, x2, y2 in pixels, and their confidences ``(...)``."""

    boxes: Tensor
    confidence: Tensor


class YoloNet(nn.Module):
    """YOLOv2 for one class.

    Parameters
    ----------
    channels : int
        Of the input.
    width : float
        Scales every number of channels.
    stride : int
        Pixels per cell: 32 as published, or 16.
    """

    anchors: Tensor

    def __init__(self, channels: int = 2, width: float = 1.0, stride: int = 32) -> None:
        super().__init__()
        if stride not in (16, 32):
            raise ValueError(f"stride {stride}: use 16 or 32")
        self.stride = stride
        stages = []
        before = channels
        for plan in _PLAN:
            layers = []
            for filters, kernel in plan:
                after = _scaled(filters, width)
                layers.append(_convolution(before, after, kernel))
                before = after
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        fine, coarse, short = _scaled(512, width), _scaled(1024, width), _scaled(64, width)
        self.deep = nn.Sequential(_convolution(coarse, coarse, 3), _convolution(coarse, coarse, 3))
        self.short = _convolution(fine, short, 1)
        self.reorganise = 2 if stride == 32 else 1
        self.join = _convolution(coarse + short * self.reorganise**2, coarse, 3)
        self.head = nn.Conv2d(coarse, ANCHORS * 5, 1)
        assert self.head.bias is not None  # noqa: S101 - for the type checker
        # Every box starts at a confidence of 1 %, or the many empty boxes dominate the loss (Lin 2017).
        nn.init.constant_(self.head.bias.data.view(ANCHORS, 5)[:, 4], -math.log(99))
        start = torch.tensor(ANCHOR_START_PX)
        self.register_buffer("anchors", torch.stack([start, start], 1))

    def forward(self, images: Tensor) -> Tensor:
        """Raw x, y, w, h and confidence ``(n, anchors, 5, rows, columns)`` of images ``(n, channels, …)``."""
        x = images
        for n, stage in enumerate(self.stages[:-1]):
            x = stage(x if n == 0 else F.max_pool2d(x, 2))
        passed = self.short(x)
        if self.reorganise > 1:
            passed = F.pixel_unshuffle(passed, 2)
            x = F.max_pool2d(x, 2)
        x = self.deep(self.stages[-1](x))
        raw: Tensor = self.head(self.join(torch.cat([passed, x], 1)))
        return raw.unflatten(1, (ANCHORS, 5))

    def decode(self, raw: Tensor) -> Boxes:
        """Boxes and confidences of every anchor of every cell, ``(n, anchors, rows, columns, …)``."""
        rows, columns = raw.shape[-2:]
        y = torch.arange(rows, device=raw.device, dtype=raw.dtype)[:, None]
        x = torch.arange(columns, device=raw.device, dtype=raw.dtype)[None]
        anchors = self.anchors.to(raw.dtype)
        cx = (raw[:, :, 0].sigmoid() + x) * self.stride
        cy = (raw[:, :, 1].sigmoid() + y) * self.stride
        # Beyond e^4 a box is larger than any slice; early in training the exponential overflows.
        w = anchors[:, 0, None, None] * raw[:, :, 2].clamp(max=4).exp()
        h = anchors[:, 1, None, None] * raw[:, :, 3].clamp(max=4).exp()
        boxes = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)
        return Boxes(boxes, raw[:, :, 4].sigmoid())

    def set_anchors(self, sizes_px: Sequence[tuple[float, float]]) -> None:
        """Use anchors of these widths and heights."""
        if len(sizes_px) != ANCHORS:
            raise ValueError(f"{ANCHORS} anchors are needed, not {len(sizes_px)}")
        self.anchors.copy_(torch.tensor(sizes_px))


def _scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)


def _convolution(before: int, after: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.LeakyReLU(0.1, inplace=True))
