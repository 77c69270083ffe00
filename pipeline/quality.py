"""How good are the images? Coverage, noise and ghosts are measured, and compared with what the profile is meant for.

Noise and ghosts are measured in the air around the head, in the magnitude if there is one. Movement between
phase-encoding steps spreads ghosts in that direction across the field of view, whereas noise is the same everywhere.
The energy in front of and behind the head is therefore compared with the energy to its sides; which of the two is the
phase-encoding direction need not be known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .findings import ImageQuality, wording
from .geometry import Acquisition, Geometry, Volume
from .parameters import QualityParameters
from .profile import Profile

Mask = NDArray[np.bool_]
Plane = NDArray[np.float32]

_SLICES: Final = 24  # evenly spaced; more do not change the result
_AREA: Final = 0.25  # of the largest section: excludes the neck
_HEAD_GAP_MM: Final = 12.0
_SMOOTH_MM: Final = 2.0  # so that noise is not mistaken for head
_LEAST_PIXELS: Final = 300
_LEAST_SLICES: Final = 3
_TRIM: Final = 0.9
# Mean of the lowest 90 % of an exponential distribution, which the energy of noise in air follows (Gudbjartsson 1995).
_TRIMMED_MEAN: Final = 1 + (1 - _TRIM) * math.log(1 - _TRIM) / _TRIM
_LEAST_NOISE: Final = 0.002  # of the brain; less is not air but a masked background
# The phase mask darkens half of what has random phase: E[mask^2n] = 1/2 + 1/(4n + 2), about 0.56 for any usual n.
# With the trimming, 0.72 (0.70 to 0.74 in 32 simulated scans) of the noise in air is left.
_MASKED_NOISE: Final = 0.72
_CORE_MM: Final = 8.0
_SECOND_DIFFERENCE: Final = np.array([1, -2, 1], np.float32)


class Noise(NamedTuple):
    """Median of the brain over the noise, where the noise was measured, and how unequal the air around the head is."""

    snr: float
    where: str
    unequal: float | None


def assess(
    acquisition: Acquisition, brain: Mask, profile: Profile, coverage: float | None = None
) -> tuple[ImageQuality, list[str]]:
    """Measure the images, and say in short sentences what a reader must know about them.

    Parameters
    ----------
    acquisition : Acquisition
        The images.
    brain : ndarray of bool
        The brain, on the grid of the SWI.
    profile : Profile
        What it is meant for, and its thresholds.
    coverage : float, optional
        Share of the brain inside the slices, where it is known.
    """
    geometry = acquisition.swi.geometry
    noise = measure_noise(acquisition, brain)
    i, j, k = geometry.spacing
    quality = ImageQuality(
        in_plane_mm=round(max(i, j), 3),
        slice_mm=round(k, 3),
        coverage=coverage,
        snr=None if noise is None else round(noise.snr, 1),
        snr_from=None if noise is None else noise.where,
        motion=None if noise is None or noise.unequal is None else round(noise.unequal, 2),
    )
    limits = profile.quality
    return quality, [*outside(acquisition, profile), *cut_off(brain, geometry, limits), *remarks(quality, limits)]


def remarks(quality: ImageQuality, limits: QualityParameters) -> list[str]:
    """Say which measures are beyond the limits."""
    found = []
    if quality.coverage is not None and quality.coverage < limits.least_coverage:
        found.append(f"{wording.COVER} {100 * quality.coverage:.0f} % of the brain: the rest was not analysed")
    if quality.snr is not None and quality.snr < limits.least_snr:
        found.append(f"{wording.NOISY} (SNR {quality.snr:.0f}): small microbleeds may be missed")
    if quality.motion is not None and quality.motion > limits.most_motion:
        found.append(f"{wording.MOTION} (ghosts beside the head, {quality.motion:.1f} times the background)")
    return found


def cut_off(brain: Mask, geometry: Geometry, limits: QualityParameters) -> list[str]:
    """Say at which ends the slices stop inside the brain."""
    areas = brain.sum(axis=(1, 2))
    if not areas.any():
        return []
    up = geometry.direction[:, 2]
    axis = int(np.argmax(np.abs(up)))
    names = ("right", "left"), ("front", "back"), ("bottom", "top")
    low, high = names[axis] if up[axis] > 0 else names[axis][::-1]
    return [
        f"{wording.END_INSIDE} at its {name}: what lies beyond was not analysed"
        for name, area in ((low, areas[0]), (high, areas[-1]))
        if area > limits.cut_area * areas.max()
    ]


def outside(acquisition: Acquisition, profile: Profile) -> list[str]:
    """Say which properties of the images are outside the range that the profile is meant for."""
    i, j, k = acquisition.swi.geometry.spacing
    suits = profile.suits
    return [
        f"{what} {size:.2f} {unit} {wording.OUT_OF_RANGE} {span[0]:g} to {span[1]:g} {unit} "
        f"that profile {profile.name} is meant for"
        for what, size, unit, span in (
            ("voxel size", round(max(i, j), 2), "mm", suits.in_plane_mm),
            ("slice step", round(k, 2), "mm", suits.slice_mm),
            ("field strength", acquisition.field_strength_t, "T", suits.field_strength_t),
            ("echo time", acquisition.echo_time_ms, "ms", suits.echo_time_ms),
        )
        if size is not None and span is not None and not span[0] <= size <= span[1]
    ]


def measure_noise(acquisition: Acquisition, brain: Mask) -> Noise | None:
    """Measure the noise in air, or else in the brain; ``None`` where there is neither."""
    if not brain.any():
        return None
    swi = acquisition.swi
    masked = 1.0 if acquisition.sequence == "t2star" else _MASKED_NOISE
    for image, factor in ((acquisition.magnitude, 1.0), (swi, masked)):
        if image is not None and (energies := air_energies(image, brain)) is not None:
            level = float(np.median(image.array[brain]))
            sd = math.sqrt(min(energies) / 2) / factor
            return Noise(level / sd, "air", max(energies) / min(energies))
    sd_inside = noise_in_brain(swi, brain)
    return None if sd_inside is None else Noise(float(np.median(swi.array[brain])) / sd_inside, "brain", None)


def noise_in_brain(image: Volume, brain: Mask) -> float | None:
    """Noise from the second differences in the core of the brain.

    The mask of Immerkaer (1996, Comput Vis Image Underst 64:300), which takes edges and slopes out, with the median
    absolute deviation in place of the mean, so that vessels count little.
    """
    i, j, _ = image.geometry.spacing
    values = []
    for k in _sections(brain):
        core = ndimage.distance_transform_edt(brain[k], sampling=(j, i)) > _CORE_MM
        if core.sum() >= _LEAST_PIXELS:
            rows = ndimage.correlate1d(image.array[k], _SECOND_DIFFERENCE, axis=0)
            both = ndimage.correlate1d(rows, _SECOND_DIFFERENCE, axis=1)
            values.append(float(np.median(np.abs(both[core]))) / 0.6745 / 6)
    sd = float(np.median(values)) if values else 0.0
    return sd if sd > 0 else None


def air_energies(image: Volume, brain: Mask) -> tuple[float, float] | None:
    """Mean square of the air in front of and behind the head (along index j), and to its sides (along i).

    ``None`` if too little air is in view or it was blanked. Without ghosts each is twice the variance of the noise in
    the magnitude of one complex channel (Gudbjartsson and Patz 1995, Magn Reson Med 34:910); where several channels
    were combined it is more, and the signal-to-noise ratio comes out lower.
    """
    level = float(np.median(image.array[brain]))
    found = [pair for k in _sections(brain) if (pair := _plane_energies(image, brain, k, level)) is not None]
    if len(found) < _LEAST_SLICES:
        return None
    along_j, along_i = (float(v) for v in np.median(found, axis=0))
    return (along_j, along_i) if min(along_j, along_i) > (_LEAST_NOISE * level) ** 2 else None


def _sections(brain: Mask) -> list[int]:
    areas = brain.sum(axis=(1, 2))
    whole = np.flatnonzero(areas >= max(1, _AREA * areas.max()))
    return sorted({int(whole[round(n)]) for n in np.linspace(0, len(whole) - 1, _SLICES)})


def _plane_energies(image: Volume, brain: Mask, k: int, level: float) -> tuple[float, float] | None:
    i_mm, j_mm, _ = image.geometry.spacing
    plane = image.array[k]
    smooth = ndimage.gaussian_filter(plane, (_SMOOTH_MM / j_mm, _SMOOTH_MM / i_mm))
    head = smooth > max(0.2 * level, 2 * float(np.percentile(smooth, 2)))
    along_j = _energy(plane, head, brain[k], round(_HEAD_GAP_MM / j_mm))
    along_i = _energy(plane.T, head.T, brain[k].T, round(_HEAD_GAP_MM / i_mm))
    return None if along_j is None or along_i is None else (along_j, along_i)


def _energy(plane: Plane, head: Mask, brain: Mask, gap: int) -> float | None:
    """Trimmed mean square of the air before and after the head, in the columns that cross the brain."""
    values = np.concatenate(list(_air(plane, head, brain, gap)) or [np.zeros(0, np.float32)])
    if values.size < _LEAST_PIXELS:
        return None
    energy = np.sort(values.astype(np.float64) ** 2)[: int(_TRIM * values.size)]
    return float(energy.mean() / _TRIMMED_MEAN)


def _air(plane: Plane, head: Mask, brain: Mask, gap: int) -> Iterator[Plane]:
    for column in np.flatnonzero(brain.any(axis=0)):
        inside = np.flatnonzero(head[:, column])
        if inside.size:
            yield plane[1 : max(1, inside[0] - gap), column]  # the outermost pixel may be padding
            yield plane[inside[-1] + 1 + gap : -1, column]
