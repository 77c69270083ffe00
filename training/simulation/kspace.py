"""What does the scanner make of the signal? Sampling in k-space, movement, noise, coil and reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal.windows import gaussian, hamming, kaiser, tukey

from pipeline.errors import InputError
from pipeline.geometry import Geometry

from .protocol import Apodisation, Protocol, Sequence

Complex64 = NDArray[np.complex64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Matrix:
    """Sizes along ``(k, j, i)``: of the acquired k-space and of the image after zero-filling."""

    acquired: tuple[int, int, int]
    image: tuple[int, int, int]


def matrix(grid: Geometry, protocol: Protocol) -> Matrix:
    """How many samples `protocol` takes of the field of view of `grid`.

    Raises
    ------
    InputError
        If a voxel is larger than the field of view allows or smaller than the grid the physics ran on.
    """
    fov = np.array(grid.shape) * np.array(grid.spacing[::-1])
    wanted = np.array(protocol.voxel_mm[::-1])
    n = np.round(fov / wanted).astype(int)
    if np.any(n < 4):
        raise InputError(
            f"a voxel of {protocol.voxel_mm} mm leaves fewer than four samples in a field of view of "
            f"{tuple(np.round(fov[::-1], 1).tolist())} mm",
            where=f"protocol {protocol.name!r}",
            do="use smaller voxels",
        )
    if np.any(n > np.array(grid.shape)):
        raise InputError(
            f"a voxel of {protocol.voxel_mm} mm is finer than the simulated {grid.spacing[0]:.2f} mm",
            where=f"protocol {protocol.name!r}",
            do="use larger voxels, or a smaller fine_mm",
        )
    across = protocol.slice_fill if protocol.sequence is Sequence.SWI_3D else None
    image = (_filled(n[0], across or 1.0), _filled(n[1], protocol.zero_fill), _filled(n[2], protocol.zero_fill))
    return Matrix((int(n[0]), int(n[1]), int(n[2])), image)


def _filled(n: int, factor: float) -> int:
    """Samples of an axis after zero-filling: an even number, or as many as before."""
    return int(n) if factor == 1 else 2 * round(n * factor / 2)


def image_geometry(grid: Geometry, protocol: Protocol) -> Geometry:
    """Geometry of the reconstructed image: the same first voxel centre, larger steps."""
    shape = matrix(grid, protocol).image
    ratio = np.array(grid.shape[::-1]) / np.array(shape[::-1])
    affine = grid.affine.copy()
    affine[:3, :3] = grid.affine[:3, :3] * ratio
    if protocol.sequence is Sequence.T2STAR_2D:  # slices are averages of blocks, centred on them
        affine[:3, 3] = grid.to_lps([0, 0, (ratio[2] - 1) / 2])
    return Geometry(shape, affine)


def _lowest(n_in: int, n_out: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where the lowest frequencies lie in unshifted spectra of two sizes: not negative, then negative."""
    n = min(n_in, n_out)
    positive, negative = (n + 1) // 2, n // 2
    return (slice(positive), slice(positive)), (slice(n_in - negative, n_in), slice(n_out - negative, n_out))


def _resized(data: Complex64, axis: int, n: int, scale: np.float32) -> Complex64:
    """A spectrum times `scale`, cropped or filled with zeros to `n` samples along an axis."""
    size = data.shape[axis]
    shape = list(data.shape)
    shape[axis] = n
    out = np.zeros(shape, dtype=np.complex64) if n > size else np.empty(shape, dtype=np.complex64)
    rest = (slice(None),) * axis
    for source, target in _lowest(size, n):
        np.multiply(data[(*rest, source)], scale, out=out[(*rest, target)])
    return out


def _crop(data: Complex64, axis: int, n: int, workers: int) -> Complex64:
    """Transform one axis and keep its `n` lowest frequencies, scaled so that intensities stay."""
    size = data.shape[axis]
    return _resized(scipy.fft.fft(data, axis=axis, workers=workers), axis, n, np.float32(n / size))


