"""Which veins stand alone? Short stretches of a vein whose rest is too thin to see, many of them across the slices.

A tree has few of them: they lie in tissue, begin and end within a few millimetres, bend or fork, and where they run
across the slices each is a dark dot in two or three slices, as a microbleed is. They are drawn into the tree, so field
and dephasing come from the same code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .territory import Territory
from .tree import VeinTree, join

Float = NDArray[np.float64]
_STEP_MM = 1.0


@dataclass(frozen=True)
class ShortVeins:
    """Short veins of one head.

    Parameters
    ----------
    count : tuple of int
        Range of their number.
    length_mm, radius_mm : tuple of float
        Ranges; the radius falls by up to a half from one end to the other.
    end_on_share : float
        Share of them that runs across the slices, within about 20°.
    bend_deg : float
        Spread of the change of direction at each millimetre.
    fork_share : float
        Share of them that forks in the middle.
    """

    count: tuple[int, int] = (20, 80)
    length_mm: tuple[float, float] = (2.0, 9.0)
    radius_mm: tuple[float, float] = (0.15, 0.55)
    end_on_share: float = 0.5
    bend_deg: float = 14.0
    fork_share: float = 0.0


@dataclass(frozen=True, eq=False)
class ShortVeinTree:
    """Short veins as segments, and the centre (LPS, mm) and radius (mm) of each vein."""

    tree: VeinTree
    centre: Float
    radius: Float


def _unit(vector: Float) -> Float:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))


def _path(start: Float, direction: Float, steps: int, bend_deg: float, rng: np.random.Generator) -> Float:
    """Points a millimetre apart whose direction turns a little at each."""
    points = [start]
    for _ in range(steps):
        direction = _unit(direction + np.radians(bend_deg) * rng.standard_normal(3))
        points.append(points[-1] + _STEP_MM * direction)
    return np.array(points)


def _segments(path: Float, radius: float, taper: float) -> VeinTree:
    return VeinTree(path[:-1], path[1:], radius * np.linspace(1, taper, len(path) - 1))


def grow_short_veins(
    ground: Territory, normal: Float, parameters: ShortVeins, rng: np.random.Generator
) -> ShortVeinTree:
    """Grow short veins in the tissue of `ground`; `normal` is the direction across the slices."""
    tissue = np.flatnonzero((ground.grey + ground.white > 0.8).ravel() & ground.inside.ravel())
    low, high = parameters.count
    trees, centres, radii = [VeinTree(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))], [], []
    for _ in range(int(rng.integers(low, high + 1)) if tissue.size else 0):
        at = np.array(np.unravel_index(int(rng.choice(tissue)), ground.geometry.shape))[::-1]
        middle = ground.geometry.to_lps(at + rng.uniform(-0.5, 0.5, 3))
        across = rng.random() < parameters.end_on_share
        direction = _unit(normal + 0.25 * rng.standard_normal(3)) if across else _unit(rng.standard_normal(3))
        steps = max(2, round(float(rng.uniform(*parameters.length_mm)) / _STEP_MM))
        radius, taper = float(rng.uniform(*parameters.radius_mm)), float(rng.uniform(0.5, 1))
        path = _path(middle - direction * _STEP_MM * steps / 2, direction, steps, parameters.bend_deg, rng)
        trees.append(_segments(path, radius, taper))
        if rng.random() < parameters.fork_share:
            branch = _path(
                path[steps // 2], _unit(rng.standard_normal(3)), max(2, steps // 2), parameters.bend_deg, rng
            )
            trees.append(_segments(branch, 0.8 * radius, taper))
        centres.append(path[len(path) // 2])
        radii.append(radius)
    return ShortVeinTree(join(trees), np.array(centres).reshape(-1, 3), np.array(radii))
