"""Where might a bleed be? One module a method, each with ``Parameters`` and ``propose``.

A method is found by its module's name: a profile that says ``method = "frst"`` gets ``pipeline.candidates.frst``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A place that may be a bleed.

    Parameters
    ----------
    ijk : tuple of float
        Voxel coordinates ``(i, j, k)`` (column, row, slice), fractional.
    score : float
        Higher is more bleed-like; the scale is the method's own.
    """

    ijk: tuple[float, float, float]
    score: float
