"""Which veins look like bleeds? Those that cross a slice end-on: told in the truth as false positives to expect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from training.simulation.scene import Scene

_STEEP = 0.9
_RADII_MM = (0.18, 0.9)
_APART_MM = 6.0


def end_on_veins(scene: Scene, *, most: int = 200) -> list[tuple[NDArray[np.float64], float]]:
    """Places in the brain where a vein runs within about 25° of the slice normal.

    Returns
    -------
    list of (centre, radius)
        Patient coordinates (LPS, mm) and radius (mm), widest first, at least 6 mm apart, at most `most`.
    """
    tree, grid = scene.tree, scene.head.geometry
    run = tree.end - tree.start
    steep = np.abs(run @ grid.direction[:, 2]) > _STEEP * np.linalg.norm(run, axis=1)
    middle = 0.5 * (tree.start + tree.end)
    voxel = np.round(grid.to_ijk(middle)[:, ::-1]).astype(int)
    inside = np.all((voxel >= 0) & (voxel < grid.shape), axis=1)
    at = np.clip(voxel, 0, np.array(grid.shape) - 1)
    tissue = scene.head.grey[tuple(at.T)].astype(int) + scene.head.white[tuple(at.T)]
    wide = (tree.radius > _RADII_MM[0]) & (tree.radius < _RADII_MM[1])
    found = np.flatnonzero(steep & inside & wide & (tissue > 128))
    found = found[np.argsort(-tree.radius[found], kind="stable")]
    neighbours = cKDTree(middle[found]).query_ball_point(middle[found], _APART_MM) if found.size else []
    taken = np.zeros(found.size, dtype=bool)
    kept: list[tuple[NDArray[np.float64], float]] = []
    for n, near in enumerate(neighbours):
        if taken[n] or len(kept) >= most:
            continue
        taken[near] = True
        kept.append((middle[found[n]], float(tree.radius[found[n]])))
    return kept
