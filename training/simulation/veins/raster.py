"""How does a vein look from inside a voxel? Its share of each fine voxel, and where its field varies within one.

Every voxel near a vein is supersampled: each sample lies in blood or outside it and feels the field of an infinite
cylinder along the nearest segment (inside Δχ/6·(3cos²θ − 1), outside Δχ/2·sin²θ·(a/ρ)²·cos 2ψ; Haacke 2004). Only the
variation *within* the voxel is taken from there; the mean comes from the dipole convolution of the whole vein map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from pipeline.geometry import Geometry

from .tree import VeinTree

SUBSAMPLES = 4
_MARGIN = 1.3
"""How far beyond the wall the cylinder's field is followed, in fine voxels."""


@dataclass(frozen=True, eq=False)
class VeinImage:
    """A vein tree on the fine grid.

    Parameters
    ----------
    fraction : ndarray of uint8, shape (k, j, i)
        Blood in each voxel, 0–255.
    voxel : ndarray of int64, shape (n,)
        Flat index of every voxel that holds or borders a vein.
    segment : ndarray of int32, shape (n,)
        The segment that matters most there.
    start, axis : ndarray of float32, shape (segments, 3)
        A point on and the unit direction of each segment in voxel units, ``(k, j, i)``.
    length, radius : ndarray of float32, shape (segments,)
        In voxel units.
    artery : ndarray of uint8 or None
        Arterial blood in each voxel, 0–255, where the anatomy knows its arteries.
    """

    fraction: NDArray[np.uint8]
    voxel: NDArray[np.int64]
    segment: NDArray[np.int32]
    start: NDArray[np.float32]
    axis: NDArray[np.float32]
    length: NDArray[np.float32]
    radius: NDArray[np.float32]
    artery: NDArray[np.uint8] | None = None


