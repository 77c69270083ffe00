"""Which veins look like microbleeds? Those seen end-on, those that stand alone, and the ends and bends of others.

The truth lists them as mimics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from training.simulation.scene import Scene

_STEEP = 0.9
_RADII_MM = (0.18, 0.9)
_APART_MM = 6.0
_JOINED_MM = 0.01
_AHEAD_MM = 1.0
_BENT = np.cos(np.radians(50))

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VeinPlace:
    """A place where a vein looks like a microbleed: centre (LPS, mm), radius (mm), ``short``, ``end`` or ``bend``."""

    centre: Float
    radius: float
    form: str


def _in_tissue(scene: Scene, points: Float) -> NDArray[np.bool_]:
    """Whether each of `points` lies in grey or white matter."""
    grid = scene.head.geometry
    voxel = np.round(grid.to_ijk(points)[:, ::-1]).astype(int)
    inside = np.all((voxel >= 0) & (voxel < grid.shape), axis=1)
    at = np.clip(voxel, 0, np.array(grid.shape) - 1)
    tissue = scene.head.grey[tuple(at.T)].astype(int) + scene.head.white[tuple(at.T)]
    return np.asarray(inside & (tissue > 128))


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
    wide = (tree.radius > _RADII_MM[0]) & (tree.radius < _RADII_MM[1])
    found = np.flatnonzero(steep & wide & _in_tissue(scene, middle))
    found = found[np.argsort(-tree.radius[found], kind="stable")]
    return [(middle[n], float(tree.radius[n])) for n in _apart(middle, found, most)]


def _apart(places: Float, found: NDArray[np.intp], most: int) -> list[int]:
    """The first of `found`, at most `most`, that are 6 mm from each one before."""
    neighbours = cKDTree(places[found]).query_ball_point(places[found], _APART_MM) if found.size else []
    taken = np.zeros(found.size, dtype=bool)
    kept: list[int] = []
    for n, near in enumerate(neighbours):
        if taken[n] or len(kept) >= most:
            continue
        taken[near] = True
        kept.append(int(found[n]))
    return kept


def ends_and_bends(scene: Scene, *, most: int = 100) -> list[VeinPlace]:
    """Places in the brain where a vein that is wide enough to see ends, or turns by more than 50° within 2 mm."""
    tree = scene.tree
    run = tree.end - tree.start
    direction = run / np.maximum(np.linalg.norm(run, axis=1, keepdims=True), 1e-9)
    seen = (tree.radius > _RADII_MM[0]) & (tree.radius < _RADII_MM[1]) & _in_tissue(scene, tree.start)
    alone = np.asarray(cKDTree(tree.end).query(tree.start)[0]) > _JOINED_MM
    wide = [(tree.start[n], float(tree.radius[n]), "end") for n in np.flatnonzero(seen & alone)]
    onward = cKDTree(tree.start).query(tree.end + _AHEAD_MM * direction, distance_upper_bound=_AHEAD_MM)[1]
    onward = np.asarray(onward)
    known = onward < len(direction)
    turn = np.ones(len(direction))
    turn[known] = np.sum(direction[known] * direction[onward[known]], axis=1)
    bent = np.flatnonzero(seen & (turn < _BENT))
    places = [*wide, *((tree.end[n], float(tree.radius[n]), "bend") for n in bent)]
    places.sort(key=lambda place: -place[1])
    at = np.array([p for p, _, _ in places]).reshape(-1, 3)
    return [VeinPlace(*places[n]) for n in _apart(at, np.arange(len(places)), most)]


def vein_places(scene: Scene) -> list[VeinPlace]:
    """Veins that stand alone, and ends and bends of others."""
    short = scene.short_veins
    alone = [] if short is None else [
        VeinPlace(centre, float(radius), "short") for centre, radius in zip(short.centre, short.radius, strict=True)
    ]  # fmt: skip
    return [*alone, *ends_and_bends(scene)]
