"""Which candidates are real? One module per learned method, each with ``Parameters`` and ``score``.

A method is found by its module's name: a profile that says ``method = "cnn3d"`` uses ``pipeline.classifiers.cnn3d``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Scores(NamedTuple):
    """What a classifier says of ``n`` candidates.

    Parameters
    ----------
    probability : ndarray, shape (n,)
        That each is a microbleed, with all that is known.
    odds : ndarray, shape (n,), or None
        Log odds of the classifier's network alone, without the candidate's own score and not calibrated.
    """

    probability: NDArray[np.float64]
    odds: NDArray[np.float64] | None = None