@njit(cache=True, fastmath=True)
def _mark(best, which, start, axis, length, radius, margin):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Note in each voxel the segment with the least (distance / radius)."""
    nk, nj, ni = best.shape
    for s in range(len(radius)):
        r = radius[s]
        reach = r + margin
        end = start[s] + axis[s] * length[s]
        k0 = max(int(np.floor(min(start[s, 0], end[0]) - reach)), 0)
        k1 = min(int(np.ceil(max(start[s, 0], end[0]) + reach)), nk - 1)
        j0 = max(int(np.floor(min(start[s, 1], end[1]) - reach)), 0)
        j1 = min(int(np.ceil(max(start[s, 1], end[1]) + reach)), nj - 1)
        i0 = max(int(np.floor(min(start[s, 2], end[2]) - reach)), 0)
        i1 = min(int(np.ceil(max(start[s, 2], end[2]) + reach)), ni - 1)
        for k in range(k0, k1 + 1):
            for j in range(j0, j1 + 1):
                for i in range(i0, i1 + 1):
                    dk, dj, di = k - start[s, 0], j - start[s, 1], i - start[s, 2]
                    t = dk * axis[s, 0] + dj * axis[s, 1] + di * axis[s, 2]
                    t = min(max(t, 0.0), length[s])
                    ek, ej, ei = dk - t * axis[s, 0], dj - t * axis[s, 1], di - t * axis[s, 2]
                    d = np.sqrt(ek * ek + ej * ej + ei * ei)
                    if d <= reach and d / r < best[k, j, i]:
                        best[k, j, i] = d / r
                        which[k, j, i] = s


@njit(parallel=True, cache=True, fastmath=True)
def _fill(fraction, voxel, segment, start, axis, length, radius, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    nj, ni = fraction.shape[1], fraction.shape[2]
    flat = fraction.reshape(-1)
    for v in prange(len(voxel)):
        at, s = voxel[v], segment[v]
        k, j, i = at // (nj * ni), (at // ni) % nj, at % ni
        inside = 0
        for a in range(n):
            for b in range(n):
                for c in range(n):
                    dk = k + (a + 0.5) / n - 0.5 - start[s, 0]
                    dj = j + (b + 0.5) / n - 0.5 - start[s, 1]
                    di = i + (c + 0.5) / n - 0.5 - start[s, 2]
                    t = dk * axis[s, 0] + dj * axis[s, 1] + di * axis[s, 2]
                    t = min(max(t, 0.0), length[s])
                    ek, ej, ei = dk - t * axis[s, 0], dj - t * axis[s, 1], di - t * axis[s, 2]
                    if ek * ek + ej * ej + ei * ei < radius[s] * radius[s]:
                        inside += 1
        flat[at] = np.uint8(round(255.0 * inside / (n * n * n)))


def rasterise(tree: VeinTree, grid: Geometry) -> VeinImage:
    """Draw `tree` on the fine grid."""
    start = grid.to_ijk(tree.start)[:, ::-1]
    run = grid.to_ijk(tree.end)[:, ::-1] - start
    length = np.linalg.norm(run, axis=1)
    keep = length > 1e-3
    start, run, length = start[keep], run[keep], length[keep]
    radius = tree.radius[keep] / grid.spacing[0]
    s32, a32 = np.ascontiguousarray(start, np.float32), np.ascontiguousarray(run / length[:, None], np.float32)
    l32, r32 = length.astype(np.float32), radius.astype(np.float32)
    best = np.full(grid.shape, np.inf, dtype=np.float32)
    which = np.full(grid.shape, -1, dtype=np.int32)
    _mark(best, which, s32, a32, l32, r32, np.float32(_MARGIN))
    voxel = np.flatnonzero(which.ravel() >= 0)
    segment = which.ravel()[voxel]
    del best, which
    fraction = np.zeros(grid.shape, dtype=np.uint8)
    _fill(fraction, voxel, segment, s32, a32, l32, r32, SUBSAMPLES)
    return VeinImage(fraction, voxel, segment, s32, a32, l32, r32)


@njit(parallel=True, cache=True, fastmath=True)
def _dephase(  # type: ignore[no-untyped-def]
    tissue_part, blood_part, shape, voxel, segment, start, axis, length, radius, b0, phase_per_chi, n
):  # pragma: no cover
    nj, ni = shape[1], shape[2]
    m = n * n * n
    for v in prange(len(voxel)):
        at, s = voxel[v], segment[v]
        k, j, i = at // (nj * ni), (at // ni) % nj, at % ni
        r2 = radius[s] * radius[s]
        cos_t = b0[0] * axis[s, 0] + b0[1] * axis[s, 1] + b0[2] * axis[s, 2]
        sin2 = 1.0 - cos_t * cos_t
        phases = np.empty(m, dtype=np.float32)
        blood = np.empty(m, dtype=np.bool_)
        total = 0.0
        p = 0
        for a in range(n):
            for b in range(n):
                for c in range(n):
                    dk = k + (a + 0.5) / n - 0.5 - start[s, 0]
                    dj = j + (b + 0.5) / n - 0.5 - start[s, 1]
                    di = i + (c + 0.5) / n - 0.5 - start[s, 2]
                    t = dk * axis[s, 0] + dj * axis[s, 1] + di * axis[s, 2]
                    t = min(max(t, 0.0), length[s])
                    ek, ej, ei = dk - t * axis[s, 0], dj - t * axis[s, 1], di - t * axis[s, 2]
                    d2 = ek * ek + ej * ej + ei * ei
                    blood[p] = d2 < r2
                    if blood[p]:
                        value = (3.0 * cos_t * cos_t - 1.0) / 6.0
                    else:
                        along = ek * b0[0] + ej * b0[1] + ei * b0[2]
                        cos2psi = 2.0 * along * along / (d2 * sin2) - 1.0 if sin2 > 1e-4 else 0.0
                        value = 0.5 * sin2 * (r2 / d2) * min(max(cos2psi, -1.0), 1.0)
                    phases[p] = value * phase_per_chi
                    total += phases[p]
                    p += 1
        mean = total / m
        out_re = out_im = in_re = in_im = 0.0
        for p in range(m):
            re, im = np.cos(phases[p] - mean), np.sin(phases[p] - mean)
            if blood[p]:
                in_re += re
                in_im += im
            else:
                out_re += re
                out_im += im
        tissue_part[v] = (out_re + 1j * out_im) / m
        blood_part[v] = (in_re + 1j * in_im) / m


def dephasing(
    image: VeinImage, shape: tuple[int, int, int], b0: tuple[float, float, float], radians: float
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """What is left of the tissue and of the blood signal in each voxel of ``image.voxel``.

    Parameters
    ----------
    image : VeinImage
        The veins.
    shape : tuple of int
        Of the fine grid.
    b0 : tuple of float
        Main field along ``(i, j, k)``.
    radians : float
        Phase of the vein's susceptibility difference at the echo time, 2π·γ·B0·TE·Δχ.

    Returns
    -------
    tissue, blood : ndarray of complex64, shape (n,)
        Volume fraction of each times the mean of e^{iφ} over its samples, φ relative to the voxel's mean.
    """
    tissue = np.empty(len(image.voxel), dtype=np.complex64)
    blood = np.empty(len(image.voxel), dtype=np.complex64)
    direction = np.array(b0[::-1], dtype=np.float32)
    _dephase(
        tissue,
        blood,
        np.array(shape, dtype=np.int64),
        image.voxel,
        image.segment,
        image.start,
        image.axis,
        image.length,
        image.radius,
        direction,
        np.float32(radians),
        SUBSAMPLES,
    )
    return tissue, blood
