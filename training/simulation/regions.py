"""Which part of the brain is a point in? A coarse parcellation of MNI space into the regions of MARS (Gregoire 2009).

Boundaries are planes and boxes read off the ICBM152 template: good enough to say where a simulated lesion was put,
not an atlas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

REGIONS = ("lobar", "deep", "infratentorial")


def _infratentorial(x: float, y: float, z: float) -> str | None:
    """Brainstem or cerebellum; `x` is the distance from the midline, RAS axes."""
    if x < 19 and -46 < y < -6 and z < -12 - 0.25 * max(0.0, y + 30):
        return "brainstem"
    tentorium = -1 - 0.17 * max(0.0, -y - 40) - 0.42 * max(0.0, x - 8)
    if y < -32 and z < tentorium and z < -2:
        return "cerebellum"
    return None


def _deep(x: float, y: float, z: float, depth_mm: float) -> str | None:
    """Deep grey or white matter; `depth_mm` is the distance from the cortex."""
    if x < 24 and -36 < y < -2 and -4 < z < 20 and x < 20 + 0.2 * (y + 36):
        return "thalamus"
    if 6 < x < 36 and -16 < y < 24 and -12 < z < 20:
        return "basal ganglia"
    if x < 16 and -48 < y < 36 and 8 < z < 32 and depth_mm > 4:
        return "corpus callosum"
    if depth_mm > 9 and x < 40 and -62 < y < 50 and -6 < z < 44:
        return "deep white matter"
    return None


def _lobe(x: float, y: float, z: float) -> str:
    if 28 < x < 46 and -20 < y < 22 and -14 < z < 18:
        return "insula"
    if z < 6 + 0.45 * max(0.0, -y - 20) and y > -62 and (y < 12 or z < -22) and (x > 22 or z < -14):
        return "temporal"
    if y < -68 + 0.45 * max(0.0, z - 12) and z < 48:
        return "occipital"
    if y < -22 - 0.25 * max(0.0, 60 - z) * (x < 30):
        return "parietal"
    return "frontal"


def region_of(mni: NDArray[np.float64], depth_mm: float) -> tuple[str, str, str]:
    """Region, location and side of one point.

    Parameters
    ----------
    mni : ndarray, shape (3,)
        LPS-oriented MNI coordinates, mm.
    depth_mm : float
        Distance from the nearest cortical surface or fluid outside the ventricles.

    Returns
    -------
    tuple of str
        ``lobar | deep | infratentorial``, the lobe or structure, and ``left | right | midline``.
    """
    left, y, z = float(mni[0]), -float(mni[1]), float(mni[2])
    x = abs(left)
    side = "midline" if x < 2.5 else ("left" if left > 0 else "right")
    if (below := _infratentorial(x, y, z)) is not None:
        return "infratentorial", below, side
    if (inner := _deep(x, y, z, depth_mm)) is not None:
        return "deep", inner, side
    return "lobar", _lobe(x, y, z), side
