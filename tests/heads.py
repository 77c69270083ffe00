"""A small head with three bleeds, quick to analyse: stored SWI and magnitude, and phase in radians."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPE = (24, 96, 96)
SPACING = (1.8, 1.8, 2.0)
BLEEDS = ((40, 40, 12), (50, 60, 14), (62, 50, 9))
"""Voxels (i, j, k) of their centres."""


@cache
def small_head() -> tuple[NDArray[np.uint16], NDArray[Any]]:
    """Draw the SWI (also good as magnitude) and the phase, both ``[slice, row, column]``."""
    k, j, i = np.mgrid[tuple(slice(n) for n in SHAPE)]
    z, y, x = ((a - n / 2) / (n / 2) for a, n in zip((k, j, i), SHAPE, strict=True))
    radius = np.sqrt(x**2 / 0.7 + y**2 / 0.85 + z**2 / 0.9)
    image = np.where(radius < 0.8, 600.0, np.where(radius < 0.9, 40.0, np.where(radius < 1.0, 800.0, 10.0)))
    phase = np.zeros(SHAPE)
    for at in BLEEDS:
        offsets = (np.array([i - at[0], j - at[1], k - at[2]]).T * SPACING).T
        near = np.sqrt((offsets**2).sum(axis=0)) < 4
        image, phase = np.where(near, 60.0, image), np.where(near, 1.0, phase)
    noisy = np.clip(image + np.random.default_rng(5).normal(0, 12, SHAPE), 0, 4000).astype(np.uint16)
    noisy.setflags(write=False)
    return noisy, phase