def sample(signal: Complex64, grid: Geometry, protocol: Protocol, *, workers: int = 1) -> Complex64:
    """The acquired k-space (unshifted along j and i; along k too for 3D), shape of :class:`Matrix`.acquired.

    A 2D sequence excites slices: the fine planes of each are averaged, which is where through-slice dephasing comes
    from.
    """
    nk, nj, ni = matrix(grid, protocol).acquired
    if protocol.sequence is Sequence.T2STAR_2D:
        data = _slices(signal, nk, protocol.slice_width)
    else:
        if protocol.slab_edge is not None:
            signal = signal * _slab(grid.shape[0], protocol.slab_edge)[:, None, None]
        data = _crop(signal, 0, nk, workers)
    data = _crop(data, 1, nj, workers)
    return _crop(data, 2, ni, workers)


def _slices(signal: Complex64, n: int, width: float | None) -> Complex64:
    """Planes of a 2D sequence: means over rectangular slices, or Gaussian slices that overlap their neighbours."""
    edges = np.round(np.linspace(0, len(signal), n + 1)).astype(int)
    if width is not None:
        sigma = width * len(signal) / n / 2.355
        blurred = ndimage.gaussian_filter1d(signal, sigma, axis=0, mode="nearest")
        middles = np.clip(((edges[:-1] + edges[1:] - 1) / 2).round().astype(int), 0, len(signal) - 1)
        return np.asarray(blurred[middles], dtype=np.complex64)
    return np.stack([signal[a:b].mean(axis=0) for a, b in pairwise(edges)]).astype(np.complex64)


def _slab(n: int, edge: float) -> Float32:
    """Excitation along the slab: flat, with raised-cosine ends that fall to a third."""
    return np.asarray(1 / 3 + 2 / 3 * tukey(n, min(2 * edge, 1.0)), dtype=np.float32)


def _taper(n: int, protocol: Protocol) -> Float32:
    """Window of one axis, unshifted; `protocol.window` says how strongly it tapers."""
    kind, share = protocol.apodisation or Apodisation.TUKEY, protocol.window
    if kind is Apodisation.TUKEY:
        window = tukey(n + 1, share)
    elif kind is Apodisation.HAMMING:
        window = 1 - share + share * hamming(n + 1)
    elif kind is Apodisation.GAUSSIAN:
        window = gaussian(n + 1, n / (4 * share + 0.5) / 2)
    else:
        window = kaiser(n + 1, 6 * share)
    return scipy.fft.ifftshift(window[:n]).astype(np.float32)


def _filter(shape: tuple[int, int, int], protocol: Protocol) -> tuple[Float32, Float32, Float32]:
    """Window and partial-Fourier mask of each axis."""
    windows = []
    fractions = (protocol.partial_fourier[1], protocol.partial_fourier[0], 1.0)
    for axis, (n, sampled) in enumerate(zip(shape, fractions, strict=True)):
        w = _taper(n, protocol)
        if axis == 0 and protocol.sequence is Sequence.T2STAR_2D:
            w = np.ones(n, dtype=np.float32)
            sampled = 1.0
        frequency = scipy.fft.fftfreq(n)
        w[frequency < -(sampled - 0.5)] = 0  # the side that is left out
        windows.append(w)
    return windows[0], windows[1], windows[2]


