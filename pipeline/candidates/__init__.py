"""Where might a microbleed be? One module per method, each with ``Parameters`` and ``propose``.

A method is found by its module's name: a profile that says ``method = "frst"`` uses ``pipeline.candidates.frst``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A place that may be a microbleed.

    Parameters
    ----------
    ijk : tuple of float
        Voxel coordinates ``(i, j, k)`` (column, row, slice), fractional.
    score : float
        Higher is more like a microbleed; the scale depends on the method.
    """

    ijk: tuple[float, float, float]
    score: float
