"""What is a microbleed or a mimic made of? Unions of susceptibility spheres, whatever they are called."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import InputError

Point = tuple[float, float, float]
R2STAR_HZ_PER_PPM_AT_3T = 137.0
"""Relaxation rate that ferric iron adds, per ppm of a microbleed's susceptibility (Liu 2012; scaled with field)."""


class InclusionKind(StrEnum):
    """What an inclusion stands for."""

    BLEED = "bleed"
    CALCIFICATION = "calcification"
    CAVERNOMA = "cavernoma"
    IRON = "iron"
    NULL = "null"
    VEIN = "vein"

    @property
    def is_lesion(self) -> bool:
        """Whether a detector should find it."""
        return self is InclusionKind.BLEED


@dataclass(frozen=True)
class Sphere:
    """A sphere of uniform susceptibility.

    Parameters
    ----------
    centre_lps_mm : tuple of float
        Patient coordinates.
    radius_mm : float
        Of the substance itself, before any blooming.
    chi_ppm : float
        Against the tissue round it.
    density : float
        Proton density inside relative to that tissue, 0–1.
    """

    centre_lps_mm: Point
    radius_mm: float
    chi_ppm: float
    density: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.radius_mm <= 30:
            raise InputError(f"a sphere of radius {self.radius_mm} mm", do="use 0.05 to 30 mm")

    def extra_r2star_hz(self, field_strength_t: float) -> float:
        """Relaxation rate added inside."""
        return R2STAR_HZ_PER_PPM_AT_3T * abs(self.chi_ppm) * field_strength_t / 3


@dataclass(frozen=True)
class Inclusion:
    """One microbleed, mimic or null insertion.

    Parameters
    ----------
    kind : InclusionKind
        What it stands for; the insertion does not look at it.
    spheres : tuple of Sphere
        Its substance: where they overlap, it is counted once.
    region, location, side : str
        Where it lies (lobar, deep, infratentorial; lobe or structure; left, right, midline).
    placement : str
        How its site was drawn: anywhere, cortex, edge, vein, …
    """

    kind: InclusionKind
    spheres: tuple[Sphere, ...]
    region: str = ""
    location: str = ""
    side: str = ""
    placement: str = ""

    @property
    def centre_lps_mm(self) -> Point:
        """Volume-weighted centre."""
        weight = [s.radius_mm**3 for s in self.spheres]
        total = sum(weight)
        x, y, z = (
            sum(w * s.centre_lps_mm[a] for w, s in zip(weight, self.spheres, strict=True)) / total for a in range(3)
        )
        return x, y, z

    @property
    def radius_mm(self) -> float:
        """Radius of a sphere of the same volume, overlaps counted twice."""
        return float(sum(s.radius_mm**3 for s in self.spheres) ** (1 / 3))

    @property
    def chi_ppm(self) -> float:
        """Volume-weighted susceptibility."""
        weight = [s.radius_mm**3 for s in self.spheres]
        return sum(w * s.chi_ppm for w, s in zip(weight, self.spheres, strict=True)) / sum(weight)

    @property
    def is_null(self) -> bool:
        """Whether inserting it changes nothing."""
        return all(s.chi_ppm == 0 and s.density == 1 for s in self.spheres)
