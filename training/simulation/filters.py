"""How do scanners make SWI of magnitude and phase? High-pass phase, mask, and minimum-intensity projection."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal.windows import hann
from skimage.restoration import unwrap_phase

from training.simulation.protocol import PhaseFilter, SwiFilter

Complex64 = NDArray[np.complex64]
Float32 = NDArray[np.float32]


def homodyne_phase(image: Complex64, width: int, *, workers: int = 1) -> Float32:
    """Phase after division by its own low frequencies, slice by slice (Noll 1991).

    Parameters
    ----------
    image : ndarray of complex64, shape (k, j, i)
        Complex image.
    width : int
        Width of the 2D Hann window, k-space samples.

    Returns
    -------
    ndarray of float32
        Radians, −π to π.
    """
    _, nj, ni = image.shape
    window = np.zeros((nj, ni), dtype=np.float32)
    wj, wi = min(width, nj), min(width, ni)
    small = np.outer(hann(wj + 1)[:wj], hann(wi + 1)[:wi]).astype(np.float32)
    j0, i0 = (nj - wj + 1) // 2, (ni - wi + 1) // 2
    window[j0 : j0 + wj, i0 : i0 + wi] = small
    window = scipy.fft.ifftshift(window)
    phase = np.empty(image.shape, dtype=np.float32)
    for k in range(image.shape[0]):
        low = scipy.fft.ifft2(scipy.fft.fft2(image[k], workers=workers) * window, workers=workers)
        phase[k] = np.angle(image[k] * np.conj(low))
    return phase


def unwrapped_phase(image: Complex64, sigma_mm: float, spacing_mm: tuple[float, float, float]) -> Float32:
    """Phase unwrapped slice by slice (Herráez 2002) less its Gaussian average within the head, radians clipped to ±π."""
    magnitude = np.abs(image)
    head = magnitude > 0.15 * float(np.percentile(magnitude, 95))
    sigma = (sigma_mm / spacing_mm[1], sigma_mm / spacing_mm[0])
    phase = np.zeros(image.shape, dtype=np.float32)
    for k in range(image.shape[0]):
        mask = np.asarray(ndimage.binary_fill_holes(ndimage.binary_opening(head[k])))
        if not mask.any():
            phase[k] = np.angle(image[k])
            continue
        flat = np.ma.array(np.angle(image[k]), mask=~mask)
        smooth = np.ma.filled(unwrap_phase(flat), 0).astype(np.float32)
        weight = mask.astype(np.float32)
        low = ndimage.gaussian_filter(smooth * weight, sigma) / np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-3)
        phase[k] = np.where(mask, np.clip(smooth - low, -np.pi, np.pi), np.angle(image[k]))
    return phase


def filtered_phase(
    image: Complex64, how: SwiFilter, spacing_mm: tuple[float, float, float], *, workers: int = 1
) -> Float32:
    """High-pass phase by the protocol's filter, paramagnetic positive."""
    if how.kind is PhaseFilter.UNWRAP:
        return unwrapped_phase(image, how.sigma_mm, spacing_mm)
    return homodyne_phase(image, how.width, workers=workers)


def weighted(magnitude: Float32, phase: Float32, power: int) -> Float32:
    """SWI: magnitude times the phase mask, 1 − φ⁺/π, to the `power` (Haacke 2004)."""
    mask = 1 - np.clip(phase, 0, np.pi) / np.float32(np.pi)
    return np.asarray(magnitude * mask**power, dtype=np.float32)


def minimum_projection(swi: Float32, slices: int) -> Float32:
    """Sliding minimum over `slices` slices; there are ``slices − 1`` fewer results than slices."""
    slices = min(max(slices, 1), swi.shape[0])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(swi, slices, axis=0).min(axis=-1), dtype=np.float32)
