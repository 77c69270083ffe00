"""What makes one head differ from the anatomy it comes from? Shape, age, pose and blood, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class HeadParameters:
    """What makes one head differ from the anatomy it comes from. Lengths in mm, angles in degrees."""

    age: float = 70.0
    pose_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (0.93, 0.93, 0.93)
    shear: tuple[float, float, float] = (0.0, 0.0, 0.0)
    warp_mm: float = 1.3
    atrophy_mm: float = 0.3
    iron: float = 1.0
    oxygenation: float = 0.63
    haematocrit: float = 0.42
    white_lesions: int = 6
    perivascular_spaces: int = 25
    mirror: bool = False
    bend_mm: float | None = None


@dataclass(frozen=True)
class HeadVariation:
    """How much farther than usual the heads of a set differ from their anatomies.

    Parameters
    ----------
    scale : tuple of float
        Range of the factor on each axis.
    bend_mm : tuple of float
        Range of the spread of a second warp, so smooth that it bends whole lobes and leaves the skull without dents.
    warp_mm : tuple of float
        Range of the spread of the usual warp.
    mirror : bool or None
        Whether all heads are mirrored, or none; half of them without it.
    """

    scale: tuple[float, float] = (0.85, 1.0)
    bend_mm: tuple[float, float] = (2.0, 5.0)
    warp_mm: tuple[float, float] = (0.7, 1.8)
    mirror: bool | None = None

    def vary(self, head: HeadParameters, rng: np.random.Generator) -> HeadParameters:
        """`head` with another shape."""
        common = rng.uniform(*self.scale)
        return replace(
            head,
            scale=tuple((common * rng.normal(1, 0.03, 3)).round(4).tolist()),
            shear=tuple(rng.normal(0, 0.03, 3).round(4).tolist()),
            warp_mm=round(float(rng.uniform(*self.warp_mm)), 3),
            bend_mm=round(float(rng.uniform(*self.bend_mm)), 3),
            mirror=head.mirror if self.mirror is None else self.mirror,
        )


def draw_head(rng: np.random.Generator) -> HeadParameters:
    """Parameters of a random adult head; atrophy, iron and white-matter lesions grow with age."""
    age = float(np.clip(rng.normal(70, 11), 35, 93))
    old = (age - 35) / 58
    common = rng.normal(0.935, 0.025)
    return HeadParameters(
        age=round(age, 1),
        pose_deg=tuple(np.clip(rng.normal((4, 0, 0), (7, 3, 4)), -18, 18).round(2).tolist()),
        shift_mm=tuple(rng.normal((0, 0, 0), (2, 3, 3)).round(2).tolist()),
        scale=tuple((common * rng.normal(1, 0.02, 3)).round(4).tolist()),
        shear=tuple(rng.normal(0, 0.015, 3).round(4).tolist()),
        warp_mm=round(float(rng.uniform(0.7, 1.3)), 3),
        atrophy_mm=round(float(np.clip(rng.normal(0.15 + 0.6 * old, 0.2), 0, 1.1)), 3),
        iron=round(float(np.clip(rng.normal(0.55 + 0.75 * old, 0.15), 0.5, 1.5)), 3),
        oxygenation=round(float(rng.uniform(0.55, 0.72)), 3),
        haematocrit=round(float(rng.uniform(0.37, 0.46)), 3),
        white_lesions=int(rng.poisson(1 + 14 * old**2)),
        perivascular_spaces=int(rng.poisson(10 + 40 * old)),
        mirror=bool(rng.random() < 0.5),
    )
