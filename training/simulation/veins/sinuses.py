"""Where do veins drain to? The dural sinuses and the great central veins, found on the head's own inner surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.simulation.head import Head

from .territory import Territory
from .tree import VeinTree, join

Float = NDArray[np.float64]
_CENTRE_MNI = np.array([0.0, 18.0, 12.0])  # LPS axes, between the hemispheres


@dataclass(frozen=True, eq=False)
class Sinuses:
    """Where the cortical and the deep veins end, and the sinuses as a tree of their own.

    `cortical_roots` and `deep_roots` are patient coordinates (n, 3), mm.
    """

    cortical_roots: Float
    deep_roots: Float
    tree: VeinTree


def _outermost(head: Head, ground: Territory, origin: Float, directions: Float) -> Float:
    """Last intracranial point along rays given in MNI space, as patient coordinates."""
    steps = np.arange(20.0, 125.0, 0.5)
    mni = origin + directions[:, None, :] * steps[None, :, None]
    lps = head.to_mni.inverse(mni.reshape(-1, 3))
    at = ground.geometry.to_ijk(lps)[:, ::-1].T
    inside = ndimage.map_coordinates(ground.inside.astype(np.uint8), at, order=0, mode="constant")
    inside = inside.reshape(len(directions), len(steps)).astype(bool)
    last = np.where(inside.any(axis=1), inside.shape[1] - 1 - np.argmax(inside[:, ::-1], axis=1), 0)
    return lps.reshape(len(directions), len(steps), 3)[np.arange(len(directions)), np.maximum(last - 3, 0)]


def _chain(points: Float, radius: Float | float, smooth: float = 2.0) -> VeinTree:
    points = ndimage.gaussian_filter1d(points, smooth, axis=0, mode="nearest")
    r = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(points),))
    return VeinTree(points[:-1], points[1:], 0.5 * (r[:-1] + r[1:]))


def _line(points_mni: list[tuple[float, float, float]], head: Head, n: int = 40) -> Float:
    corner = np.array(points_mni)
    at = np.linspace(0, len(corner) - 1, n)
    path = np.stack([np.interp(at, np.arange(len(corner)), corner[:, a]) for a in range(3)], axis=1)
    return head.to_mni.inverse(path)


def sinuses(head: Head, ground: Territory) -> Sinuses:
    """Superior sagittal, straight and transverse sinuses, vein of Galen and internal cerebral veins."""
    angle = np.radians(np.linspace(5, 196, 150))
    rays = np.stack([np.zeros_like(angle), -np.cos(angle), np.sin(angle)], axis=1)
    sagittal = _outermost(head, ground, _CENTRE_MNI, rays)
    sagittal_tree = _chain(sagittal, np.linspace(1.0, 3.2, len(sagittal)))
    trees = [sagittal_tree]
    cortical = [sagittal_tree.start]
    for side in (-1.0, 1.0):
        turn = np.radians(np.linspace(0, 82, 60))
        rays = np.stack([side * np.sin(turn), np.cos(turn), np.zeros_like(turn)], axis=1)
        transverse = _outermost(head, ground, np.array([0.0, 30.0, -14.0]), rays)
        tree = _chain(transverse, np.linspace(3.0, 2.4, len(transverse)))
        trees.append(tree)
        cortical.append(tree.start)
    straight = _line([(0, 42, 3), (0, 58, 5), (0, 76, -1), (0, 94, -9)], head)
    galen = [_line([(s * 3, -6, 12), (s * 2, 12, 15), (s * 1.5, 30, 10), (0, 42, 3)], head) for s in (-1, 1)]
    trees += [_chain(straight, 1.6), *(_chain(g, np.linspace(0.6, 1.0, len(g))) for g in galen)]
    return Sinuses(np.concatenate(cortical), np.concatenate([*galen, straight[:6]]), join(trees))
