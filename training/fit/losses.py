"""How wrong was a network? One loss for each kind of network, which allows for how rare microbleeds are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import box_iou

from pipeline.classifiers.probability import bleed_odds
from pipeline.networks.heatmap import KINDS
from pipeline.networks.yolo import YoloNet

from .targets import UNKNOWN

ALPHA, BETA = 2.0, 4.0
"""Of the penalty-reduced focal loss (Zhou 2019, equation 1)."""
QUALITY_BETA = 2.0
OBJECT_SCALE = 5.0
NO_OBJECT_SCALE = 1.0
COORDINATE_SCALE = 1.0
IGNORE_OVERLAP = 0.6
"""Scales and `thresh` of the authors' yolov2.cfg."""


def heatmap_loss(logits: Tensor, maps: Tensor, mimics_known: Tensor) -> Tensor:
    """Penalty-reduced focal loss of CenterNet.

    Parameters
    ----------
    logits : Tensor, shape (n, kinds, k, j, i)
    maps : Tensor, shape (n, kinds + 1, k, j, i)
        From :func:`training.fit.targets.draw_heatmaps`; near the last channel's peaks nothing counts.
    mimics_known : Tensor of bool, shape (n,)
        Where false only the map of microbleeds counts.
    """
    wanted, hidden = maps[:, : len(KINDS)], maps[:, len(KINDS) :]
    chance = logits.sigmoid().clamp(1e-5, 1 - 1e-5)
    centre = (wanted == 1).to(logits.dtype)
    found = centre * (1 - chance) ** ALPHA * chance.log()
    quiet = (1 - centre) * (1 - wanted) ** BETA * chance**ALPHA * (1 - chance).log() * (1 - hidden) ** BETA
    counts = torch.ones_like(logits[:, :, :1, :1, :1])
    counts[:, 1:] = mimics_known.to(logits.dtype)[:, None, None, None, None]
    # Mimics are there to help with microbleeds, so each of their maps counts half.
    counts[:, 1:] *= 0.5
    return -((found + quiet) * counts).sum() / (centre * counts).sum().clamp(min=1)


def classifier_loss(logits: Tensor, classes: Tensor, bleed: int, weight: float) -> Tensor:
    """Cross entropy; where the class of a place that is no microbleed is unknown, only "no microbleed" is asked for.

    Parameters
    ----------
    logits : Tensor, shape (n, classes)
    classes : Tensor of int, shape (n,)
        ``UNKNOWN`` (−1) for no microbleed, kind unknown.
    bleed : int
        Class of a microbleed.
    weight : float
        Of a microbleed, against 1 for all others.
    """
    unknown = classes == UNKNOWN
    known = F.cross_entropy(logits, classes.clamp(min=0), reduction="none")
    quiet = F.softplus(bleed_odds(logits, bleed))
    weights = torch.where(classes == bleed, weight, 1.0).to(logits.dtype)
    return (torch.where(unknown, quiet, known) * weights).sum() / weights.sum()


def yolo_loss(network: YoloNet, raw: Tensor, boxes: list[Tensor]) -> Tensor:
    """YOLOv2's squared errors of position and size of the best anchor, and a focal loss of the confidence everywhere.

    The published squared error of the confidence goes with weights that know images: from fresh ones it drives every
    cell to nothing, where its slope is gone, too. The quality focal loss (Li 2020, arXiv:2006.04388, equation 1)
    wants the same, the overlap of box and microbleed, and keeps its slope.

    Parameters
    ----------
    network : YoloNet
        For its anchors and stride.
    raw : Tensor, shape (n, anchors, 5, rows, columns)
        Its output.
    boxes : list of Tensor, each (m, 4)
        True boxes of each image as x1, y1, x2, y2.
    """
    decoded = network.decode(raw)
    wanted = torch.zeros_like(decoded.confidence)
    weight = torch.full_like(decoded.confidence, NO_OBJECT_SCALE)
    coordinates = raw.new_zeros(())
    for n, truth in enumerate(boxes):
        if not len(truth):
            continue
        with torch.no_grad():
            flat = decoded.boxes[n].reshape(-1, 4).float()
            weight[n][box_iou(flat, truth).amax(1).reshape(weight[n].shape) > IGNORE_OVERLAP] = 0
        for at, x, y, w, h in _assign(network, truth, raw.shape[-2:]):
            output = raw[(n, at[0], slice(None), *at[1:])]
            target = output.new_tensor([x, y, w, h])
            guess = torch.cat([output[:2].sigmoid(), output[2:4]])
            coordinates = coordinates + COORDINATE_SCALE * ((guess - target) ** 2).sum()
            with torch.no_grad():
                best = box_iou(decoded.boxes[(n, *at)][None].float(), truth).max()
            wanted[(n, *at)], weight[(n, *at)] = best.to(wanted.dtype), OBJECT_SCALE
    wrong = F.binary_cross_entropy_with_logits(raw[:, :, 4], wanted, reduction="none")
    confidence = (weight * (decoded.confidence - wanted).abs() ** QUALITY_BETA * wrong).sum()
    return (confidence + coordinates) / len(boxes)


def _assign(
    network: YoloNet, truth: Tensor, cells: torch.Size
) -> list[tuple[tuple[int, int, int], float, float, float, float]]:
    """Cell and anchor of each true box, with the output that would give it; a taken anchor is passed over."""
    anchors = network.anchors.float().cpu()
    assigned, taken = [], set()
    for x1, y1, x2, y2 in truth.float().cpu().tolist():
        cx, cy, w, h = (x1 + x2) / 2 / network.stride, (y1 + y2) / 2 / network.stride, x2 - x1, y2 - y1
        column, row = int(cx), int(cy)
        if not (0 <= row < cells[0] and 0 <= column < cells[1]):
            continue
        overlap = torch.minimum(anchors, torch.tensor([w, h])).prod(1)
        order = (overlap / (anchors.prod(1) + w * h - overlap)).argsort(descending=True).tolist()
        free = [a for a in order if (a, row, column) not in taken]
        if not free:
            continue
        taken.add((free[0], row, column))
        size = (torch.tensor([w, h]) / anchors[free[0]]).log().tolist()
        assigned.append(((free[0], row, column), cx - column, cy - row, size[0], size[1]))
    return assigned
