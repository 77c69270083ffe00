"""What should a network have said? Heat maps and boxes, drawn from marks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.networks.context import CLASSES
from pipeline.networks.heatmap import FOLD, KINDS
from pipeline.networks.yolo import ANCHORS
from training.datasets.mark_kinds import BLEED, MISTAKE, NULL, REJECTED
from training.datasets.record import Mark

NO_POINT = -1
UNSEEN = -2
"""Kind of a microbleed that no reader could see: neither found nor punished."""
NOTHING = CLASSES.index("nothing")
UNKNOWN = -1
"""Class of a place that is no microbleed, in a data set that does not say what it is."""
_OTHER = KINDS.index("other")


def kind_of(mark: Mark) -> int:
    """Number of a mark's map: :data:`KINDS`; ``UNSEEN`` for a hidden microbleed.

    ``NO_POINT`` for what nothing shows, and for what a reader rejected: no map but that of microbleeds is told of it.
    """
    if mark.kind in (NULL, REJECTED, MISTAKE) or (mark.kind != BLEED and not mark.visible):
        return NO_POINT
    if mark.kind == BLEED and not mark.visible:
        return UNSEEN
    return KINDS.index(mark.kind) if mark.kind in KINDS else _OTHER


def draw_heatmaps(
    points: Tensor, kinds: Tensor, shape: tuple[int, int, int], step_mm: Tensor, sigma_mm: float
) -> Tensor:
    """Draw Gaussian peaks for the points of each sample.

    Parameters
    ----------
    points : Tensor, shape (n, p, 3)
        Coordinates ``(k, j, i)`` on the network's input grid.
    kinds : Tensor of int, shape (n, p)
        See :func:`kind_of`.
    shape : tuple of int
        Of the map ``(k, j, i)``; j and i are folded.
    step_mm : Tensor, shape (3,)
        Between voxels of the map along ``(k, j, i)``.
    sigma_mm : float
        Width of a peak.

    Returns
    -------
    Tensor, shape (n, kinds + 1, k, j, i)
        Exactly 1 at the voxel nearest to a centre; the last channel is where a hidden microbleed lies.
    """
    fold = points.new_tensor([1, FOLD, FOLD])
    centres = ((points + 0.5) / fold - 0.5).round()
    axes = [torch.arange(n, device=points.device, dtype=points.dtype) for n in shape]
    squares = [
        (((axis - centres[..., a, None]) * step_mm[a]) / sigma_mm) ** 2 for a, axis in enumerate(axes)
    ]  # each (n, p, size)
    k, j, i = (torch.exp(-s / 2) for s in squares)
    maps = points.new_zeros(len(points), len(KINDS) + 1, *shape)
    for number in range(len(KINDS) + 1):
        chosen = kinds == (number if number < len(KINDS) else UNSEEN)
        for p in torch.nonzero(chosen.any(0)).flatten().tolist():
            peak = torch.einsum("nk,nj,ni->nkji", k[:, p], j[:, p], i[:, p]) * chosen[:, p, None, None, None]
            maps[:, number] = torch.maximum(maps[:, number], peak)
    return maps


def box_side_px(mark: Mark, step_mm: float) -> float:
    """Edge of a microbleed's box: its diameter and a rim of a millimetre."""
    return max((mark.size_mm + 2.0) / step_mm, 4.0)


def boxes_of_slice(
    points: NDArray[np.float64], marks: Sequence[Mark], k: int, slice_mm: float, step_mm: float
) -> NDArray[np.float32]:
    """Boxes ``(n, 4)`` as x1, y1, x2, y2 (pixel edges at whole numbers) of the microbleeds that a slice shows.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        Centres ``(i, j, k)`` on the grid of the slices.
    marks : sequence of Mark
        The microbleeds.
    k : int
        The slice; it shows a microbleed whose sphere it cuts, or whose centre lies nearest to it.
    slice_mm, step_mm : float
        Between slices, and between pixels.
    """
    boxes = []
    for (x, y, z), mark in zip(points, marks, strict=True):
        if abs(z - k) <= 0.5 or abs(z - k) * slice_mm < mark.size_mm / 2:
            half = box_side_px(mark, step_mm) / 2
            boxes.append((x + 0.5 - half, y + 0.5 - half, x + 0.5 + half, y + 0.5 + half))
    return np.array(boxes, np.float32).reshape(-1, 4)


def fit_anchors(sides_px: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Anchors for boxes: k-means with 1 − IoU as the distance (Redmon 2017, section 2), smallest first.

    Boxes are square, so the overlap of two is the ratio of their areas.
    """
    sides = np.sort(np.asarray(sides_px, np.float64))
    if not sides.size:
        raise ValueError("there is no box to fit anchors to")
    # Quantiles, spread a little so that no two start alike.
    centres = np.quantile(sides, (np.arange(ANCHORS) + 0.5) / ANCHORS) * np.linspace(0.9, 1.1, ANCHORS)
    for _ in range(100):
        smaller = np.minimum(sides[:, None], centres) ** 2
        nearest = (smaller / np.maximum(sides[:, None], centres) ** 2).argmax(1)
        moved = np.array(
            [np.median(sides[nearest == n]) if (nearest == n).any() else centres[n] for n in range(ANCHORS)]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    return [(float(c), float(c)) for c in np.sort(centres)]
