"""What can be measured of a candidate? Named features of its surroundings and of the dark object it lies in.

The classical approach (van den Heuvel et al. 2016, NeuroImage: Clinical 12:241: voxel features, then object features,
each for a random forest). Surroundings are sampled in millimetres, so a feature does not depend on the voxel size.
What cannot be measured, because there is no phase image or no object, is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.candidates import Candidate
from pipeline.geometry import Acquisition
from pipeline.measure.region import MeasureParameters, Region, grow
from pipeline.measure.shape import Shape, describe
from pipeline.networks.inputs import Inputs, cut_patches, prepare

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

SHAPE = (13, 21, 21)
STEP_MM = (0.8, 0.8, 1.0)
CHANNELS = ("swi", "cosine", "sine", "magnitude", "brain")
BATCH = 256
RINGS_MM = ((0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 5.0), (5.0, 8.0))
FAR_MM = (3.0, 8.0)
"""Brain at this distance is the background."""
ALONG_MM = (2.0, 3.0, 4.0)


class FeatureGrid(NamedTuple):
    """Offsets of a patch's voxels from its centre, mm; `r` is their length, `rho` that within the slice."""

    x: Floats
    y: Floats
    z: Floats
    r: Floats
    rho: Floats


def _grid() -> FeatureGrid:
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, STEP_MM[::-1], strict=True)]
    z, y, x = (np.asarray(a, np.float32) for a in np.meshgrid(*axes, indexing="ij"))
    return FeatureGrid(x, y, z, np.sqrt(x**2 + y**2 + z**2), np.hypot(x, y))


GRID = _grid()
SWI_NAMES = (
    *(f"depth_{low:g}_{high:g}" for low, high in RINGS_MM),
    "darkest",
    "noise",
    "dark_share_2_3",
    "dark_share_3_5",
    *(f"above_below_{at:g}" for at in ALONG_MM),
    *(f"least_above_below_{at:g}" for at in ALONG_MM),
    "flatness",
    "length",
    "brain_4",
    "brain_8",
)
PHASE_NAMES = ("phase_core", "phase_ring", "phase_poles", "phase_dipole")
MAGNITUDE_NAMES = ("magnitude_0_1", "magnitude_1_2", "magnitude_2_3", "weighting")
OBJECT_NAMES = (*(f"object_{f.name}" for f in fields(Shape)), "object_volume", "object_noise")
NAMES = ("score", *SWI_NAMES, *PHASE_NAMES, *MAGNITUDE_NAMES, *OBJECT_NAMES)
"""The features, in the order of the columns."""
OF_PHASE = tuple(n for n, name in enumerate(NAMES) if name in PHASE_NAMES or name == "object_phase")
OF_MAGNITUDE = tuple(n for n, name in enumerate(NAMES) if name in MAGNITUDE_NAMES)
"""Columns that need the phase, or the magnitude."""


def measure(
    acquisition: Acquisition, brain: Mask, candidates: Sequence[Candidate], parameters: MeasureParameters
) -> Floats:
    """Measure all candidates of a study.

    Parameters
    ----------
    acquisition : Acquisition
        The images.
    brain : ndarray of bool, shape (slices, rows, columns)
        The brain mask, not empty.
    candidates : sequence of Candidate
        Where to measure.
    parameters : MeasureParameters
        How objects are grown.

    Returns
    -------
    ndarray of float32, shape (candidates, features)
        Columns as in :data:`NAMES`.
    """
    if not candidates:
        return np.empty((0, len(NAMES)), np.float32)
    scores = np.array([[c.score] for c in candidates], np.float32)
    centres = np.array([c.ijk for c in candidates], np.float64)
    inputs = prepare(acquisition, brain)
    around = [surroundings(inputs, centres[n : n + BATCH]) for n in range(0, len(centres), BATCH)]
    grown = [grow(c, acquisition.swi, brain, parameters) for c in candidates]
    objects = [_object(region, parameters, acquisition) for region in grown]
    return np.concatenate([scores, np.concatenate(around), np.array(objects, np.float32)], axis=1)


