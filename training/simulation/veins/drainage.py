"""How do veins find their way? The first generator: every small vein takes the cheapest path to a sinus.

Minimum-cost paths on a noisy cost field give trees whose trunks are shared; counting the paths through a voxel gives
Murray radii. The path search is scikit-image's ``MCP_Geometric`` (Dijkstra's algorithm with distances between voxel
centres).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric

from training.simulation.distance import distance_from

from .sinuses import Sinuses
from .territory import Territory
from .tree import VeinParameters, VeinTree, join, murray_tree

Float32 = NDArray[np.float32]


def _noise(shape: tuple[int, ...], spread: float, rng: np.random.Generator) -> Float32:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.2)
    return np.asarray(np.exp(noise * (spread / float(noise.std()))), dtype=np.float32)


def _voxels(ground: Territory, lps: NDArray[np.float64]) -> NDArray[np.int64]:
    """Distinct voxels (k, j, i) that hold the given points."""
    at = np.round(ground.geometry.to_ijk(lps)[:, ::-1]).astype(np.int64)
    return np.unique(np.clip(at, 0, np.array(ground.geometry.shape) - 1), axis=0)


def _paths(
    cost: Float32, roots: NDArray[np.int64], sources: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Nodes (k, j, i), parents and path counts of the cheapest paths from `sources` to `roots`."""
    cost[tuple(roots.T)] = np.maximum(cost[tuple(roots.T)], 0.2)
    search = MCP_Geometric(cost, fully_connected=True)
    _, back = search.find_costs([tuple(r) for r in roots.tolist()])
    offsets = np.asarray(search.offsets)
    steps = offsets @ np.array([cost.shape[1] * cost.shape[2], cost.shape[2], 1])
    back = back.ravel()
    current = np.ravel_multi_index(tuple(sources.T), cost.shape)
    current = current[back[current] >= 0]
    count = np.zeros(cost.size, dtype=np.int32)
    while current.size:
        np.add.at(count, current, 1)
        current = current[back[current] >= 0]
        current = current - steps[back[current]]
    node = np.flatnonzero(count)
    direction = back[node]
    down = np.where(direction >= 0, node - steps[np.maximum(direction, 0)], -1)
    parent = np.where(direction >= 0, np.searchsorted(node, down), -1)
    return np.stack(np.unravel_index(node, cost.shape), axis=1), parent, count[node].astype(np.int64)


def _grow(
    ground: Territory,
    cost: Float32,
    roots: NDArray[np.float64],
    sources: NDArray[np.int64],
    radius: float,
    rng: np.random.Generator,
) -> VeinTree:
    node, parent, count = _paths(cost, _voxels(ground, roots), sources)
    jittered = node[:, ::-1] + rng.uniform(-0.35, 0.35, node.shape)
    return murray_tree(ground.geometry.to_lps(jittered), parent, count, radius)


def _choose(where: NDArray[np.bool_], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    found = np.flatnonzero(where)
    picked = found[rng.choice(found.size, min(n, found.size), replace=False)] if found.size else found
    return np.stack(np.unravel_index(picked, where.shape), axis=1)


def drain(ground: Territory, sinus: Sinuses, parameters: VeinParameters, rng: np.random.Generator) -> VeinTree:
    """Grow the cortical and the deep veins of one head."""
    rough = _noise(ground.csf.shape, parameters.tortuosity, rng)
    outside = np.float32(-1)  # MCP: impassable
    cortical = np.where(ground.inside, (1.0 * ground.csf + 7 * ground.grey + 25 * ground.white + 0.1) * rough, outside)
    cortical[ground.ventricles] = outside
    share = int(parameters.cortical * 0.8)
    sources = np.concatenate(
        [
            _choose((ground.grey > 0.6), share, rng),
            _choose((ground.white > 0.4) & (ground.grey > 0.05), parameters.cortical - share, rng),
        ]
    )
    trees = [
        _grow(ground, cortical.astype(np.float32), sinus.cortical_roots, sources, parameters.cortical_radius_mm, rng)
    ]
    wall = ndimage.binary_dilation(ground.ventricles, iterations=2) & ~ground.ventricles
    near = distance_from(ground.ventricles) < 24 if ground.ventricles.any() else ground.white > 0.9
    deep = np.where(ground.inside, (2.0 * ground.white + 5 * ground.grey + 9 * ground.csf + 0.1) * rough, outside)
    deep[wall] = 0.5 * rough[wall]
    sources = _choose(near & (ground.white + ground.grey > 0.8) & ~wall, parameters.deep, rng)
    trees.append(_grow(ground, deep.astype(np.float32), sinus.deep_roots, sources, parameters.deep_radius_mm, rng))
    return join(trees)
