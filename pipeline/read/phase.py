"""What does a stored phase value mean? Its scale to radians, and the sign of paramagnetic blood.

The scale follows from what the header declares, never from the range of the values: a scan without strong phase must
not be stretched. The sign of a manufacturer's *filtered* phase is not documented, so it is measured in each study on
dark structures (veins), with the manufacturer's convention for raw phase as a weak prior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import InputError

from .decoding import Encoding
from .swi import high_pass_phase

PRIOR_SIGN = {"siemens": 1, "philips": 1, "ge": -1}
"""Sign of paramagnetic blood in the raw phase, by manufacturer; the two conventions that QSM toolboxes know."""

HIGH_PASS_WIDTH = 32
NEIGHBOURHOOD_MM = 6.0
DARK = 0.2
MIN_DARK_VOXELS = 50
MIN_SCORE = 4.0
VOXELS_PER_STRUCTURE = 10
MAX_SLICES = 16
OVERFLOW = 1.05


@dataclass(frozen=True)
class Scale:
    """Radians are ``slope × stored + intercept``; `rule` says why, `assumed` whether no header supports it."""

    slope: float
    intercept: float
    rule: str
    assumed: bool = False


def phase_scale(encodings: list[Encoding], vendor: str) -> list[Scale]:
    """Find how stored values become radians, for each image of a series.

    Parameters
    ----------
    encodings : list of Encoding
        One per image.
    vendor : str
        Short name of the manufacturer, see :func:`pipeline.read.headers.vendor_of`.
    """
    smallest = min((e.smallest for e in encodings if e.smallest is not None), default=None)
    largest = max((e.largest for e in encodings if e.largest is not None), default=None)
    return [_scale(encoding, vendor, smallest, largest) for encoding in encodings]


def _scale(e: Encoding, vendor: str, smallest: float | None, largest: float | None) -> Scale:
    found = _by_unit(e) or _by_declared_range(e)
    if found is not None:
        return found
    if vendor == "ge":
        full = largest if largest is not None and largest > 0 else 1000 * np.pi
        return Scale(np.pi / full, 0.0, "GE: Largest Image Pixel Value is π", assumed=largest is None)
    if vendor == "uih" and smallest is not None and largest is not None and largest > smallest:
        slope = 2 * np.pi / (largest - smallest)
        return Scale(slope, -np.pi - slope * smallest, "United Imaging: Smallest to Largest Image Pixel Value is ±π")
    if vendor == "hitachi":
        return Scale(np.pi / 2048, 0.0, "Hitachi: −2048 to 2047 is ±π")
    if vendor == "siemens":
        return _by_stored_range(replace(e, bits_stored=min(e.bits_stored, 12)), assumed=False)
    return _by_stored_range(e, assumed=True)


def _by_unit(e: Encoding) -> Scale | None:
    """A unit named in a Real World Value Mapping or in Rescale Type."""
    units = {"rad": 1.0, "mrad": 1e-3, "deg": np.pi / 180}
    if e.real_world is not None and (factor := units.get(e.real_world[2])):
        slope, intercept, unit = e.real_world
        return Scale(slope * factor, intercept * factor, f"Real World Value Mapping in {unit}")
    if factor := units.get(e.rescale_type.lower()):
        return Scale(e.slope * factor, e.intercept * factor, f"Rescale Type {e.rescale_type}")
    return None


def _by_declared_range(e: Encoding) -> Scale | None:
    """A rescale (or real-world mapping) whose range is a known full circle: ±π, ±3142 milliradians or ±4096."""
    mappings = [(e.slope, e.intercept)]
    if e.real_world is not None:
        mappings.insert(0, e.real_world[:2])
    for slope, intercept in mappings:
        start = abs(intercept) if not e.signed else abs(slope * e.stored_range[0] + intercept)
        for full, factor, rule in (
            (np.pi, 1.0, "rescale to radians"),
            (1000 * np.pi, 1e-3, "rescale to milliradians (Philips)"),
            (4096.0, np.pi / 4096, "rescale to ±4096 (Siemens)"),
        ):
            if abs(start - full) < 0.002 * full:
                return Scale(slope * factor, intercept * factor, rule)
    return None


def _by_stored_range(e: Encoding, *, assumed: bool) -> Scale:
    low, high = e.stored_range
    half = (high - low + 1) / 2
    middle = low + half
    return Scale(np.pi / half, -np.pi * middle / half, f"{e.bits_stored} stored bits are ±π", assumed)


def to_radians(stored: NDArray[Any], encodings: list[Encoding], vendor: str) -> tuple[NDArray[np.float32], Scale]:
    """Convert the stored values of a phase series to radians.

    Parameters
    ----------
    stored : ndarray, shape (slices, rows, columns)
        Stored values, before any rescale.
    encodings : list of Encoding
        One per slice.
    vendor : str
        Short name of the manufacturer.

    Returns
    -------
    radians : ndarray of float32
        Within ±π up to rounding; the sign is still the manufacturer's.
    scale : Scale
        That of the first slice.

    Raises
    ------
    InputError
        The scale in the header gives values far beyond ±π, so it cannot be right.
    """
    scales = phase_scale(encodings, vendor)
    radians = np.empty(stored.shape, dtype=np.float32)
    for k, scale in enumerate(scales):
        np.multiply(stored[k], np.float32(scale.slope), out=radians[k], casting="unsafe")
        radians[k] += np.float32(scale.intercept)
    peak = float(max(radians.max(), -radians.min()))
    if peak > OVERFLOW * np.pi:
        raise InputError(f"phase values reach {peak:.1f} rad by the rule '{scales[0].rule}', which cannot be right")
    return radians, replace(scales[0], assumed=any(scale.assumed for scale in scales))


def complex_phase(real: NDArray[np.float32], imaginary: NDArray[np.float32]) -> tuple[NDArray[np.float32], bool]:
    """Phase of a complex image that is stored as its real and its imaginary part.

    GE's reconstruction leaves the signs of alternate slices of a 3D acquisition opposite, which shifts their phase by
    π. If neighbouring slices have opposite rather than equal signs, every other slice is inverted.

    Parameters
    ----------
    real, imaginary : ndarray of float32, shape (slices, rows, columns)

    Returns
    -------
    radians : ndarray of float32
        Within ±π.
    turned : bool
        Whether alternate slices were inverted.
    """
    sum_ = sum(
        float(np.vdot(real[k], real[k + 1]) + np.vdot(imaginary[k], imaginary[k + 1])) for k in range(len(real) - 1)
    )
    flips = np.ones((len(real), 1, 1), dtype=np.float32)
    if sum_ < 0:
        flips[1::2] = -1
    return np.arctan2(imaginary * flips, real * flips), sum_ < 0


@dataclass(frozen=True)
class Sign:
    """Sign of paramagnetic blood in a phase image.

    `measured` tells whether the veins decided; `score` is the difference between dark structures and tissue in
    standard errors.
    """

    sign: int
    measured: bool
    score: float


def paramagnetic_sign(
    phase: NDArray[np.float32], image: NDArray[np.float32], spacing: tuple[float, float, float], vendor: str = ""
) -> Sign:
    """Find which sign of the phase is paramagnetic: the one that dark structures within bright tissue have.

    Parameters
    ----------
    phase : ndarray of float32, shape (slices, rows, columns)
        Radians.
    image : ndarray of float32, same shape
        The SWI, in which veins are dark, or the magnitude.
    spacing : tuple of float
        Along (i, j, k), mm.
    vendor : str
        Short name of the manufacturer, for the convention if too few veins are seen.
    """
    count = len(image)
    chosen = np.unique(np.linspace(count * 0.25, count * 0.75, min(count, MAX_SLICES)).astype(int).clip(0, count - 1))
    window = (max(3, round(NEIGHBOURHOOD_MM / spacing[1])), max(3, round(NEIGHBOURHOOD_MM / spacing[0])))
    filtered = high_pass_phase(phase[chosen], image[chosen], HIGH_PASS_WIDTH)
    values, weights, rest = [], [], []
    for slice_, hp in zip(image[chosen], filtered, strict=True):
        local = ndimage.uniform_filter(slice_, window)
        tissue = ndimage.minimum_filter(local, window) > 0.4 * np.percentile(local, 95)
        darkness = np.where(local > 0, 1 - slice_ / np.maximum(local, 1e-6), 0)
        dark = tissue & (darkness > DARK)
        values.append(hp[dark])
        weights.append(darkness[dark])
        rest.append(hp[tissue & ~dark])
    return _weigh(np.concatenate(values), np.concatenate(weights), np.concatenate(rest), PRIOR_SIGN.get(vendor, 1))


def _weigh(dark: NDArray[Any], weights: NDArray[Any], tissue: NDArray[Any], prior: int) -> Sign:
    if len(dark) < MIN_DARK_VOXELS or not len(tissue):
        return Sign(prior, measured=False, score=0.0)
    difference = float(np.average(dark, weights=weights) - tissue.mean())
    error = float(dark.std() / np.sqrt(len(dark) / VOXELS_PER_STRUCTURE)) or 1e-9
    score = difference / error
    if abs(score) < MIN_SCORE:
        return Sign(prior, measured=False, score=score)
    return Sign(1 if score > 0 else -1, measured=True, score=score)
