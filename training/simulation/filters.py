"""How do scanners make SWI of magnitude and phase? High-pass phase, mask, and minimum-intensity projection.

The homodyne filter and the linear mask are the pipeline's own; the other filters and masks are imitated here.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage
from skimage.restoration import unwrap_phase

from pipeline.read.swi import divided_phase, hann_window, phase_mask

from .protocol import MaskShape, PhaseFilter, SwiFilter

Complex64 = NDArray[np.complex64]
Float32 = NDArray[np.float32]


def unwrapped_phase(
    magnitude: Float32, raw: Float32, sigma_mm: float, spacing_mm: tuple[float, float, float]
) -> Float32:
    """Phase unwrapped slice by slice (Herráez 2002) less its Gaussian average in the head, radians clipped to ±π."""
    head = magnitude > 0.15 * float(np.percentile(magnitude, 95))
    sigma = (sigma_mm / spacing_mm[1], sigma_mm / spacing_mm[0])
    phase = raw.copy()
    for k in range(len(raw)):
        mask = np.asarray(ndimage.binary_fill_holes(ndimage.binary_opening(head[k])))
        if not mask.any():
            continue
        flat = np.ma.array(raw[k], mask=~mask)
        smooth = np.ma.filled(unwrap_phase(flat), 0).astype(np.float32)
        weight = mask.astype(np.float32)
        low = ndimage.gaussian_filter(smooth * weight, sigma) / np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-3)
        phase[k] = np.where(mask, np.clip(smooth - low, -np.pi, np.pi), raw[k])
    return phase


def filtered_phase(
    image: Complex64, magnitude: Float32, raw: Float32, how: SwiFilter, spacing_mm: tuple[float, float, float]
) -> Float32:
    """High-pass phase by the protocol's filter, of an image and its magnitude and phase; radians, paramagnetic > 0."""
    if how.kind is PhaseFilter.UNWRAP:
        return unwrapped_phase(magnitude, raw, how.sigma_mm, spacing_mm)
    if how.kind is PhaseFilter.HOMODYNE:
        return _homodyne(magnitude, raw, how.width)
    frequency = [np.abs(scipy.fft.fftfreq(n, 1 / n)) for n in image.shape[1:]]
    if how.kind is PhaseFilter.BUTTERWORTH:
        window = 1 / (1 + (np.hypot(frequency[0][:, None], frequency[1][None]) / (how.width / 4)) ** 4)
    else:
        extent = [n * step for n, step in zip(image.shape[1:], spacing_mm[1::-1], strict=True)]
        axes = [np.exp(-2 * (np.pi * how.sigma_mm * f / fov) ** 2) for f, fov in zip(frequency, extent, strict=True)]
        window = np.outer(*axes)
    phase = np.empty(image.shape, dtype=np.float32)
    for k, one in enumerate(image):
        phase[k] = _divided(one, window.astype(np.float32))
    return phase


@njit(cache=True)
def _turn(phase, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for j in range(phase.shape[0]):
        for i in range(phase.shape[1]):
            out[j, i] = complex(math.cos(phase[j, i]), math.sin(phase[j, i]))


def _homodyne(magnitude: Float32, raw: Float32, width: int) -> Float32:
    """As :func:`pipeline.read.swi.high_pass_phase`, but for a faster exponential."""
    window = hann_window((raw.shape[1], raw.shape[2]), width)
    unit, phase = np.empty(raw.shape[1:], dtype=np.complex64), np.empty_like(raw)
    for k, one in enumerate(raw):
        _turn(one, unit)
        phase[k] = divided_phase(unit, unit * magnitude[k], window)
    return phase


def _divided(image: Complex64, window: Float32) -> Float32:
    """Phase of one slice over its own low-pass."""
    low = scipy.fft.ifft2(scipy.fft.fft2(image) * window)
    return np.asarray(np.angle(image * np.conj(low)), dtype=np.float32)


def shaped_mask(phase: Float32, shape: MaskShape) -> Float32:
    """Phase mask: 1 where blood does not show, falling to 0 at π; a triangle falls with either sign of the phase."""
    turn = np.clip(phase, 0, np.pi) / np.pi
    if shape is MaskShape.COSINE:
        mask = np.cos(np.pi / 2 * turn) ** 2
    elif shape is MaskShape.SIGMOID:
        mask = 1 / (1 + np.exp(10 * (turn - 0.4)))
    elif shape is MaskShape.TRIANGLE:
        mask = 1 - np.clip(np.abs(phase), 0, np.pi) / np.pi
    else:
        return phase_mask(phase)
    return np.asarray(mask, dtype=np.float32)


def weighted(magnitude: Float32, phase: Float32, how: SwiFilter) -> Float32:
    """SWI: magnitude times the phase mask to a power (Haacke 2004)."""
    swi = np.empty(magnitude.shape, dtype=np.float32)
    for k, plane in enumerate(magnitude):
        swi[k] = plane * shaped_mask(phase[k], how.mask or MaskShape.LINEAR) ** how.power
    return swi


def minimum_projection(swi: Float32, slices: int) -> Float32:
    """Sliding minimum over `slices` slices; there are ``slices − 1`` fewer results than slices."""
    slices = min(max(slices, 1), swi.shape[0])
    result, covered = swi, 1
    while covered < slices:  # two minima over n slices make one over up to 2n
        step = min(covered, slices - covered)
        result = np.minimum(result[:-step], result[step:])
        covered += step
    return result