def surroundings(inputs: Inputs, centres: NDArray[np.float64]) -> Floats:
    """Features of the surroundings of points ``(n, 3)``, voxel coordinates ``(i, j, k)``."""
    patches = cut_patches(inputs, centres, SHAPE, STEP_MM, CHANNELS).numpy()
    swi, cosine, sine, magnitude, brain = (patches[:, n] for n in range(len(CHANNELS)))
    inside = brain > 0.5
    columns = _of_swi(_depth(swi, inside), inside)
    missing = np.full(len(centres), np.nan, np.float32)
    phase = None if inputs.phase is None else np.arctan2(sine, cosine)
    columns += [missing] * len(PHASE_NAMES) if phase is None else _of_phase(phase)
    if inputs.magnitude is None:
        columns += [missing] * len(MAGNITUDE_NAMES)
    else:
        columns += _of_magnitude(_depth(magnitude, inside), columns[0])
    return np.stack(columns, axis=1).astype(np.float32)


def _depth(image: Floats, inside: Mask) -> Floats:
    """Share of the background's signal that is lost, up to 1; 0 outside the brain."""
    far = inside & (GRID.r >= FAR_MM[0]) & (GRID.r <= FAR_MM[1])
    values = np.where(far, image, np.nan).reshape(len(image), -1)
    empty = ~far.reshape(len(image), -1).any(1)
    values[empty] = 1.0
    background = np.maximum(np.nanmedian(values, axis=1), 1e-3)[:, None, None, None]
    return np.asarray(np.where(inside, 1 - image / background, 0), np.float32)


def _mean(values: Floats, where: Mask) -> Floats:
    """Mean over some voxels of every patch."""
    return np.asarray(values[:, where].mean(1), np.float32)


def _ring(low: float, high: float) -> Mask:
    return np.asarray((GRID.r >= low) & (GRID.r < high))


def _of_swi(depth: Floats, inside: Mask) -> list[Floats]:
    core, far = GRID.r <= 1.5, _ring(*FAR_MM)
    darkest = depth[:, core].max(1)
    dark = depth >= np.maximum(darkest, 0.05)[:, None, None, None] / 2
    dark_share = [_mean(dark.astype(np.float32), _ring(low, high)) for low, high in ((2, 3), (3, 5))]
    poles = [[_mean(depth, (GRID.rho < 1) & (np.abs(GRID.z - s * at) < 0.6)) for s in (-1, 1)] for at in ALONG_MM]
    inner = inside.astype(np.float32)
    return [
        *(_mean(depth, _ring(low, high)) for low, high in RINGS_MM),
        darkest,
        depth[:, far].std(1),
        *dark_share,
        *(np.maximum(below, above) for below, above in poles),
        *(np.minimum(below, above) for below, above in poles),
        *_form(depth),
        _mean(inner, _ring(0, 4)),
        _mean(inner, _ring(0, 8)),
    ]


def _form(depth: Floats) -> list[Floats]:
    """How flat and how elongated the dark voxels near the centre are: ratios of their axes of inertia, 0 to 1."""
    near = GRID.r <= 4
    weight = np.clip(depth[:, near], 0, 1) ** 2 + 1e-6
    weight /= weight.sum(1, keepdims=True)
    offsets = np.stack([GRID.x[near], GRID.y[near], GRID.z[near]], axis=1)
    centre = weight @ offsets
    second = np.einsum("nv,va,vb->nab", weight, offsets, offsets) - centre[:, :, None] * centre[:, None, :]
    low, middle, high = np.maximum(np.linalg.eigvalsh(second), 1e-6).T
    return [np.asarray(low / middle, np.float32), np.asarray(middle / high, np.float32)]


def _of_phase(phase: Floats) -> list[Floats]:
    """Blood is positive inside; outside, its field is positive along the main field and negative across it."""
    core = _mean(phase, GRID.r <= 1.5)
    ring = _mean(phase, (GRID.rho >= 2) & (GRID.rho <= 4) & (np.abs(GRID.z) <= 1))
    poles = _mean(phase, (GRID.rho <= 1.5) & (np.abs(GRID.z) >= 2) & (np.abs(GRID.z) <= 4))
    return [core, ring, poles, poles - ring]


def _of_magnitude(depth: Floats, swi_core: Floats) -> list[Floats]:
    rings = [_mean(depth, _ring(low, high)) for low, high in RINGS_MM[:3]]
    return [*rings, swi_core - rings[0]]


def _object(region: Region | None, parameters: MeasureParameters, acquisition: Acquisition) -> list[float]:
    if region is None:
        return [np.nan] * len(OBJECT_NAMES)
    shape = astuple(describe(region, parameters.rim_mm, acquisition.phase))
    return [*(np.nan if v is None else v for v in shape), np.log(region.volume_mm3), region.noise]
