"""What could a perfect reader see of each inclusion? Judged on noise-free images with and without it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import Geometry

from .inclusion import Inclusion, InclusionKind

Float32 = NDArray[np.float32]
VISIBLE_CONTRAST = 0.25
"""An inclusion counts as visible when it darkens the SWI by this share of the tissue round it …"""
VISIBLE_CNR = 4.0
"""… by this many times the noise …"""
VISIBLE_CONSPICUITY = 1.5
"""… and by this many times the local spread of the picture without it."""
_WINDOW_MM = 6.0
_TISSUE_LEVEL = 0.3
"""Share of the bright end of the window below which a voxel is not tissue."""


@dataclass(frozen=True)
class Visibility:
    """How an inclusion shows in the SWI.

    Parameters
    ----------
    visible : bool
        Whether it passes the three thresholds of this module.
    contrast : float
        Largest darkening, relative to the median of the tissue round it (within about 6 mm).
    cnr : float
        Mean darkening in its mask over the standard deviation of the noise.
    conspicuity : float
        The same over the local spread (robust) of the noise-free picture without it.
    apparent_diameter_mm : float
        Of the circle with the area of the largest in-plane section of its mask, which reaches to where the darkening
        falls below what can be seen (or below half its peak, if that is fainter).
    apparent_volume_mm3 : float
        Of its mask.
    """

    visible: bool
    contrast: float
    cnr: float
    conspicuity: float
    apparent_diameter_mm: float
    apparent_volume_mm3: float


NOT_SEEN = Visibility(False, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class TruthEntry:
    """One inclusion with what is seen of it; `label` is its value in the mask (0 when no voxel shows it)."""

    inclusion: Inclusion
    seen: Visibility
    label: int

    def to_json(self) -> dict[str, Any]:
        """The entry of the truth file."""
        inclusion = self.inclusion
        return {
            "kind": inclusion.kind.value,
            "label": self.label,
            "centre_lps_mm": [round(v, 3) for v in inclusion.centre_lps_mm],
            "radius_mm": round(inclusion.radius_mm, 4),
            "chi_ppm": round(inclusion.chi_ppm, 4),
            "region": inclusion.region,
            "location": inclusion.location,
            "side": inclusion.side,
            "placement": inclusion.placement,
            **{k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self.seen).items()},
            "spheres": [asdict(s) for s in inclusion.spheres],
        }


@dataclass(frozen=True, eq=False)
class SimulatedTruth:
    """All inclusions of a study and their visible mask.

    Parameters
    ----------
    entries : tuple of TruthEntry
        Microbleeds, mimics and null insertions.
    labels : ndarray of uint16, shape (k, j, i)
        Label of the inclusion each voxel shows, else 0.
    """

    entries: tuple[TruthEntry, ...]
    labels: NDArray[np.uint16]

    def of(self, *kinds: InclusionKind) -> tuple[TruthEntry, ...]:
        """Entries of some kinds."""
        return tuple(e for e in self.entries if e.inclusion.kind in kinds)


def _window(centre: NDArray[np.float64], radius_mm: float, grid: Geometry) -> tuple[slice, slice, slice] | None:
    middle = grid.to_ijk(centre)[::-1]
    reach = (radius_mm * 2.5 + _WINDOW_MM) / np.array(grid.spacing[::-1])
    low = np.maximum(np.floor(middle - reach), 0).astype(int)
    high = np.minimum(np.ceil(middle + reach) + 1, grid.shape).astype(int)
    if np.any(low >= high):
        return None
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


@njit(cache=True)
def _nearest(low, shape, affine, centres, n):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Where centre `n` is the nearest, in a box (k, j, i) that starts at voxel `low`."""
    own = np.empty(shape, dtype=np.bool_)
    for k in range(shape[0]):
        for j in range(shape[1]):
            for i in range(shape[2]):
                a, b, c = low[2] + i, low[1] + j, low[0] + k
                x = affine[0, 0] * a + affine[0, 1] * b + affine[0, 2] * c + affine[0, 3]
                y = affine[1, 0] * a + affine[1, 1] * b + affine[1, 2] * c + affine[1, 3]
                z = affine[2, 0] * a + affine[2, 1] * b + affine[2, 2] * c + affine[2, 3]
                here = (x - centres[n, 0]) ** 2 + (y - centres[n, 1]) ** 2 + (z - centres[n, 2]) ** 2
                nearest = True
                for m in range(len(centres)):
                    there = (x - centres[m, 0]) ** 2 + (y - centres[m, 1]) ** 2 + (z - centres[m, 2]) ** 2
                    if there < here or (there == here and m < n):
                        nearest = False
                        break
                own[k, j, i] = nearest
    return own


