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
    return np.asarray(np.outer(*(_hann(n, width) for n in shape)), dtype=np.float32)


def _hann(n: int, width: int) -> NDArray[np.float64]:
    k = np.abs(fft.fftfreq(n, 1 / n))
    return np.where(k < width / 2, 0.5 + 0.5 * np.cos(2 * np.pi * k / width), 0.0)


def _low_pass(image: NDArray[np.complex64], window: FloatImage) -> NDArray[np.complex64]:
    """``ifft2(fft2(image) * window)``, without the lines of k-space on which the window is zero."""
    rows, columns = np.flatnonzero(window.any(axis=1)), np.flatnonzero(window.any(axis=0))
    kept = fft.fft(fft.fft(image, axis=0)[rows], axis=1)[:, columns] * window[np.ix_(rows, columns)]
    half = np.zeros((image.shape[0], len(columns)), dtype=np.complex64)
    half[rows] = kept
    # Scaled after the first axis, as ifft2 does.
    half = fft.ifft(half, axis=0, norm="forward", overwrite_x=True) * np.float32(1 / image.size)
    spread = np.zeros(image.shape, dtype=np.complex64)
    spread[:, columns] = half
    return np.asarray(fft.ifft(spread, axis=1, norm="forward", overwrite_x=True))


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
        result[k] = divided_phase(unit, signal, window)
    return result


def divided_phase(unit: NDArray[np.complex64], signal: NDArray[np.complex64], window: FloatImage) -> FloatImage:
    """Phase of one slice over that of its low-pass; `unit` is the signal divided by its weight."""
    return np.asarray(np.angle(unit * np.conj(_low_pass(signal, window))), dtype=np.float32)


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
