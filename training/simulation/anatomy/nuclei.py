"""Where are the deep grey nuclei? Analytic shapes in MNI space, drawn into any anatomy.

Centres, radii and axes of the ellipsoids are the moments of the 7TAMIbrain nuclei (Alkemade 2022; MIT licence),
rounded and made symmetric; caudate and dentate, which no ellipsoid fits, are a chain of spheres and a folded shell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.simulation.tissue import Tissue

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Ellipsoid:
    """One ellipsoid of the right hemisphere, RAS millimetres; the left one is its mirror image.

    `axes` are the directions that `radii_mm` belong to, longest last.
    """

    tissue: Tissue
    centre: Vector
    radii_mm: Vector
    axes: tuple[Vector, Vector, Vector]


ELLIPSOIDS = (
    Ellipsoid(
        Tissue.THALAMUS,
        (13, -19, 7),
        (6.8, 9.5, 14.5),
        ((0.82, -0.2, -0.5), (0.35, -0.5, 0.79), (-0.43, -0.84, -0.33)),
    ),
    Ellipsoid(
        Tissue.PUTAMEN,
        (26.7, 1.5, 0.1),
        (4.6, 10.5, 16.5),
        ((0.94, 0.35, 0.05), (-0.07, 0.33, 0.94), (0.34, -0.88, 0.33)),
    ),
    Ellipsoid(
        Tissue.PALLIDUM,
        (18.6, -2.2, -1.3),
        (3.3, 5.6, 9.4),
        ((0.70, 0.65, -0.29), (-0.18, 0.22, 0.96), (-0.66, 0.71, -0.25)),
    ),
    Ellipsoid(
        Tissue.RED_NUCLEUS,
        (5.7, -19.5, -9.9),
        (3.0, 3.3, 4.6),
        ((-0.4, 0.3, -0.85), (-0.85, -0.5, 0.2), (-0.35, 0.6, 0.75)),
    ),
    Ellipsoid(
        Tissue.SUBTHALAMIC,
        (11.6, -12.5, -7.2),
        (1.4, 3.4, 5.6),
        ((0.6, 0.3, -0.74), (0.25, 0.8, 0.53), (0.75, -0.52, 0.4)),
    ),
    Ellipsoid(
        Tissue.SUBSTANTIA_NIGRA,
        (8.6, -18.0, -14.8),
        (2.0, 4.4, 6.4),
        ((0.54, 0.48, -0.69), (0.84, -0.4, 0.37), (0.09, 0.78, 0.62)),
    ),
)
CAUDATE = (
    # centre (RAS, right) and radius, mm, from head to tail
    ((11.5, 19, -1), 5.2),
    ((13, 16, 5), 5.6),
    ((13, 10, 11), 4.8),
    ((14, 3, 16), 4.0),
    ((15.5, -6, 19.5), 3.4),
    ((18, -15, 21), 2.8),
    ((21, -24, 20), 2.2),
)
DENTATE_CENTRE, DENTATE_RADII_MM, DENTATE_THICKNESS_MM = (15.0, -56.0, -34.0), (7.5, 9.5, 6.0), 1.1
BOX_RAS_MM = ((-44.0, 44.0), (-72.0, 36.0), (-46.0, 34.0))
"""The part of MNI space that holds every nucleus."""


def _soft(signed_distance_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(0.5 - signed_distance_mm / 0.8, 0, 1)


def _ellipsoid(
    x: NDArray[np.float32], y: NDArray[np.float32], z: NDArray[np.float32], e: Ellipsoid
) -> NDArray[np.float32]:
    """Fraction of each voxel inside, 0–1."""
    d = (x - e.centre[0], y - e.centre[1], z - e.centre[2])
    axes, _ = np.linalg.qr(np.array(e.axes).T)
    scaled = [sum(d[n] * axes[n, m] for n in range(3)) / e.radii_mm[m] for m in range(3)]
    radius = np.sqrt(scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2)
    return _soft((radius - 1) * min(e.radii_mm))


def _caudate(x: NDArray[np.float32], y: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.float32]:
    points = np.array([c for c, _ in CAUDATE])
    radii = np.array([r for _, r in CAUDATE])
    at = np.linspace(0, len(CAUDATE) - 1, 28)
    index = np.arange(len(CAUDATE))
    best = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), np.inf, dtype=np.float32)
    for t in at:
        cx, cy, cz, r = (float(np.interp(t, index, v)) for v in (*points.T, radii))
        np.minimum(best, np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) - r, out=best)
    return _soft(best)


def _dentate(x: NDArray[np.float32], y: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.float32]:
    """A thin folded shell, open towards the midline (its hilum)."""
    u, v, w = ((a - c) / r for a, c, r in zip((x, y, z), DENTATE_CENTRE, DENTATE_RADII_MM, strict=True))
    radius = np.sqrt(u**2 + v**2 + w**2)
    fold = 0.09 * np.sin(7 * np.arctan2(w, v)) * np.cos(3 * np.arctan2(u, v))
    shell = np.abs(radius - 1 - fold) * min(DENTATE_RADII_MM) - DENTATE_THICKNESS_MM
    return np.where(u < -0.75, 0, _soft(shell)).astype(np.float32)


@lru_cache(maxsize=1)
def draw_nuclei(spacing_mm: float = 0.5) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Vector]:
    """All nuclei on a grid of their own.

    Returns
    -------
    label, fraction : ndarray of uint8, shape (k, j, i)
        Tissue value of the nearest nucleus, and how much of the voxel it fills (0–255). Axes along LPS.
    origin : tuple of float
        LPS-oriented MNI coordinates of voxel (0, 0, 0), mm.
    """
    (x0, x1), (y0, y1), (z0, z1) = BOX_RAS_MM
    x = np.arange(-x1, -x0 + 1e-3, spacing_mm, dtype=np.float32)[None, None, :]
    y = np.arange(-y1, -y0 + 1e-3, spacing_mm, dtype=np.float32)[None, :, None]
    z = np.arange(z0, z1 + 1e-3, spacing_mm, dtype=np.float32)[:, None, None]
    fraction = np.zeros((z.size, y.size, x.size), dtype=np.float32)
    label = np.zeros(fraction.shape, dtype=np.uint8)
    right, anterior = np.abs(x), -y
    drawn = [(e.tissue, _ellipsoid(right, anterior, z, e)) for e in ELLIPSOIDS]
    drawn += [(Tissue.CAUDATE, _caudate(right, anterior, z)), (Tissue.DENTATE, _dentate(right, anterior, z))]
    for tissue, part in drawn:
        stronger = part > fraction
        fraction[stronger] = part[stronger]
        label[stronger] = tissue
    # Resampling may look just beyond the edge, where the fraction is small but the label must still be right.
    label = np.where(label == 0, ndimage.maximum_filter(label, 5), label)
    return label, np.round(fraction * 255).astype(np.uint8), (-x1, -y1, z0)