def _own_part(
    drop: Float32, box: tuple[slice, slice, slice], n: int, centres: NDArray[np.float64], grid: Geometry
) -> NDArray[np.bool_]:
    """Voxels of the box that belong to inclusion `n` and not to a nearer one, within reach of it."""
    low = np.array([s.start for s in box])
    return np.asarray(_nearest(low, drop.shape, grid.affine[:3], centres, n) & np.isfinite(drop))


def _tissue_around(swi_without: Float32, own: NDArray[np.bool_]) -> Float32:
    """Values of the window's tissue: not bone, air or a sinus, which nobody compares a microbleed with."""
    values = swi_without[own]
    if values.size == 0:
        return values
    return np.asarray(values[values > _TISSUE_LEVEL * np.percentile(values, 90)])


def _see(
    swi_without: Float32, drop: Float32, own: NDArray[np.bool_], noise_sd: float, grid: Geometry
) -> tuple[Visibility, NDArray[np.bool_]]:
    """What is seen of one inclusion in its window, and its mask."""
    peak = float(drop[own].max(initial=0.0))
    around = _tissue_around(swi_without, own)
    surround = float(np.median(around)) if around.size else 0.0
    empty = np.zeros(drop.shape, dtype=bool)
    if peak <= 0 or surround <= 0:
        return NOT_SEEN, empty
    edge = min(0.5 * peak, VISIBLE_CONTRAST * surround)
    parts, _ = ndimage.label(own & (drop >= edge))
    at = np.unravel_index(int(np.where(own, drop, -np.inf).argmax()), drop.shape)
    mask = np.asarray(parts == parts[at])
    area = float(mask.sum(axis=(1, 2)).max()) * grid.spacing[0] * grid.spacing[1]
    mean = float(drop[mask].mean())
    spread = float(np.subtract(*np.percentile(around, [75, 25]))) / 1.349
    contrast, cnr = peak / surround, mean / max(noise_sd, 1e-9)
    conspicuity = mean / max(spread, 1e-9)
    visible = contrast >= VISIBLE_CONTRAST and cnr >= VISIBLE_CNR and conspicuity >= VISIBLE_CONSPICUITY
    seen = Visibility(
        bool(visible),
        contrast,
        cnr,
        conspicuity,
        2 * float(np.sqrt(area / np.pi)),
        float(mask.sum()) * grid.voxel_volume,
    )
    return seen, mask


def judge(
    inclusions: tuple[Inclusion, ...], swi_with: Float32, swi_without: Float32, noise_sd: float, grid: Geometry
) -> SimulatedTruth:
    """Truth of a study.

    Parameters
    ----------
    inclusions : tuple of Inclusion
        What was inserted.
    swi_with, swi_without : ndarray of float32, shape (k, j, i)
        Noise-free SWI with all inclusions and with none. Each voxel's darkening is credited to the nearest inclusion.
    noise_sd : float
        Of the SWI that will be shown.
    grid : Geometry
        Of the images.
    """
    labels = np.zeros(swi_with.shape, dtype=np.uint16)
    centres = np.array([i.centre_lps_mm for i in inclusions]).reshape(-1, 3)
    entries = []
    for n, inclusion in enumerate(inclusions):
        box = None if inclusion.is_null else _window(centres[n], inclusion.radius_mm, grid)
        if box is None:
            entries.append(TruthEntry(inclusion, NOT_SEEN, 0))
            continue
        drop = swi_without[box] - swi_with[box]
        own = _own_part(drop, box, n, centres, grid)
        seen, mask = _see(swi_without[box], drop, own, noise_sd, grid)
        label = n + 1 if mask.any() else 0
        labels[box][mask] = label
        entries.append(TruthEntry(inclusion, seen, label))
    return SimulatedTruth(tuple(entries), labels)
