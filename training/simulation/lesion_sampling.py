"""Which microbleeds and mimics does this patient have, and where? Drawn at random, sizes and sites alike for both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .inclusion import Inclusion, InclusionKind, Point, Sphere

Rng = np.random.Generator


class SiteSource(Protocol):
    """Where inclusions can lie: a simulated head, or the brain of a real scan."""

    def draw(self, placement: str, region: str | None, rng: Rng, /) -> Point | None:
        """A random site, or ``None`` if there is none of that kind."""

    def near(self, at: Point, spread_mm: float, rng: Rng, /) -> Point | None:
        """A random site of the brain around `at`, or ``None`` if there is none."""

    def region(self, at: Point, /) -> tuple[str, str, str]:
        """Region, location and side of a point."""


@dataclass(frozen=True)
class LesionParameters:
    """How many inclusions of each kind, and how large.

    Parameters
    ----------
    free_share : float
        Share of scans without any microbleed.
    median_count : float
        Median number of microbleeds in the others (log-normal, at most `most`).
    most : int
        Largest number of microbleeds.
    calcifications, cavernomas, iron, nulls : float
        Mean number of each (Poisson).
    radius_mm : tuple of float
        Median, and smallest and largest radius of a microbleed.
    chi_ppm : tuple of float
        Median, and smallest and largest susceptibility of a microbleed.
    faint_share : float
        Share of microbleeds made small and weak, near what can be seen.
    """

    free_share: float = 1 / 3
    median_count: float = 3.0
    most: int = 50
    calcifications: float = 3.0
    cavernomas: float = 0.15
    iron: float = 0.3
    nulls: float = 4.0
    radius_mm: tuple[float, float, float] = (0.95, 0.3, 2.5)
    chi_ppm: tuple[float, float, float] = (1.4, 0.2, 4.0)
    faint_share: float = 0.33
    separation_mm: float = 7.0


@dataclass(frozen=True)
class Clusters:
    """Groups of microbleeds, as in cerebral amyloid angiopathy: in the cortex of a lobe, close together.

    Parameters
    ----------
    share : float
        Share of scans that have any.
    clusters, members : tuple of int
        Range of their number, and of the microbleeds of each.
    spread_mm : tuple of float
        Range of the standard deviation of the places about the middle.
    separation_mm : float
        Least distance between two microbleeds.
    """

    share: float = 0.15
    clusters: tuple[int, int] = (1, 3)
    members: tuple[int, int] = (3, 12)
    spread_mm: tuple[float, float] = (4.0, 12.0)
    separation_mm: float = 2.5


PLACEMENTS = (("anywhere", 0.5), ("cortex", 0.22), ("edge", 0.1), ("vein", 0.18))
REGION_SHARES = (("lobar", 0.55), ("deep", 0.25), ("infratentorial", 0.2))


def _count(p: LesionParameters, rng: Rng) -> int:
    if rng.random() < p.free_share:
        return 0
    return int(np.clip(round(p.median_count * np.exp(0.85 * rng.standard_normal())), 1, p.most))


def _cluster(centre: Point, radius: float, chi: float, density: float, rng: Rng) -> tuple[Sphere, ...]:
    """One to four overlapping spheres, round or slightly irregular."""
    n = int(rng.choice([1, 2, 3, 4], p=[0.45, 0.25, 0.2, 0.1]))
    spheres = [Sphere(centre, radius, chi, density)]
    for _ in range(n - 1):
        away = rng.standard_normal(3)
        away *= radius * rng.uniform(0.3, 0.8) / np.linalg.norm(away)
        at = tuple((np.array(centre) + away).tolist())
        spheres.append(Sphere(at, radius * rng.uniform(0.4, 0.8), chi * rng.uniform(0.8, 1.2), density))
    return tuple(spheres)


def _size(p: LesionParameters, rng: Rng) -> tuple[float, float]:
    """Radius and susceptibility of one microbleed; a share of them is faint."""
    median, low, high = p.radius_mm
    if rng.random() < p.faint_share:
        radius = rng.uniform(low, 0.75 * median)
        chi = p.chi_ppm[0] * np.exp(0.35 * rng.standard_normal()) * 0.65
    else:
        radius = median * np.exp(0.42 * rng.standard_normal())
        chi = p.chi_ppm[0] * np.exp(0.42 * rng.standard_normal()) * (median / radius) ** 0.35
    return float(np.clip(radius, low, high)), float(np.clip(chi, *p.chi_ppm[1:]))


def _pick(shares: tuple[tuple[str, float], ...], rng: Rng) -> str:
    weight = np.array([w for _, w in shares])
    return shares[int(rng.choice(len(shares), p=weight / weight.sum()))][0]


class _Draw:
    """Draws inclusions one after the other, keeping them apart."""

    def __init__(self, sites: SiteSource, p: LesionParameters, rng: Rng) -> None:
        self.sites, self.p, self.rng = sites, p, rng
        self.taken: list[Point] = []
        self.made: list[Inclusion] = []

    def _site(self, placement: str, region: str | None) -> Point | None:
        for _ in range(40):
            at = self.sites.draw(placement, region, self.rng)
            if at is None:
                return None
            if all(np.linalg.norm(np.array(at) - np.array(o)) >= self.p.separation_mm for o in self.taken):
                return at
        return None

    def add(
        self, kind: InclusionKind, placement: str, region: str | None, radius: float, chi: float, density: float
    ) -> None:
        """Put one inclusion at a site of its own, if there is room."""
        at = self._site(placement, region)
        if at is None:
            return
        self._put(kind, at, placement, radius, chi, density)

    def _put(self, kind: InclusionKind, at: Point, placement: str, radius: float, chi: float, density: float) -> None:
        self.taken.append(at)
        spheres = (
            cavernoma(at, radius, chi, self.rng)
            if kind is InclusionKind.CAVERNOMA
            else _cluster(at, radius, chi, density, self.rng)
        )
        self.made.append(Inclusion(kind, spheres, *self.sites.region(at), placement))

    def add_cluster(self, c: Clusters) -> None:
        """Put a group of microbleeds in the cortex of a lobe."""
        middle = self.sites.draw("cortex", "lobar", self.rng)
        spread = float(self.rng.uniform(*c.spread_mm))
        for _ in range(int(self.rng.integers(c.members[0], c.members[1] + 1)) if middle is not None else 0):
            at = None if middle is None else self.sites.near(middle, spread, self.rng)
            radius, chi = _size(self.p, self.rng)
            density = self.rng.uniform(0.7, 1.0)
            if at is not None and all(np.linalg.norm(np.subtract(at, o)) >= c.separation_mm for o in self.taken):
                self._put(InclusionKind.BLEED, at, "cluster", radius, chi, density)


def cavernoma(centre: Point, radius: float, chi: float, rng: Rng) -> tuple[Sphere, ...]:
    """A mulberry: a weak body with a few strong cores, and some that are paramagnetic only slightly."""
    spheres = [Sphere(centre, radius, chi, 0.9)]
    for _ in range(int(rng.integers(3, 7))):
        away = rng.standard_normal(3)
        away *= radius * rng.uniform(0.2, 0.75) / np.linalg.norm(away)
        at = tuple((np.array(centre) + away).tolist())
        core = chi * float(rng.choice([0.5, 2.5, 4.0]))
        spheres.append(Sphere(at, radius * rng.uniform(0.2, 0.4), core, rng.uniform(0.6, 1.0)))
    return tuple(spheres)


def draw_inclusions(
    sites: SiteSource, p: LesionParameters, rng: Rng, clusters: Clusters | None = None
) -> tuple[Inclusion, ...]:
    """All microbleeds, mimics and null insertions of one study."""
    draw = _Draw(sites, p, rng)
    for _ in range(_count(p, rng)):
        radius, chi = _size(p, rng)
        draw.add(
            InclusionKind.BLEED, _pick(PLACEMENTS, rng), _pick(REGION_SHARES, rng), radius, chi, rng.uniform(0.7, 1.0)
        )
    for _ in range(int(rng.poisson(p.nulls))):
        radius, _chi = _size(p, rng)
        draw.add(InclusionKind.NULL, _pick(PLACEMENTS, rng), _pick(REGION_SHARES, rng), radius, 0.0, 1.0)
    for _ in range(int(rng.poisson(p.calcifications))):
        radius, strength = _size(p, rng)
        chi = -float(np.clip(1.4 * strength, 0.4, 3.0))
        # Half lie where microbleeds lie, so that the site tells nothing; the rest where calcium is usual.
        usual = rng.random() < 0.5
        placement = str(rng.choice(["falx", "pineal", "choroid", "pallidum"])) if usual else _pick(PLACEMENTS, rng)
        draw.add(
            InclusionKind.CALCIFICATION,
            placement,
            None if usual else _pick(REGION_SHARES, rng),
            radius,
            chi,
            rng.uniform(0.1, 0.6),
        )
    for _ in range(int(rng.poisson(p.cavernomas))):
        draw.add(InclusionKind.CAVERNOMA, "anywhere", _pick(REGION_SHARES, rng), rng.uniform(2.0, 4.0), 0.35, 0.9)
    for _ in range(int(rng.poisson(p.iron))):
        draw.add(InclusionKind.IRON, "pallidum", None, rng.uniform(0.8, 1.8), rng.uniform(0.2, 0.45), 1.0)
    if clusters is not None and rng.random() < clusters.share:
        for _ in range(int(rng.integers(clusters.clusters[0], clusters.clusters[1] + 1))):
            draw.add_cluster(clusters)
    return tuple(draw.made)
