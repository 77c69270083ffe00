"""What field does a susceptibility make? The dipole convolution on a padded grid, its two-grid use, and the shim.

ΔB/B0 = F⁻¹{(1/3 − (k·b)²/k²) F χ} with the sphere-of-Lorentz correction (Salomir 2003; Marques & Bowtell 2005). Air,
bone and fat act from far away and are computed on a coarse grid of the whole head; the brain's own susceptibility on
the fine one.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import scipy.fft
from numba import njit, prange
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@njit(parallel=True, fastmath=True, cache=True)
def _apply_dipole(spectrum, kz, ky, kx, bz, by, bx):  # type: ignore[no-untyped-def]  # pragma: no cover
    for a in prange(spectrum.shape[0]):
        for b in range(spectrum.shape[1]):
            for c in range(spectrum.shape[2]):
                k2 = kz[a] * kz[a] + ky[b] * ky[b] + kx[c] * kx[c]
                if k2 == 0.0:
                    spectrum[a, b, c] = 0.0
                else:
                    along = kz[a] * bz + ky[b] * by + kx[c] * bx
                    spectrum[a, b, c] *= np.float32(1.0 / 3.0 - along * along / k2)


def dipole_field(
    chi_ppm: Float32,
    spacing_mm: tuple[float, float, float],
    b0: tuple[float, float, float],
    *,
    padding: tuple[int, int, int] = (16, 16, 16),
    workers: int = 1,
) -> Float32:
    """Relative field shift of a susceptibility map.

    Parameters
    ----------
    chi_ppm : ndarray of float32, shape (k, j, i)
        Susceptibility against its surroundings, which are taken to be zero, ppm.
    spacing_mm : tuple of float
        Voxel size along ``(i, j, k)``.
    b0 : tuple of float
        Unit vector of the main field along ``(i, j, k)``.
    padding : tuple of int
        Zero voxels added behind each of ``(k, j, i)`` against wrap-around.
    workers : int
        Threads of the FFT.

    Returns
    -------
    ndarray of float32, shape (k, j, i)
        ΔB/B0, ppm.
    """
    shape = [scipy.fft.next_fast_len(n + p, real=True) for n, p in zip(chi_ppm.shape, padding, strict=True)]
    spectrum = scipy.fft.rfftn(chi_ppm, s=shape, workers=workers)
    kz = scipy.fft.fftfreq(shape[0], spacing_mm[2]).astype(np.float32)
    ky = scipy.fft.fftfreq(shape[1], spacing_mm[1]).astype(np.float32)
    kx = scipy.fft.rfftfreq(shape[2], spacing_mm[0]).astype(np.float32)
    _apply_dipole(spectrum, kz, ky, kx, np.float32(b0[2]), np.float32(b0[1]), np.float32(b0[0]))
    field = scipy.fft.irfftn(spectrum, s=shape, overwrite_x=True, workers=workers)
    k, j, i = chi_ppm.shape
    return cast("Float32", np.ascontiguousarray(field[:k, :j, :i], dtype=np.float32))


def _monomials(coordinates: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """All monomials up to `order` of coordinates (n, d), shape (n, terms)."""
    n, d = coordinates.shape
    exponents = [e for e in np.ndindex(*(order + 1,) * d) if sum(e) <= order]
    return np.stack([np.prod(coordinates ** np.array(e), axis=1) for e in exponents], axis=1).reshape(n, -1)


def shim(field_ppm: Float32, inside: NDArray[np.bool_], *, order: int = 2, samples: int = 20000) -> Float32:
    """Subtract the polynomial of `order` that fits the field inside the brain best, as a scanner's shim coils do.

    Parameters
    ----------
    field_ppm : ndarray of float32, shape (k, j, i)
        Changed in place and returned.
    inside : ndarray of bool
        Where the fit counts.
    order : int
        Of the polynomial; clinical scanners shim to second order.
    samples : int
        Most voxels used for the fit, taken evenly.
    """
    where = np.flatnonzero(inside)
    if where.size == 0:
        return field_ppm
    where = where[:: max(1, where.size // samples)]
    shape = np.asarray(field_ppm.shape, dtype=np.float64)
    index = np.stack(np.unravel_index(where, field_ppm.shape), axis=1)
    terms = _monomials(2 * index / shape - 1, order)
    weights, *_ = np.linalg.lstsq(terms, field_ppm.ravel()[where].astype(np.float64), rcond=None)
    # One value of k at a time: what multiplies each monomial of (j, i) is a polynomial of k.
    exponents = [e for e in np.ndindex(*(order + 1,) * 3) if sum(e) <= order]
    j, i = (np.arange(n, dtype=np.float32) * np.float32(2 / n) - np.float32(1) for n in field_ppm.shape[1:])
    for k in range(field_ppm.shape[0]):
        z = 2 * k / shape[0] - 1
        for b in range(order + 1):
            row = sum(
                (np.float32(w * z ** e[0]) * i ** e[2] for w, e in zip(weights, exponents, strict=True) if e[1] == b),
                np.zeros_like(i),
            )
            field_ppm[k] -= np.outer(j**b, row)
    return field_ppm
