"""How does noise differ from white noise? Colour, and amplification by parallel imaging that varies over the image."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numba import njit, prange
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


@njit(parallel=True, cache=True)
def _interpolate(out, coarse):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill `out` with `coarse`, linearly interpolated from corner to corner, as `scipy.ndimage.zoom` does."""
    nk, nj, ni = out.shape
    mk, mj, mi = coarse.shape
    zk, zj, zi = (mk - 1) / max(nk - 1, 1), (mj - 1) / max(nj - 1, 1), (mi - 1) / max(ni - 1, 1)
    for k in prange(nk):
        a = min(int(k * zk), mk - 2)
        wk = k * zk - a
        for j in range(nj):
            b = min(int(j * zj), mj - 2)
            wj = j * zj - b
            for i in range(ni):
                c = min(int(i * zi), mi - 2)
                wi = i * zi - c
                total = 0.0
                for n in range(8):
                    p, q, r = n >> 2, (n >> 1) & 1, n & 1
                    value = float(coarse[a + p, b + q, c + r])
                    value = value * (wk if p else 1.0 - wk) * (wj if q else 1.0 - wj) * (wi if r else 1.0 - wi)
                    total += value
                out[k, j, i] = total


def _irregular(shape: tuple[int, int, int], n: int, sigma: float, rng: np.random.Generator) -> Float32:
    """Smooth noise: `n` random values along each axis, blurred and spread over `shape`."""
    rough = ndimage.gaussian_filter(rng.standard_normal((n, n, n), dtype=np.float32), sigma, mode="wrap")
    out = np.empty(shape, dtype=np.float32)
    _interpolate(out, rough)
    return out


def g_factor(shape: tuple[int, int, int], model: NoiseModel, rng: np.random.Generator) -> Float32:
    """Local amplification of noise, 1 to `model.g_factor`: bands along j, strongest in the middle, and irregular."""
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    bands = 0.5 + 0.5 * np.cos(np.pi * model.acceleration * y + rng.uniform(0, 2 * np.pi))
    pattern = _irregular(shape, 16, 16 * _SMOOTH_SHARE, rng)
    largest = max(max(float(np.abs(plane).max()) for plane in pattern), 1e-6)
    across = x[None] ** 2 + y[:, None] ** 2
    for k, plane in enumerate(pattern):  # plane by plane, which stay in the processor's cache
        middle = np.exp(-2 * across - 0.5 * z[k] ** 2)
        plane[:] = middle * (0.5 * bands[:, None] + 0.5 * (0.5 + 0.5 * plane / largest))
    strongest = max(float(pattern.max()), 1e-6)
    for plane in pattern:
        plane[:] = 1 + (model.g_factor - 1) * plane / strongest
    return pattern


def local_bias(shape: tuple[int, int, int], strength: float, rng: np.random.Generator) -> Float32:
    """A smooth receive profile of no particular form, whose logarithm has the standard deviation `strength`."""
    rough = _irregular(shape, 12, 2.0, rng)
    mean, spread = rough.mean(), max(float(rough.std()), 1e-6)
    for plane in rough:
        plane[:] = np.exp(strength * (plane - mean) / spread)
    return rough
