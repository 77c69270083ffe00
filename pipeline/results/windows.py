"""How are values displayed? Windows for SWI and phase."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Values = NDArray[np.float32]


@dataclass(frozen=True)
class GreyWindow:
    """Values shown as black and as white."""

    low: float
    high: float

    def grey(self, values: Values) -> Image.Image:
        """Show values (rows, columns) as 8-bit grey; what is not a number is black."""
        scaled = (np.nan_to_num(values, nan=self.low) - self.low) / (self.high - self.low) * 255
        return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


def swi_window(array: Values) -> GreyWindow:
    """Window of an SWI: air black, the brightest of the head white, as in the picture that goes to the PACS."""
    sample = array[::2, ::2, ::2]
    foreground = sample[sample > air_level(array)]
    low, high = np.percentile(foreground, (0.5, 99.7)) if foreground.size else (0.0, 1.0)
    low = min(float(low), 0.1 * float(high))
    return GreyWindow(low, max(float(high), low + 1e-6))


def phase_window(phase: Values, swi: Values) -> GreyWindow:
    """Window of a phase in radians, symmetric about 0: paramagnetic (blood) bright, diamagnetic (calcium) dark."""
    part = (slice(None, None, 2),) * 3
    values = np.abs(phase[part][swi[part] > air_level(swi)])
    reach = 1.5 * float(np.percentile(values, 98)) if values.size else math.pi
    reach = min(max(reach, 0.1), math.pi)
    return GreyWindow(-reach, reach)


def air_level(array: Values) -> float:
    """Value that tissue exceeds and air does not."""
    return 0.15 * float(np.percentile(array[::2, ::2, ::2], 99))
