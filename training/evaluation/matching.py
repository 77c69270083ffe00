"""Which candidate is which microbleed? Greedy by score, within 5 mm, one candidate a microbleed (VALDO 2021).

The rule is that of Sudre et al. 2024, Medical Image Analysis 91:103029. Training chooses epochs and thresholds by it,
evaluation reports by it. It needs numpy alone, so it runs where there are no DICOM packages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
MATCH_MM = 5.0
FREE = -1
"""In place of a number: a candidate that is no microbleed."""


def match(
    points: Points,
    scores: NDArray[np.float64],
    microbleeds: Points,
    visible: NDArray[np.bool_],
    within_mm: float = MATCH_MM,
) -> NDArray[np.int64]:
    """Number of the microbleed that each candidate is, or ``FREE``.

    A candidate takes the nearest microbleed within reach that no stronger candidate has taken, a visible one if there
    is any. What the first n take does not depend on those after them, so one run serves every threshold.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
        Candidates, mm.
    scores : ndarray, shape (n,)
        The strongest candidate chooses first.
    microbleeds : ndarray, shape (m, 3)
        Their centres, mm.
    visible : ndarray of bool, shape (m,)
        Whether a reader could see them.
    within_mm : float
        A candidate farther away is not that microbleed.
    """
    taken = np.full(len(points), FREE, np.int64)
    free = np.ones(len(microbleeds), bool)
    for n in np.argsort(-np.asarray(scores), kind="stable"):
        distance = np.linalg.norm(microbleeds - points[n], axis=1)
        reach = np.flatnonzero(free & (distance <= within_mm))
        if reach.size:
            taken[n] = reach[np.lexsort((distance[reach], ~visible[reach]))[0]]
            free[taken[n]] = False
    return taken
