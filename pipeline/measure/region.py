"""How large is a lesion? Half-maximum region growing against the local background, and properties of the region.

Blooming makes a microbleed look about twice its size in SWI: these are *apparent* sizes, as a reader measures them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from pipeline.candidates import Candidate
from pipeline.geometry import Volume
from pipeline.parameters import Parameters

Mask = NDArray[np.bool_]

FACES_IN_3D = ndimage.generate_binary_structure(3, 1)


class MeasureParameters(Parameters):
    """Settings of the region growing; lengths are millimetres."""

    seed_mm: float = Field(1.0, ge=0, description="The darkest voxel within this distance of the candidate is the seed")
    level: float = Field(
        0.5, gt=0, lt=1, description="Depth, between background (0) and seed (1), that a region reaches"
    )
    background_mm: float = Field(5.0, gt=0, description="Brain within this distance of the seed is the background")
    rim_mm: float = Field(1.5, gt=0, description="Width of the rim in which a region's isolation is judged")
    largest_mm: float = Field(10.0, gt=0, description="A larger region is cut there and marked unbounded")
    margin_mm: float = Field(0.0, ge=0, description="Distance around a candidate outside the mask that counts as brain")


@dataclass(frozen=True, eq=False)
class Region:
    """A dark region grown from one candidate.

    Parameters
    ----------
    candidate : Candidate
        Where it was grown from.
    offset : tuple of int
        First voxel ``(k, j, i)`` of the box that `mask` and `depth` cover.
    mask : ndarray of bool, shape (slices, rows, columns) of the box
        The region.
    depth : ndarray of float32, same shape
        Darkness: 0 at the background's median, 1 where there is no signal; 0 outside the brain.
    spacing : tuple of float
        Voxel size along ``(i, j, k)``, mm.
    noise : float
        Spread of the background (1.4826 times the median absolute deviation) in the unit of `depth`.
    bounded : bool
        Whether the region ended before it reached the largest allowed size.
    """

    candidate: Candidate
    offset: tuple[int, int, int]
    mask: Mask
    depth: NDArray[np.float32]
    spacing: tuple[float, float, float]
    noise: float
    bounded: bool

    @property
    def voxels(self) -> tuple[NDArray[np.intp], ...]:
        """Indices ``(k, j, i)`` of the voxels of the region in the volume."""
        return tuple(axis + low for axis, low in zip(np.nonzero(self.mask), self.offset, strict=True))

    @property
    def contrast(self) -> float:
        """Depth of the darkest voxel, 0 to 1."""
        return float(self.depth[self.mask].max())

    @property
    def volume_mm3(self) -> float:
        """Volume, mm³."""
        return float(self.mask.sum() * np.prod(self.spacing))

    @property
    def diameter_mm(self) -> float:
        """Diameter of the circle with the area of the largest section in a slice, mm."""
        area = float(self.mask.sum((1, 2)).max()) * self.spacing[0] * self.spacing[1]
        return float(2 * np.sqrt(area / np.pi))

    @property
    def centroid_ijk(self) -> tuple[float, float, float]:
        """Depth-weighted centre ``(i, j, k)`` in the volume, voxels."""
        k, j, i = ndimage.center_of_mass(self.depth * self.mask)
        return float(i + self.offset[2]), float(j + self.offset[1]), float(k + self.offset[0])


def grow(candidate: Candidate, image: Volume, brain: Mask, parameters: MeasureParameters) -> Region | None:
    """Grow the dark region that a candidate lies in.

    Parameters
    ----------
    candidate : Candidate
        Where to start.
    image : Volume
        The SWI.
    brain : ndarray of bool
        Brain mask on the grid of `image`; regions do not grow out of it, except from a candidate outside: a microbleed
        on the surface can make a notch in the mask.
    parameters : MeasureParameters
        The settings.

    Returns
    -------
    Region or None
        ``None`` if nothing there is darker than the background.
    """
    spacing = np.asarray(image.geometry.spacing[::-1])
    centre = np.rint(candidate.ijk[::-1]).astype(int)
    reach = max(parameters.largest_mm / 2, parameters.background_mm)
    low = np.maximum(centre - np.ceil(reach / spacing).astype(int), 0)
    high = np.minimum(centre + np.ceil(reach / spacing).astype(int) + 1, image.array.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inside = brain[box]
    if (high <= low).any() or not inside.any():
        return None
    distance = _distance(centre - low, inside.shape, spacing)
    values = image.array[box]
    around = values[inside & (distance <= parameters.background_mm)]
    background = float(np.median(around)) if around.size else 0.0
    if background <= 0:
        return None
    if not inside[tuple(np.clip(centre - low, 0, np.array(inside.shape) - 1))]:
        inside = inside | (distance < parameters.margin_mm)
    depth = np.where(inside, np.clip(1 - values / background, 0, 1), 0).astype(np.float32)
    near = inside & (distance <= np.maximum(parameters.seed_mm, spacing.min()))
    seed = np.unravel_index(np.argmax(np.where(near, depth, -1)), depth.shape)
    if depth[seed] <= 0:
        return None
    dark = depth >= parameters.level * depth[seed]
    labels, _ = ndimage.label(dark, FACES_IN_3D)
    region = labels == labels[seed]
    allowed = _distance(np.asarray(seed), inside.shape, spacing) <= parameters.largest_mm / 2
    return Region(
        candidate,
        (int(low[0]), int(low[1]), int(low[2])),
        region & allowed,
        depth,
        image.geometry.spacing,
        float(1.4826 * np.median(np.abs(around / background - 1))),
        bool((region & ~allowed).sum() == 0),
    )


def _distance(centre: NDArray[np.intp], shape: tuple[int, ...], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of every voxel of a box from its voxel `centre`, mm; axes ``(k, j, i)``."""
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return np.sqrt(sum(((a - c) * s) ** 2 for a, c, s in zip(axes, centre, spacing, strict=True)))
