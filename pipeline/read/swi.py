"""How is a susceptibility-weighted image computed from magnitude and phase? (Haacke et al. 2004, MRM 52:612)

One implementation for studies without a derived SWI and for simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class SwiParameters:
    """How to make an SWI.

    Parameters
    ----------
    hann_width : int
        Full width of the low-pass Hann window, in k-space samples along each in-plane axis. Haacke et al. use 32 to 96;
        a wider window removes more of the slowly varying phase.
    power : int
        How often the phase mask multiplies the magnitude.
    phase_sign : int
        +1 where the phase of paramagnetic blood is positive (and darkens), −1 where it is negative.
    """

    hann_width: int = 64
    power: int = 4
    phase_sign: int = 1


def hann_window(shape: tuple[int, int], width: int) -> FloatImage:
    """Separable Hann window centred on zero frequency, in the order of an unshifted FFT.

    Returns
    -------
    ndarray of float32, shape `shape`
        One at zero frequency, zero from ``width / 2`` samples on.
    """
    axes = []
    for n in shape:
        k = np.abs(fft.fftfreq(n, 1 / n))
        axes.append(np.where(k < width / 2, 0.5 + 0.5 * np.cos(2 * np.pi * k / width), 0.0))
    return np.asarray(np.outer(*axes), dtype=np.float32)


def high_pass_phase(phase: NDArray[Any], magnitude: NDArray[Any] | None = None, hann_width: int = 64) -> FloatImage:
    """Remove the slowly varying phase of each slice by complex division (homodyne filter), without unwrapping.

    Parameters
    ----------
    phase : ndarray, shape (slices, rows, columns)
        Radians.
    magnitude : ndarray, same shape, optional
        Weights of the low-pass; without them every voxel counts alike.
    hann_width : int
        See :class:`SwiParameters`.

    Returns
    -------
    ndarray of float32
        Radians, within ±π.
    """
    window = hann_window((phase.shape[1], phase.shape[2]), hann_width)
    result = np.empty(phase.shape, dtype=np.float32)
    for k in range(len(phase)):
        unit = np.exp(1j * phase[k].astype(np.float32)).astype(np.complex64)
        signal = unit if magnitude is None else unit * magnitude[k].astype(np.float32)
        low = fft.ifft2(fft.fft2(signal) * window)
        result[k] = np.angle(unit * np.conj(low))
    return result


def phase_mask(filtered_phase: NDArray[Any], phase_sign: int = 1) -> FloatImage:
    """Darken paramagnetic tissue: 1 where the phase is not paramagnetic, falling linearly to 0 at π.

    Parameters
    ----------
    filtered_phase : ndarray
        High-pass filtered phase, radians.
    phase_sign : int
        See :class:`SwiParameters`.
    """
    paramagnetic = np.clip(phase_sign * np.asarray(filtered_phase, dtype=np.float32), 0, np.pi)
    return np.asarray(1 - paramagnetic / np.float32(np.pi), dtype=np.float32)


def susceptibility_weighted(
    magnitude: NDArray[Any], phase: NDArray[Any], parameters: SwiParameters | None = None
) -> FloatImage:
    """Compute the SWI of a magnitude and a phase image on the same grid.

    Parameters
    ----------
    magnitude, phase : ndarray, shape (slices, rows, columns)
        Phase in radians, filtered or not.
    parameters : SwiParameters, optional

    Returns
    -------
    ndarray of float32
        ``magnitude × mask^power``, in the unit of the magnitude.
    """
    p = parameters or SwiParameters()
    mask = phase_mask(high_pass_phase(phase, magnitude, p.hann_width), p.phase_sign)
    return np.asarray(magnitude, dtype=np.float32) * mask**p.power
