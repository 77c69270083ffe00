"""How do scanners make SWI of magnitude and phase? High-pass phase, mask, and minimum-intensity projection.

The homodyne filter and the mask are the pipeline's own; scanners that unwrap first are imitated here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.restoration import unwrap_phase

from pipeline.swi import high_pass_phase, phase_mask
from training.simulation.protocol import PhaseFilter, SwiFilter

Complex64 = NDArray[np.complex64]
Float32 = NDArray[np.float32]


def unwrapped_phase(image: Complex64, sigma_mm: float, spacing_mm: tuple[float, float, float]) -> Float32:
    """Phase unwrapped slice by slice (Herráez 2002) less its Gaussian average in the head, radians clipped to ±π."""
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


def filtered_phase(image: Complex64, how: SwiFilter, spacing_mm: tuple[float, float, float]) -> Float32:
    """High-pass phase by the protocol's filter, radians, paramagnetic positive."""
    if how.kind is PhaseFilter.UNWRAP:
        return unwrapped_phase(image, how.sigma_mm, spacing_mm)
    return high_pass_phase(np.angle(image), np.abs(image), how.width)


def weighted(magnitude: Float32, phase: Float32, power: int) -> Float32:
    """SWI: magnitude times the phase mask to the `power` (Haacke 2004)."""
    return np.asarray(magnitude * phase_mask(phase) ** power, dtype=np.float32)


def minimum_projection(swi: Float32, slices: int) -> Float32:
    """Sliding minimum over `slices` slices; there are ``slices − 1`` fewer results than slices."""
    slices = min(max(slices, 1), swi.shape[0])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(swi, slices, axis=0).min(axis=-1), dtype=np.float32)
