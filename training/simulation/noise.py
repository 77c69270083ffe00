"""How does noise differ from white noise? Colour, and amplification by parallel imaging that varies over the image."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

from .protocol import NoiseModel

Complex64 = NDArray[np.complex64]
Float32 = NDArray[np.float32]
_LOWEST = 0.02
"""Frequencies below this, in cycles per sample, count as this one, so that no colour is infinite."""
_SMOOTH_SHARE = 0.18
"""Width of the irregular part of the g-factor, as a share of the field of view."""


def colour(noise: Complex64, exponent: float, *, planar: bool = False) -> Complex64:
    """Weight white noise in k-space (unshifted) by frequency, in plane if `planar`; its mean power stays."""
    if exponent == 0:
        return noise
    frequencies = (scipy.fft.fftfreq(n).astype(np.float32) for n in noise.shape)
    k, j, i = (f**2 for f in frequencies)
    radius = np.sqrt((0 if planar else k[:, None, None]) + j[None, :, None] + i[None, None, :])
    weight = np.maximum(radius, np.float32(_LOWEST)) ** np.float32(-exponent)
    weight /= np.sqrt(np.mean(weight**2, dtype=np.float64))
    return np.asarray(noise * weight, dtype=np.complex64)


def g_factor(shape: tuple[int, int, int], model: NoiseModel, rng: np.random.Generator) -> Float32:
    """Local amplification of noise, 1 to `model.g_factor`: bands along j, strongest in the middle, and irregular."""
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    bands = 0.5 + 0.5 * np.cos(np.pi * model.acceleration * y + rng.uniform(0, 2 * np.pi))
    middle = np.exp(-2 * (x[None, None] ** 2 + y[None, :, None] ** 2) - 0.5 * z[:, None, None] ** 2)
    rough = ndimage.gaussian_filter(
        rng.standard_normal((16, 16, 16), dtype=np.float32), 16 * _SMOOTH_SHARE, mode="wrap"
    )
    rough = ndimage.zoom(rough, [n / 16 for n in shape], order=1, mode="nearest")[: shape[0], : shape[1], : shape[2]]
    rough = 0.5 + 0.5 * rough / max(float(np.abs(rough).max()), 1e-6)
    pattern = middle * (0.5 * bands[None, :, None] + 0.5 * rough)
    return np.asarray(1 + (model.g_factor - 1) * pattern / max(float(pattern.max()), 1e-6), dtype=np.float32)


def local_bias(shape: tuple[int, int, int], strength: float, rng: np.random.Generator) -> Float32:
    """A smooth receive profile of no particular form, whose logarithm has the standard deviation `strength`."""
    rough = ndimage.gaussian_filter(rng.standard_normal((12, 12, 12), dtype=np.float32), 2.0, mode="wrap")
    rough = ndimage.zoom(rough, [n / 12 for n in shape], order=1, mode="nearest")[: shape[0], : shape[1], : shape[2]]
    return np.asarray(np.exp(strength * (rough - rough.mean()) / max(float(rough.std()), 1e-6)), dtype=np.float32)
