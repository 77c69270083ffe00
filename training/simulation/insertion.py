"""How is an inclusion put into an image? By the difference it makes, in simulated heads and real scans alike.

Every voxel within reach is supersampled. Outside a sphere of radius a the field is (χ/3)(a/r)³(3cos²θ − 1), inside it
is zero (sphere of Lorentz); inside, the signal also loses proton density and gains R2*. The voxel changes by the
*mean of (with − without)* over its samples, so a null inclusion changes nothing and no edge of a pasted patch is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from pipeline.geometry import Geometry

from .inclusion import Inclusion
from .tissue import GYROMAGNETIC_MHZ_PER_T

Complex64 = NDArray[np.complex64]
_REACH_PHASE = 0.01
"""The field is followed until it turns the signal by less than this, radians."""
_LONGEST_REACH_MM = 30.0


@dataclass(frozen=True)
class Physics:
    """What the insertion must know of the acquisition.

    Parameters
    ----------
    field_strength_t, echo_time_ms : float
        Of the scan.
    b0_lps : tuple of float
        Unit vector of the main field in patient coordinates.
    """

    field_strength_t: float
    echo_time_ms: float
    b0_lps: tuple[float, float, float] = (0.0, 0.0, 1.0)

    @property
    def radians_per_ppm(self) -> float:
        """Phase at the echo time of a field shift of 1 ppm."""
        return 2 * math.pi * GYROMAGNETIC_MHZ_PER_T * self.field_strength_t * self.echo_time_ms * 1e-3


@dataclass(frozen=True, eq=False)
class SignalChange:
    """What one inclusion changes: a box of complex differences to add to the signal.

    Parameters
    ----------
    box : tuple of slice
        Where, ``(k, j, i)``.
    delta : ndarray of complex64
        With − without.
    """

    box: tuple[slice, slice, slice]
    delta: Complex64


@njit(parallel=True, cache=True, fastmath=True)
def _difference(signal, low, axes, n, spheres, decay, b0, radians, near):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Difference made by spheres (k, j, i in mm, radius, χ, density) in the box that starts at voxel `low`."""
    nk, nj, ni = signal.shape
    out = np.zeros(signal.shape, dtype=np.complex64)
    for k in prange(nk):
        for j in range(nj):
            for i in range(ni):
                ck, cj, ci = (k + low[0]) * axes[0], (j + low[1]) * axes[1], (i + low[2]) * axes[2]
                close = False
                for s in range(len(spheres)):
                    dk, dj, di = ck - spheres[s, 0], cj - spheres[s, 1], ci - spheres[s, 2]
                    if dk * dk + dj * dj + di * di < (near * spheres[s, 3] + 0.9 * max(axes[0], axes[1], axes[2])) ** 2:
                        close = True
                mk, mj, mi = (n[0], n[1], n[2]) if close else (1, 1, 1)
                re = im = 0.0
                for a in range(mk):
                    pk = ck + ((a + 0.5) / mk - 0.5) * axes[0]
                    for b in range(mj):
                        pj = cj + ((b + 0.5) / mj - 0.5) * axes[1]
                        for c in range(mi):
                            pi = ci + ((c + 0.5) / mi - 0.5) * axes[2]
                            phase = 0.0
                            weight = 1.0
                            for s in range(len(spheres)):
                                dk, dj, di = pk - spheres[s, 0], pj - spheres[s, 1], pi - spheres[s, 2]
                                d2 = dk * dk + dj * dj + di * di
                                r2 = spheres[s, 3] * spheres[s, 3]
                                if d2 < r2:
                                    weight = min(weight, decay[s])
                                else:
                                    along = dk * b0[0] + dj * b0[1] + di * b0[2]
                                    ratio = r2 / d2
                                    shape = ratio * math.sqrt(ratio) * (3.0 * along * along / d2 - 1.0)
                                    phase += spheres[s, 4] / 3.0 * shape
                            phase *= radians
                            re += weight * math.cos(phase)
                            im += weight * math.sin(phase)
                m = mk * mj * mi
                out[k, j, i] = signal[k, j, i] * np.complex64((re / m - 1.0) + 1j * (im / m))
    return out


def reach_mm(inclusion: Inclusion, physics: Physics) -> float:
    """Distance from its centre beyond which an inclusion turns the phase by less than 0.01 rad."""
    centre = np.array(inclusion.centre_lps_mm)
    reach = 0.0
    for sphere in inclusion.spheres:
        turn = 2 / 3 * abs(sphere.chi_ppm) * physics.radians_per_ppm
        far = sphere.radius_mm * max(1.5, (turn / _REACH_PHASE) ** (1 / 3))
        reach = max(reach, far + float(np.linalg.norm(np.array(sphere.centre_lps_mm) - centre)))
    return min(reach, _LONGEST_REACH_MM)


def change(
    signal: Complex64, grid: Geometry, inclusion: Inclusion, physics: Physics, *, sample_mm: float = 0.13
) -> SignalChange | None:
    """What `inclusion` would change in `signal`.

    Parameters
    ----------
    signal : ndarray of complex64, shape (k, j, i)
        Image without it; not changed.
    grid : Geometry
        Of the signal.
    inclusion : Inclusion
        What to insert.
    physics : Physics
        Field strength, echo time and direction of the main field.
    sample_mm : float
        Distance between the samples within a voxel near a sphere.

    Returns
    -------
    Change or None
        ``None`` when it changes nothing: a null inclusion, or one out of the image.
    """
    if inclusion.is_null:
        return None
    spacing = np.array(grid.spacing[::-1])
    middle = grid.to_ijk(inclusion.centre_lps_mm)[::-1]
    reach = reach_mm(inclusion, physics) / spacing
    low = np.maximum(np.floor(middle - reach), 0).astype(np.int64)
    high = np.minimum(np.ceil(middle + reach) + 1, grid.shape).astype(np.int64)
    if np.any(low >= high):
        return None
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    spheres = np.array(
        [
            [*(grid.to_ijk(s.centre_lps_mm)[::-1] * spacing), s.radius_mm, s.chi_ppm, s.density]
            for s in inclusion.spheres
        ]
    )
    decay = np.array(
        [
            s.density * math.exp(-s.extra_r2star_hz(physics.field_strength_t) * physics.echo_time_ms * 1e-3)
            for s in inclusion.spheres
        ]
    )
    samples = np.clip(np.ceil(spacing / sample_mm), 1, 16).astype(np.int64)
    b0 = (grid.direction.T @ np.array(physics.b0_lps))[::-1].copy()
    delta = _difference(
        np.ascontiguousarray(signal[box]), low, spacing, samples, spheres, decay, b0, physics.radians_per_ppm, 4.0
    )
    return SignalChange(box, delta)


def insert(signal: Complex64, grid: Geometry, inclusions: Iterable[Inclusion], physics: Physics) -> Complex64:
    """A copy of `signal` with all `inclusions` in it, one after the other."""
    result = signal.copy()
    for inclusion in inclusions:
        made = change(result, grid, inclusion, physics)
        if made is not None:
            result[made.box] += made.delta
    return result
