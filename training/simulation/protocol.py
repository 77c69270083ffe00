"""How is the head scanned? Sequence, timing, voxel and everything that spoils the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import InputError

from .tissue import GYROMAGNETIC_MHZ_PER_T


class Sequence(StrEnum):
    """Which gradient-echo sequence."""

    SWI_3D = "swi3d"
    T2STAR_2D = "t2star2d"


class Vendor(StrEnum):
    """Whose files and filters are imitated."""

    SIEMENS = "siemens"
    GE = "ge"
    PHILIPS = "philips"
    UNITED_IMAGING = "united_imaging"


class PhaseFilter(StrEnum):
    """How the slowly varying phase is taken out."""

    HOMODYNE = "homodyne"
    UNWRAP = "unwrap"
    GAUSSIAN = "gaussian"
    BUTTERWORTH = "butterworth"


class MaskShape(StrEnum):
    """How the phase mask falls from 1 to 0."""

    LINEAR = "linear"
    COSINE = "cosine"
    SIGMOID = "sigmoid"
    TRIANGLE = "triangle"


class Apodisation(StrEnum):
    """Which window tapers k-space."""

    TUKEY = "tukey"
    HAMMING = "hamming"
    GAUSSIAN = "gaussian"
    KAISER = "kaiser"


@dataclass(frozen=True)
class NoiseModel:
    """How noise differs from white noise that is the same everywhere.

    Parameters
    ----------
    exponent : float
        Its amplitude falls as the spatial frequency to the minus this; negative values make it rise.
    g_factor : float
        Largest local amplification by parallel imaging (Pruessmann 1999), at least 1.
    acceleration : int
        Factor of the parallel imaging along j: the number of bands of amplified noise.
    """

    exponent: float = 0.0
    g_factor: float = 1.0
    acceleration: int = 2


@dataclass(frozen=True)
class SwiFilter:
    """How the susceptibility-weighted image is made.

    Parameters
    ----------
    kind : PhaseFilter
        Complex division by a low-passed image, whose window is Hann (homodyne; Noll 1991, Haacke 2004), Gaussian or
        Butterworth; or unwrapping and a Gaussian high-pass.
    width : int
        Width of the Hann or Butterworth window in k-space samples.
    sigma_mm : float
        Of the Gaussian.
    power : int
        How often the phase mask multiplies the magnitude; 0 leaves the magnitude as it is.
    mip_mm : float
        Thickness of the minimum-intensity projection.
    mask : MaskShape or None
        Shape of the phase mask; linear without it.
    """

    kind: PhaseFilter = PhaseFilter.HOMODYNE
    width: int = 64
    sigma_mm: float = 2.5
    power: int = 4
    mip_mm: float = 16.0
    mask: MaskShape | None = None


@dataclass(frozen=True)
class Protocol:
    """One acquisition.

    Parameters
    ----------
    field_strength_t, echo_time_ms, repetition_time_ms, flip_angle_deg : float
        The usual.
    voxel_mm : tuple of float
        Acquired voxel along ``(i, j, k)``; rounded so that a whole number fills the field of view.
    sequence : Sequence
        3D SWI or multislice 2D T2*-GRE.
    vendor : Vendor
        Whose files are written.
    filter : SwiFilter
        How the SWI is made.
    snr : float
        White-matter signal over the noise of one complex channel, before windows.
    partial_fourier : tuple of float
        Fraction of k-space sampled along ``(j, k)``.
    window : float
        Share of k-space that the Tukey window tapers, 0–1.
    zero_fill : float
        In-plane interpolation by zero-filling, 1 or 2.
    motion_mm : float
        Size of random head movement during the scan.
    shading : float
        Strength of the receive profile left in the image, 0–1.
    apodisation : Apodisation or None
        Window of k-space; Tukey without it.
    noise : NoiseModel or None
        White noise, the same everywhere, without it.
    bias : float or None
        Spread of the logarithm of a local receive profile of no particular form.
    slab_edge : float or None
        Share of the slab at either end over which the excitation falls off (3D).
    slice_width : float or None
        Full width at half maximum of a Gaussian slice over the slice distance (2D); rectangular slices without it.
    slice_fill : float or None
        Interpolation across slices by zero-filling (3D), 1 to 2.
    ghost : float or None
        Relative modulation of the phase-encoding lines by pulsation.
    """

    name: str = "swi"
    field_strength_t: float = 3.0
    echo_time_ms: float = 20.0
    repetition_time_ms: float = 28.0
    flip_angle_deg: float = 15.0
    voxel_mm: tuple[float, float, float] = (0.5, 0.5, 2.0)
    sequence: Sequence = Sequence.SWI_3D
    vendor: Vendor = Vendor.SIEMENS
    filter: SwiFilter = SwiFilter()
    snr: float = 18.0
    partial_fourier: tuple[float, float] = (1.0, 1.0)
    window: float = 0.25
    zero_fill: float = 1.0
    motion_mm: float = 0.0
    shading: float = 0.25
    apodisation: Apodisation | None = None
    noise: NoiseModel | None = None
    bias: float | None = None
    slab_edge: float | None = None
    slice_width: float | None = None
    slice_fill: float | None = None
    ghost: float | None = None

    def __post_init__(self) -> None:
        self._check_timing()
        self._check_sampling()

    def _check_timing(self) -> None:
        where = f"protocol {self.name!r}"
        if not 0.2 <= self.field_strength_t <= 12:
            raise InputError(f"field strength {self.field_strength_t} T", where=where, do="use about 1.5, 3 or 7 T")
        if not 0 < self.echo_time_ms < self.repetition_time_ms:
            raise InputError(
                f"echo time {self.echo_time_ms} ms does not fit in a repetition time of {self.repetition_time_ms} ms",
                where=where,
                do="shorten the echo time or lengthen the repetition time",
            )
        if not 0 < self.flip_angle_deg <= 90:
            raise InputError(f"flip angle {self.flip_angle_deg}°", where=where, do="use 1° to 90°")

    def _check_sampling(self) -> None:
        where = f"protocol {self.name!r}"
        if min(self.voxel_mm) < 0.15 or max(self.voxel_mm) > 12:
            raise InputError(f"voxel of {self.voxel_mm} mm", where=where, do="use edges from 0.15 to 12 mm")
        if self.snr <= 0:
            raise InputError(f"signal-to-noise ratio {self.snr}", where=where, do="use a positive number")
        if not all(0.55 <= p <= 1 for p in self.partial_fourier):
            raise InputError(f"partial Fourier {self.partial_fourier}", where=where, do="use fractions from 0.55 to 1")
        if not 0 <= self.window <= 1 or not 1 <= self.zero_fill <= 2:
            raise InputError("window outside 0–1 or zero filling outside 1–2", where=where, do="correct the protocol")
        if self.motion_mm < 0 or not 0 <= self.shading <= 1:
            raise InputError("negative motion or shading outside 0–1", where=where, do="correct the protocol")
        if self.slice_fill is not None and not 1 <= self.slice_fill <= 2:
            raise InputError("interpolation across slices outside 1–2", where=where, do="correct the protocol")
        if self.noise is not None and (self.noise.g_factor < 1 or self.noise.acceleration < 1):
            raise InputError("g-factor or acceleration below 1", where=where, do="correct the protocol")

    @property
    def radians_per_ppm(self) -> float:
        """Phase at the echo time of a field shift of 1 ppm."""
        return 2 * math.pi * GYROMAGNETIC_MHZ_PER_T * self.field_strength_t * self.echo_time_ms * 1e-3
