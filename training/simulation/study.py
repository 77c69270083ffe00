"""One simulated study, start to finish: scene, inclusions, scan, SWI and truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Geometry

from .filters import filtered_phase, minimum_projection, weighted
from .inclusion import Inclusion
from .insertion import Physics, insert
from .kspace import add_noise, coil, image_geometry, matrix, move, pulsate, reconstruct, sample
from .noise import colour, g_factor, local_bias
from .protocol import Protocol, Sequence
from .scene import Scene
from .signal import fine_signal, white_matter_level
from .visibility import SimulatedTruth, judge

Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]


@dataclass(frozen=True, eq=False)
class Images:
    """What the scanner shows.

    Parameters
    ----------
    geometry : Geometry
        Of SWI, phase and magnitude.
    magnitude, swi : ndarray of float32, shape (k, j, i)
        White matter is about 1.
    phase : ndarray of float32
        High-pass filtered (3D SWI) or raw (2D T2*), radians, paramagnetic positive.
    raw_phase : ndarray of float32
        As reconstructed, wraps and all.
    mip : ndarray of float32
        Sliding minimum-intensity projection of the SWI; its first image stands at the middle of the first slices.
    mip_slices : int
        How many slices each projection covers.
    """

    geometry: Geometry
    magnitude: Float32
    phase: Float32
    raw_phase: Float32
    swi: Float32
    mip: Float32
    mip_slices: int


@dataclass(frozen=True, eq=False)
class SimulatedStudy:
    """Images with their truth and everything that made them."""

    images: Images
    truth: SimulatedTruth
    protocol: Protocol
    scene_name: str
    seed: int


def _parts(image: Complex64, geometry: Geometry, protocol: Protocol) -> tuple[Float32, Float32, Float32, Float32]:
    """Magnitude, phase as reconstructed, phase as shown, and SWI."""
    magnitude, raw = np.abs(image), np.angle(image)
    if protocol.sequence is Sequence.T2STAR_2D:
        return magnitude, raw, raw, magnitude
    phase = filtered_phase(image, magnitude, raw, protocol.filter, geometry.spacing)
    return magnitude, raw, phase, weighted(magnitude, phase, protocol.filter)


def make_images(image: Complex64, geometry: Geometry, protocol: Protocol) -> Images:
    """Magnitude, phase, SWI and minimum projection of a complex image."""
    magnitude, raw, phase, swi = _parts(image, geometry, protocol)
    slices = max(1, min(image.shape[0], round(protocol.filter.mip_mm / geometry.spacing[2])))
    return Images(geometry, magnitude, phase, raw, swi, minimum_projection(swi, slices), slices)


def simulate(
    scene: Scene, protocol: Protocol, inclusions: tuple[Inclusion, ...], seed: int, *, workers: int = 1
) -> SimulatedStudy:
    """Scan `scene` with `inclusions` in it; the same seed gives the same images.

    Raises
    ------
    InputError
        If the protocol does not fit the scene's grid.
    """
    grid = scene.head.geometry
    geometry = image_geometry(grid, protocol)
    level = white_matter_level(scene, protocol)
    plain = fine_signal(scene, protocol)
    filled = insert(plain, grid, inclusions, Physics(protocol.field_strength_t, protocol.echo_time_ms))
    without = sample(plain, grid, protocol, workers=workers)
    del plain
    with_ = sample(filled, grid, protocol, workers=workers)
    del filled
    rng = np.random.default_rng([scene.seed, seed, 4])
    spacing = tuple(float(n * d / m) for n, d, m in zip(grid.shape[::-1], grid.spacing, with_.shape[::-1], strict=True))
    state = rng.bit_generator.state
    for kspace in (without, with_):
        rng.bit_generator.state = state  # the head moves the same way with and without
        move(kspace, (spacing[0], spacing[1], spacing[2]), protocol.motion_mm, rng)
        if protocol.ghost is not None:
            pulsate(kspace, protocol.ghost, rng)
    shape = matrix(grid, protocol).image
    profile = coil(shape, protocol.shading, rng)
    if protocol.bias is not None:
        profile *= local_bias(shape, protocol.bias, rng)

    def image_of(kspace: Complex64) -> Complex64:
        image = reconstruct(kspace, grid, protocol, workers=workers)
        image *= profile
        image /= np.float32(level)
        return image

    clean_without = _parts(image_of(without), geometry, protocol)[3]
    del without
    image = image_of(with_)
    truth = judge(inclusions, _parts(image, geometry, protocol)[3], clean_without, 1 / protocol.snr, geometry)
    del clean_without
    if protocol.noise is None:
        image = image_of(add_noise(with_, level / protocol.snr, protocol, rng))
    else:
        white = add_noise(np.zeros_like(with_), level / protocol.snr, protocol, rng)
        del with_
        noise = image_of(colour(white, protocol.noise.exponent, planar=protocol.sequence is Sequence.T2STAR_2D))
        noise *= g_factor(shape, protocol.noise, rng)
        image += noise
        del noise
    return SimulatedStudy(make_images(image, geometry, protocol), truth, protocol, scene.head.name, seed)
