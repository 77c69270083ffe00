"""Where is a response highest? Peaks of a volume, for the methods that compute a response."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from . import Candidate

FloatVolume = NDArray[np.float32]


def strongest_peaks(
    response: FloatVolume,
    inside: NDArray[np.float32],
    spacing: tuple[float, float, float],
    *,
    unit_percentile: float,
    keep_percentile: float,
    separation_mm: float,
    most: int,
) -> list[Candidate]:
    """Read candidates off a response, strongest first.

    Parameters
    ----------
    response : ndarray of float32, shape (slices, rows, columns)
        At least 0.
    inside : ndarray of float32, shape (n,)
        The response in the brain, from which the percentiles are computed.
    spacing : tuple of float
        Voxel size along ``(i, j, k)``, mm.
    unit_percentile, keep_percentile : float
        Percentile that is the unit of the score, and percentile below which nothing is a candidate.
    separation_mm : float
        Of two peaks closer than this, the higher is kept; at least one slice.
    most : int
        Largest number of candidates.
    """
    if not inside.size or inside.max() <= 0:
        return []
    unit = float(np.percentile(inside, unit_percentile)) or float(inside.max())
    threshold = float(np.percentile(inside, keep_percentile))
    peaks = _peaks(response, threshold, spacing, separation_mm)
    scores = response[tuple(peaks.T)] / unit
    order = np.lexsort((*peaks.T, -scores))[:most]
    return [Candidate(_refine(response, peaks[n]), float(scores[n])) for n in order]


def _peaks(
    response: FloatVolume, threshold: float, spacing: tuple[float, float, float], separation_mm: float
) -> NDArray[np.intp]:
    """Voxels ``(k, j, i)`` that are highest in their neighbourhood: in their slice and in the adjacent slices."""
    i, j, k = (max(1, round(separation_mm / step)) for step in spacing)
    highest = ndimage.maximum_filter(response, size=(2 * k + 1, 2 * j + 1, 2 * i + 1))
    return np.argwhere((response == highest) & (response > max(threshold, 0.0)))


def _refine(response: FloatVolume, peak: NDArray[np.intp]) -> tuple[float, float, float]:
    """Centre of the response within a voxel of the peak, as ``(i, j, k)``."""
    low = np.maximum(peak - 1, 0)
    box = response[tuple(slice(a, b + 2) for a, b in zip(low, peak, strict=True))].astype(np.float64)
    k, j, i = (low + np.asarray(ndimage.center_of_mass(box))).tolist()
    return i, j, k
