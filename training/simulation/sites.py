"""Where in a head can a microbleed or a mimic lie?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from .distance import distance_from
from .inclusion import Point
from .regions import REGIONS, cortical_depth, region_of
from .scene import Scene
from .tissue import Tissue

_FAR_MM = 60.0


class Sites:
    """Candidate sites of one scene, by placement and region.

    Parameters
    ----------
    scene : Scene
        The head.

    Notes
    -----
    Placements are *anywhere* in the brain, *cortex* (grey matter at a sulcus), *edge* (within 3 mm of the brain's
    outer surface), *vein* (within about a radius of a vein), and for calcium *falx*, *pineal*, *choroid* and
    *pallidum*.
    """

    def __init__(self, scene: Scene) -> None:
        ground = scene.ground
        self._grid = ground.geometry
        self._step = ground.geometry.spacing[0]
        self._head = scene.head
        brain = ground.grey + ground.white > 0.7
        self._depth = cortical_depth(ground.csf, ground.inside, ground.ventricles, self._step)
        skull = distance_from(~ground.inside) * self._step
        stride = round(self._step / scene.head.geometry.spacing[0])
        k, j, i = self._grid.shape
        inlay = scene.head.inlay[::stride, ::stride, ::stride][:k, :j, :i]
        share = scene.head.inlay_fraction[::stride, ::stride, ::stride][:k, :j, :i]
        mni = self._mni_grid()
        x, y, z = np.abs(mni[0]), mni[1], mni[2]
        wall = ndimage.binary_dilation(ground.ventricles, iterations=1)
        self._masks: dict[str, NDArray[np.bool_]] = {
            "anywhere": brain & (skull > 3),
            "cortex": (ground.grey > 0.5) & (self._depth < 3) & (skull > 3),
            "edge": brain & (skull > 2.5) & (skull < 7.5),
            "falx": (x < 3) & (ground.csf > 0.3) & ground.inside & (z > 25) & (skull > 4),
            "pineal": (x < 4) & (np.abs(y - 28) < 4) & (np.abs(z - 1) < 4),
            "choroid": wall & (x > 8) & (y > 15),
            "pallidum": (inlay == Tissue.PALLIDUM) & (share > 128),
        }
        self._regions = self._region_grid(mni, brain)
        self._veins = 0.5 * (scene.tree.start + scene.tree.end)
        self._vein_radius = scene.tree.radius
        self._index: dict[tuple[str, str | None], NDArray[np.int64]] = {}

    def _mni_grid(self) -> NDArray[np.float32]:
        """LPS-oriented MNI coordinates of every voxel, shape (3, k, j, i)."""
        k, j, i = self._grid.shape
        out = np.empty((3, k, j, i), dtype=np.float32)
        jj, ii = np.meshgrid(np.arange(j), np.arange(i), indexing="ij")
        for n in range(k):
            points = np.stack([ii.ravel(), jj.ravel(), np.full(ii.size, n)], axis=1)
            out[:, n] = self._head.to_mni(self._grid.to_lps(points)).T.reshape(3, j, i)
        return out

    def _region_grid(self, mni: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Stratum of every third voxel of the brain, counted from 1 (others 0)."""
        regions = np.zeros(self._grid.shape, dtype=np.uint8)
        chosen = np.flatnonzero(brain.ravel())[::3]
        regions.flat[chosen] = 1 + _strata(mni.reshape(3, -1)[:, chosen].T, self._depth.ravel()[chosen])
        return regions

    def _choices(self, placement: str, region: str | None) -> NDArray[np.int64]:
        key = (placement, region)
        if key not in self._index:
            mask = self._masks[placement]
            if region is not None:
                mask = mask & (self._regions == 1 + REGIONS.index(region))
            self._index[key] = np.flatnonzero(mask.ravel())
        return self._index[key]

    def _beside_vein(self, region: str | None, rng: np.random.Generator) -> Point | None:
        wide = np.flatnonzero((self._vein_radius > 0.2) & (self._vein_radius < 1.3))
        for _ in range(60):
            if wide.size == 0:
                return None
            n = int(rng.choice(wide))
            away = rng.standard_normal(3)
            away *= (self._vein_radius[n] + rng.uniform(0, 1.0)) / np.linalg.norm(away)
            at = self._veins[n] + away
            voxel = np.round(self._grid.to_ijk(at)[::-1]).astype(int)
            if np.any(voxel < 0) or np.any(voxel >= self._grid.shape) or not self._masks["anywhere"][tuple(voxel)]:
                continue
            if region is None or self._stratum(at) == region:
                return float(at[0]), float(at[1]), float(at[2])
        return None

    def draw(self, placement: str, region: str | None, rng: np.random.Generator) -> Point | None:
        """A random site, or ``None`` if the head has none of that kind."""
        if placement == "vein":
            return self._beside_vein(region, rng)
        choices = self._choices(placement, region)
        if choices.size == 0:
            return None
        k, j, i = np.unravel_index(int(choices[rng.integers(choices.size)]), self._grid.shape)
        at = self._grid.to_lps(np.array([i, j, k]) + rng.uniform(-0.5, 0.5, 3))
        return float(at[0]), float(at[1]), float(at[2])

    def near(self, at: Point, spread_mm: float, rng: np.random.Generator) -> Point | None:
        """A random site of the brain around a point, normally distributed; ``None`` if twenty tries leave the brain."""
        for _ in range(20):
            moved = np.array(at) + spread_mm * rng.standard_normal(3)
            voxel = np.round(self._grid.to_ijk(moved)[::-1]).astype(int)
            inside = bool(np.all(voxel >= 0)) and bool(np.all(voxel < self._grid.shape))
            if inside and self._masks["anywhere"][tuple(voxel)]:
                return float(moved[0]), float(moved[1]), float(moved[2])
        return None

    def _lay(self, at: ArrayLike) -> tuple[NDArray[np.float64], float]:
        """MNI coordinates of a point in patient coordinates, and its distance from the cortex."""
        voxel = np.round(self._grid.to_ijk(at)[::-1]).astype(int)
        voxel = np.clip(voxel, 0, np.array(self._grid.shape) - 1)
        return self._head.to_mni(np.asarray([at]))[0], float(min(self._depth[tuple(voxel)], _FAR_MM))

    def _stratum(self, at: ArrayLike) -> str:
        mni, depth = self._lay(at)
        return REGIONS[int(_strata(mni[None], np.array([depth]))[0])]

    def region(self, at: Point) -> tuple[str, str, str]:
        """Region, location and the patient's side of a point in patient coordinates."""
        mni, depth = self._lay(at)
        if self._head.parameters.mirror:  # the anatomy's left hemisphere is the patient's right one
            mni = mni * (-1.0, 1.0, 1.0)
        return region_of(mni, depth)


