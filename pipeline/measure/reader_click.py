"""What lies at a place that a reader marks? The dark region there, if it can be measured, and whether it is brain."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.candidates import Candidate
from pipeline.geometry import Volume

from .region import MeasureParameters, Region, grow

SPHERE_MM: Final = 4.0
"""Diameter of the sphere that represents a microbleed that cannot be measured."""
CLEAR: Final = 4.0
"""The least contrast, in multiples of the noise, at which a dark region is measured: plain tissue has darker voxels of
2 to 3 times the noise near any place."""
WIDER: Final = 1.5
"""How far the region may grow, in multiples of the largest microbleed: the click may be at its edge."""
BESIDE_MM: Final = 3.0
"""A place so near to the brain belongs to it: a microbleed on the surface can make a notch in the mask."""

Index = tuple[float, float, float]


def measure_marked(at: Index, swi: Volume, brain: NDArray[np.bool_], parameters: MeasureParameters) -> Region | None:
    """Grow from a click at the voxel `at`, and again from the centre of the region found: a click is rarely central.

    ``None`` if the region does not stand out from the noise, is not bounded, or is too large for a microbleed.
    """
    wide = parameters.model_copy(update={"largest_mm": WIDER * parameters.largest_mm})
    region = None
    for _ in range(2):
        region = grow(Candidate(at, 1.0), swi, brain, wide)
        if region is None or region.contrast < CLEAR * region.noise:
            return None
        at = region.centroid_ijk
    fits = region is not None and region.bounded and region.diameter_mm <= parameters.largest_mm
    return region if fits else None


def in_brain(at: Index, brain: NDArray[np.bool_], spacing: tuple[float, float, float]) -> bool:
    """Whether the voxel `at` lies in the brain or at most :data:`BESIDE_MM` beside it."""
    centre, steps = np.asarray(at[::-1]), np.asarray(spacing[::-1])
    reach = BESIDE_MM / steps
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, brain.shape).astype(int)
    if (high <= low).any():
        return False
    near = np.argwhere(brain[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    distance = np.sqrt((((near + low - centre) * steps) ** 2).sum(axis=1))
    return bool((distance <= BESIDE_MM).any())
