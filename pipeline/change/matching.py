"""Which microbleed of one study is which of another? A one-to-one matching of the nearest within a limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

Points = NDArray[np.float64]


def match(present: Points, prior: Points, limit_mm: float) -> list[tuple[int, int]]:
    """Pair points of two scans in the same coordinates.

    Of all one-to-one pairings, this is the one with the least sum of distances, where a point without a partner costs
    half the limit: two neighbouring microbleeds are not both reassigned so that a third finds a partner.

    Parameters
    ----------
    present, prior : ndarray, shapes (n, 3) and (m, 3)
        Patient coordinates, mm.
    limit_mm : float
        Points farther apart are never the same.

    Returns
    -------
    list of (int, int)
        Indices into `present` and `prior`, in order of the first.
    """
    if not len(present) or not len(prior):
        return []
    distance = cdist(present, prior)
    rows, columns = linear_sum_assignment(np.minimum(distance, limit_mm))
    return [(int(a), int(b)) for a, b in zip(rows, columns, strict=True) if distance[a, b] < limit_mm]


def near(points: Points, others: Points, limit_mm: float) -> NDArray[np.bool_]:
    """Whether each of `points` (n, 3) has one of `others` (m, 3) within `limit_mm`."""
    if not len(points) or not len(others):
        return np.zeros(len(points), bool)
    return np.asarray((cdist(points, others) <= limit_mm).any(axis=1))
