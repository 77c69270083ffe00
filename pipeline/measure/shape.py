"""Is a dark region small, compact and round like a microbleed, or part of something longer? The shape filter.

The geometric tests of Bian et al. (2013, NeuroImage: Clinical 2:282): area, circularity, how far the centre moves from
slice to slice, and how many slices it runs through; a vessel that crosses the slices fails the last two. One test is
added for vessels that lie in the slice and appear as a row of dark beads: a microbleed is isolated, so the rim around
it is clear.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy import ndimage

from pipeline.geometry import Volume
from pipeline.parameters import Parameters

from .region import FACES_IN_3D, Region

Mask = NDArray[np.bool_]

PHASE_LIMIT = 0.3
"""Radians; phase is clipped here because it scales with field strength, echo time and filter, and wraps."""


class ShapeParameters(Parameters):
    """Limits of the filter. Lengths are millimetres; see :class:`Shape` for the other measures."""

    diameter_mm: tuple[float, float] = Field((1.0, 10.0), description="Least and largest")
    extent_mm: float = Field(12.0, gt=0, description="Largest")
    contrast: float = Field(0.3, ge=0, le=1, description="Least")
    contrast_to_noise: float = Field(1.5, ge=0, description="Least")
    circularity: float = Field(0.73, ge=0, le=1, description="Least")
    shift: float = Field(0.5, gt=0, description="Largest")
    isolation: float = Field(0.5, ge=0, le=1, description="Least")
    compactness: float = Field(0.02, ge=0, le=1, description="Least")


@dataclass(frozen=True)
class Shape:
    """Measures of a region and of its surroundings.

    Parameters
    ----------
    response : float
        The candidate's score s as s / (1 + s).
    diameter_mm : float
        Of the circle with the area of the largest section.
    extent_mm : float
        Through the slices.
    contrast : float
        Depth of the darkest voxel: the share of the background's signal that is lost there.
    contrast_to_noise : float
        The same in spreads of the background.
    circularity : float
        Share of the largest section that lies in the disc of its area, 0 to 1.
    shift : float
        Largest move of the centre from one slice to the next, in diameters.
    isolation : float
        How clear the rim around it is: one minus the depth of the dark end of the rim over `contrast`, 0 to 1.
    compactness : float
        Volume of the region over that of the connected region at half its level, 0 to 1; small for a vessel.
    bounded : float
        1 if the region ended before the largest size, 0 if it was cut there: most likely a vessel.
    phase : float or None
        Mean phase of the region, radians, clipped to ±0.3: blood is paramagnetic (positive), calcium is not.
        ``None`` without a phase image.
    """

    response: float
    diameter_mm: float
    extent_mm: float
    contrast: float
    contrast_to_noise: float
    circularity: float
    shift: float
    isolation: float
    compactness: float
    bounded: float = 1.0
    phase: float | None = None


class RatingParameters(Parameters):
    """How much is a shape like a microbleed? A logistic function of a few measures, monotonic in each.

    It ranks candidates without a trained classifier: a score between 0 and 1, *not* a calibrated probability.
    """

    offset: float = Field(description="Log odds when every measure is 0")
    phase_unknown: float = Field(0.15, description="Stands for the phase of a study without one")
    weights: dict[str, float] = Field(min_length=1, description="Log odds for a unit of a measure, by its name")

    @field_validator("weights")
    @classmethod
    def _measures(cls, weights: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(weights) - {f.name for f in fields(Shape)}):
            raise ValueError(f"unknown measure {', '.join(unknown)}")
        return weights


def rate(shape: Shape, parameters: RatingParameters) -> float:
    """Rate a shape between 0 and 1; see :class:`RatingParameters`."""
    odds = parameters.offset
    for name, weight in parameters.weights.items():
        value = getattr(shape, name)
        odds += weight * (parameters.phase_unknown if value is None else value)
    return float(1 / (1 + np.exp(-np.clip(odds, -30, 30))))


def passes(shape: Shape, parameters: ShapeParameters) -> bool:
    """Whether a shape passes every test of :class:`ShapeParameters`."""
    least, most = parameters.diameter_mm
    return (
        least <= shape.diameter_mm <= most
        and shape.extent_mm <= parameters.extent_mm
        and shape.contrast >= parameters.contrast
        and shape.contrast_to_noise >= parameters.contrast_to_noise
        and shape.circularity >= parameters.circularity
        and shape.shift <= parameters.shift
        and shape.isolation >= parameters.isolation
        and shape.compactness >= parameters.compactness
    )


def describe(region: Region, rim_mm: float, phase: Volume | None = None) -> Shape:
    """Measure the shape of a region and of the rim (of width `rim_mm`) around it, and its phase if there is one."""
    slices = np.flatnonzero(region.mask.any((1, 2)))
    largest = int(np.argmax(region.mask.sum((1, 2))))
    return Shape(
        response=region.candidate.score / (1 + region.candidate.score),
        diameter_mm=region.diameter_mm,
        extent_mm=float((slices[-1] - slices[0] + 1) * region.spacing[2]),
        contrast=region.contrast,
        contrast_to_noise=region.contrast / max(region.noise, 1e-3),
        circularity=circularity(region.mask[largest], region.spacing[:2]),
        shift=_shift(region, slices),
        isolation=_isolation(region, rim_mm),
        compactness=_compactness(region),
        bounded=float(region.bounded),
        phase=None if phase is None else float(np.clip(phase.array[region.voxels].mean(), -PHASE_LIMIT, PHASE_LIMIT)),
    )


def circularity(section: Mask, spacing: tuple[float, float]) -> float:
    """Share of a section that lies in the disc of its area about its centre, 0 to 1.

    Unlike 4πA/P², it does not depend on the perimeter, which is ill-defined for a few pixels.
    """
    i_step, j_step = spacing
    rows, columns = np.nonzero(section)
    radius = np.sqrt(rows.size * i_step * j_step / np.pi)
    far = np.hypot((rows - rows.mean()) * j_step, (columns - columns.mean()) * i_step)
    # Half a voxel of tolerance: a disc drawn on a grid is ragged.
    return float((far <= radius + (i_step + j_step) / 4).mean())


def _shift(region: Region, slices: NDArray[np.intp]) -> float:
    i_step, j_step, _ = region.spacing
    centres = [np.array([np.mean(x) for x in np.nonzero(region.mask[k])]) * (j_step, i_step) for k in slices]
    moves = [float(np.linalg.norm(b - a)) for a, b in pairwise(centres)]
    return max(moves, default=0.0) / region.diameter_mm


def _isolation(region: Region, rim_mm: float) -> float:
    spacing = region.spacing[::-1]
    distance = ndimage.distance_transform_edt(~region.mask, sampling=spacing)
    step = max(spacing[1:])
    rim = region.depth[(distance > step) & (distance <= step + max(rim_mm, spacing[0]))]
    return float(np.clip(1 - np.percentile(rim, 90) / region.contrast, 0, 1)) if rim.size else 0.0


def _compactness(region: Region) -> float:
    level = float(region.depth[region.mask].min()) / 2
    labels, _ = ndimage.label(region.depth >= level, FACES_IN_3D)
    return float(region.mask.sum() / (labels == labels[region.mask][0]).sum())