def move(
    kspace: Complex64, spacing_mm: tuple[float, float, float], amount_mm: float, rng: np.random.Generator
) -> Complex64:
    """Let the head drift and jerk while the phase-encoding lines (j) are collected, in place.

    Translation only: each line gains the phase ramp of where the head was.
    """
    if amount_mm <= 0:
        return kspace
    nk, nj, ni = kspace.shape
    path = np.cumsum(rng.standard_normal((nj, 3)), axis=0) / np.sqrt(nj) * 0.6
    for _ in range(int(rng.integers(1, 4))):
        path[int(rng.integers(nj // 6, nj)) :] += rng.standard_normal(3) * 0.7
    line = np.argsort(scipy.fft.fftfreq(nj), kind="stable")  # from one edge of k-space to the other
    path -= path[nj // 2]
    path = (path * amount_mm)[np.argsort(line)]
    kz, ky, kx = (scipy.fft.fftfreq(n, d) for n, d in zip((nk, nj, ni), spacing_mm[::-1], strict=True))
    for j in range(nj):
        ramp = kz[:, None] * path[j, 2] + ky[j] * path[j, 1] + kx[None, :] * path[j, 0]
        kspace[:, j, :] *= np.exp(-2j * np.pi * ramp).astype(np.complex64)
    return kspace


def pulsate(kspace: Complex64, amount: float, rng: np.random.Generator) -> Complex64:
    """Modulate the phase-encoding lines (j) as pulsation does, in place: ghosts along j."""
    nj = kspace.shape[1]
    line = np.argsort(np.argsort(scipy.fft.fftfreq(nj), kind="stable"))
    wave = 1 + amount * np.cos(2 * np.pi * line / rng.uniform(4, 24) + rng.uniform(0, 2 * np.pi))
    kspace *= wave.astype(np.float32)[None, :, None]
    return kspace


def add_noise(kspace: Complex64, sd: float, protocol: Protocol, rng: np.random.Generator) -> Complex64:
    """Add white noise that has standard deviation `sd` per channel in the unwindowed image, in place."""
    nk, nj, ni = kspace.shape
    transformed = nj * ni if protocol.sequence is Sequence.T2STAR_2D else nk * nj * ni
    scale = np.float32(sd * np.sqrt(transformed))
    for k in range(kspace.shape[0]):
        noise = rng.standard_normal((2, *kspace.shape[1:]), dtype=np.float32)
        kspace[k] += scale * (noise[0] + 1j * noise[1])
    return kspace


def reconstruct(kspace: Complex64, grid: Geometry, protocol: Protocol, *, workers: int = 1) -> Complex64:
    """Window, zero-fill and transform back."""
    size = matrix(grid, protocol)
    windows = _filter(size.acquired, protocol)
    data = kspace * windows[0][:, None, None]
    data *= windows[1][None, :, None]
    data *= windows[2][None, None, :]
    # The slices of a 2D sequence are separate already.
    for axis in range(1 if protocol.sequence is Sequence.T2STAR_2D else 0, 3):
        n, m = size.acquired[axis], size.image[axis]
        if m > n:
            data = _resized(data, axis, m, np.float32(m / n))
        data = scipy.fft.ifft(data, axis=axis, workers=workers, overwrite_x=True)
    return np.asarray(data, dtype=np.complex64)


def coil(shape: tuple[int, int, int], shading: float, rng: np.random.Generator) -> Complex64:
    """Receive profile left in a combined image: brighter towards the coil, with a smooth phase of its own.

    Second-order in position, mean magnitude about 1.
    """
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    a = rng.normal(0, 0.25, 3) * shading
    p = rng.normal(0, 1.2, 6)
    # A phase that z adds to is a factor: exp(i·phase) is taken of one plane only.
    plane = np.exp(1j * ((p[2] * y + 0.6 * p[5] * y**2)[:, None] + p[1] * x + 0.6 * p[4] * x * y[:, None]))
    across = np.exp(1j * (p[0] + p[3] * z))
    profile = np.empty(shape, dtype=np.complex64)
    for k in range(shape[0]):
        size = 1 + shading * (0.55 * (x[None] ** 2 + y[:, None] ** 2) + 0.2 * z[k] ** 2 - 0.35)
        size = size + a[0] * x[None] + a[1] * y[:, None] + a[2] * z[k]
        profile[k] = np.maximum(size, 0.2) * (plane * across[k])
    return profile
