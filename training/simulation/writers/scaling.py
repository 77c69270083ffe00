"""How are floating-point images stored as whole numbers, vendor by vendor?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
UInt16 = NDArray[np.uint16]
WHITE_LEVEL = 340.0
"""Stored value of white matter in magnitude and SWI."""


def intensity(image: Float32, white_level: float = WHITE_LEVEL) -> UInt16:
    """Magnitude or SWI, whose white matter is 1, as 12 bits."""
    return np.asarray(np.clip(np.round(image * white_level), 0, 4095), dtype=np.uint16)


def siemens_phase(phase: Float32, step: int = 1) -> UInt16:
    """Phase in 0…4095 for slope 2 and intercept −4096, where ±4096 is ±π; `step` coarsens it."""
    stored = np.round((phase / np.pi * 4096 + 4096) / 2 / step) * step
    return np.asarray(np.clip(stored, 0, 4095), dtype=np.uint16)


MILLIRADIANS_SLOPE, MILLIRADIANS_INTERCEPT = 1.53455, -3142.0


def milliradians(phase: Float32) -> UInt16:
    """Phase in 0…4095 for slope 1.53455 and intercept −3142, milliradians."""
    return np.asarray(
        np.clip(np.round((phase * 1000 - MILLIRADIANS_INTERCEPT) / MILLIRADIANS_SLOPE), 0, 4095), dtype=np.uint16
    )


def signed_phase(phase: Float32, top: int) -> NDArray[np.int16]:
    """Phase in ±`top` for ±π, signed."""
    return np.asarray(np.clip(np.round(phase / np.pi * top), -top, top), dtype=np.int16)