def _strata(mni: ArrayLike, depth_mm: ArrayLike) -> NDArray[np.uint8]:
    """Index into :data:`REGIONS`, coarsely: what shares are drawn by, so that a seed keeps its microbleeds.

    The truth names places by :func:`training.simulation.regions.region_of`, whose boundaries may get better.
    """
    points, depth = np.asarray(mni, dtype=np.float64), np.asarray(depth_mm, dtype=np.float64)
    x, y, z = np.abs(points[:, 0]), -points[:, 1], points[:, 2]
    tentorium = -1 - 0.17 * np.maximum(0.0, -y - 40) - 0.42 * np.maximum(0.0, x - 8)
    below = (x < 19) & (y > -46) & (y < -6) & (z < -12 - 0.25 * np.maximum(0.0, y + 30))
    below |= (y < -32) & (z < tentorium) & (z < -2)
    deep = (x < 24) & (y > -36) & (y < -2) & (z > -4) & (z < 20) & (x < 20 + 0.2 * (y + 36))
    deep |= (x > 6) & (x < 36) & (y > -16) & (y < 24) & (z > -12) & (z < 20)
    deep |= (x < 16) & (y > -48) & (y < 36) & (z > 8) & (z < 32) & (depth > 4)
    deep |= (depth > 9) & (x < 40) & (y > -62) & (y < 50) & (z > -6) & (z < 44)
    return np.where(below, 2, np.where(deep, 1, 0)).astype(np.uint8)
