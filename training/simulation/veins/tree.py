"""What is a vein tree? Straight segments with radii that obey Murray's law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
STEM_RADIUS_MM = 1.3


@dataclass(frozen=True)
class VeinParameters:
    """How many veins a head has and how wide they are.

    Parameters
    ----------
    cortical, deep : int
        Number of the smallest branches of either kind.
    cortical_radius_mm, deep_radius_mm : float
        Radius of one smallest branch; a vein that drains n of them has n^(1/3) times that (Murray 1926).
    tortuosity : float
        Spread of the logarithm of the cost a vein meets on its way.
    """

    cortical: int = 8000
    deep: int = 600
    cortical_radius_mm: float = 0.13
    deep_radius_mm: float = 0.17
    tortuosity: float = 0.8


@dataclass(frozen=True, eq=False)
class VeinTree:
    """Vein segments in patient LPS millimetres.

    Parameters
    ----------
    start, end : ndarray of float64, shape (n, 3)
        Ends of each segment.
    radius : ndarray of float64, shape (n,)
        Millimetres.
    """

    start: Float
    end: Float
    radius: Float

    @property
    def volume_ml(self) -> float:
        """Blood they hold, millilitres."""
        length = np.linalg.norm(self.end - self.start, axis=1)
        return float((np.pi * self.radius**2 * length).sum() / 1000)


def join(trees: Sequence[VeinTree]) -> VeinTree:
    """One tree of several."""
    return VeinTree(
        np.concatenate([t.start for t in trees]),
        np.concatenate([t.end for t in trees]),
        np.concatenate([t.radius for t in trees]),
    )


def murray_tree(position: Float, parent: Int, leaves: Int, leaf_radius_mm: float, *, smoothing: int = 6) -> VeinTree:
    """Turn nodes with parents into smooth segments with Murray radii.

    Parameters
    ----------
    position : ndarray, shape (n, 3)
        Node positions, mm.
    parent : ndarray of int, shape (n,)
        Index of the node downstream, or −1 at a root.
    leaves : ndarray of int, shape (n,)
        Number of smallest branches that drain through the node.
    leaf_radius_mm : float
        Radius of a smallest branch.
    smoothing : int
        Rounds of averaging each node with its parent and its main tributary, against the grid's staircase.
    """
    has_parent = parent >= 0
    child = np.full(len(position), -1)
    order = np.argsort(leaves, kind="stable")
    upstream = order[has_parent[order]]
    child[parent[upstream]] = upstream  # the last written has the most leaves
    middle = np.flatnonzero(has_parent & (child >= 0))
    position = position.copy()
    radius = np.minimum(leaf_radius_mm * np.cbrt(leaves.astype(np.float64)), STEM_RADIUS_MM)
    for _ in range(smoothing):
        ends = position[parent[middle]] + position[child[middle]]
        position[middle] = 0.5 * position[middle] + 0.25 * ends
        radius[middle] = 0.5 * radius[middle] + 0.25 * (radius[parent[middle]] + radius[child[middle]])
    here = np.flatnonzero(has_parent)
    down = parent[here]
    return VeinTree(position[here], position[down], 0.5 * (radius[here] + np.minimum(radius[down], radius[here] * 1.3)))
