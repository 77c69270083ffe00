"""How else do veins find their way? The second generator: trees grow from the sinuses towards tissue that has none yet.

Space colonisation (Runions 2007): each point of tissue to be drained pulls the nearest vein tip; tips step along the
mean pull; points are struck off once a vein is near. Nearest neighbours come from scipy's k-d tree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from training.simulation.distance import distance_from

from .sinuses import Sinuses
from .territory import Territory
from .tree import VeinParameters, VeinTree, join, murray_tree

Float = NDArray[np.float64]
Int = NDArray[np.int64]
_STEP_MM = 1.1
_KILL_MM = 1.6
_MOST_ROUNDS = 260


def _points(ground: Territory, where: NDArray[np.bool_], n: int, rng: np.random.Generator) -> Float:
    found = np.argwhere(where)
    if len(found) == 0:
        return np.zeros((0, 3))
    picked = found[rng.choice(len(found), min(n, len(found)), replace=False)]
    return ground.geometry.to_lps(picked[:, ::-1] + rng.uniform(-0.5, 0.5, (len(picked), 3)))


def _allowed(ground: Territory, open_: NDArray[np.bool_], points: Float) -> NDArray[np.bool_]:
    at = ground.geometry.to_ijk(points)[:, ::-1].T
    return np.asarray(ndimage.map_coordinates(open_.astype(np.uint8), at, order=0, mode="constant") > 0)


def _grow(
    ground: Territory,
    open_: NDArray[np.bool_],
    roots: Float,
    targets: Float,
    reach_mm: float,
    wander: float,
    rng: np.random.Generator,
) -> tuple[Float, Int]:
    """Positions and parents of the nodes grown from `roots` towards `targets`, staying where `open_`."""
    position, parent = [roots], [np.full(len(roots), -1)]
    for _ in range(_MOST_ROUNDS):
        if len(targets) == 0:
            break
        nodes = np.concatenate(position)
        found = cKDTree(nodes).query(targets)
        distance, nearest = np.asarray(found[0], dtype=np.float64), np.asarray(found[1], dtype=np.int64)
        targets = targets[distance > _KILL_MM]
        pulled = nearest[distance > _KILL_MM]
        far = distance[distance > _KILL_MM]
        active = far < reach_mm
        if not active.any():
            reach_mm *= 1.5
            if reach_mm > 60:
                break
            continue
        pull = targets[active] - nodes[pulled[active]]
        pull /= np.linalg.norm(pull, axis=1, keepdims=True)
        tip, which = np.unique(pulled[active], return_inverse=True)
        mean = np.stack([np.bincount(which, pull[:, a]).astype(np.float64) for a in range(3)], axis=1)
        mean += wander * rng.standard_normal(mean.shape)
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)
        new = nodes[tip] + _STEP_MM * mean
        keep = _allowed(ground, open_, new)
        if not keep.any():
            reach_mm *= 1.5
            targets = targets[rng.random(len(targets)) > 0.2]
            continue
        position.append(new[keep])
        parent.append(tip[keep])
    return np.concatenate(position), np.concatenate(parent)


def _leaves(parent: Int) -> Int:
    """Number of tips upstream of each node; children always come after their parents."""
    count = np.zeros(len(parent), dtype=np.int64)
    has_child = np.zeros(len(parent), dtype=bool)
    has_child[parent[parent >= 0]] = True
    count[~has_child] = 1
    for n in range(len(parent) - 1, -1, -1):
        if parent[n] >= 0:
            count[parent[n]] += count[n]
    return count


def colonise(ground: Territory, sinus: Sinuses, parameters: VeinParameters, rng: np.random.Generator) -> VeinTree:
    """Grow the cortical and the deep veins of one head."""
    trees = []
    wander = 0.5 * parameters.tortuosity
    rim = ground.inside & (ground.csf + ground.grey > 0.5) & ~ground.ventricles
    targets = _points(ground, (ground.grey > 0.5) & rim, parameters.cortical, rng)
    position, parent = _grow(ground, rim, sinus.cortical_roots, targets, 8.0, wander, rng)
    trees.append(murray_tree(position, parent, _leaves(parent), parameters.cortical_radius_mm, smoothing=4))
    near = distance_from(ground.ventricles) < 24 if ground.ventricles.any() else ground.white > 0.9
    targets = _points(ground, near & (ground.white + ground.grey > 0.8), parameters.deep, rng)
    position, parent = _grow(ground, ground.inside, sinus.deep_roots, targets, 30.0, wander, rng)
    trees.append(murray_tree(position, parent, _leaves(parent), parameters.deep_radius_mm, smoothing=4))
    return join(trees)
