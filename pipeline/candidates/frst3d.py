"""Where is something small, round in three dimensions and dark? The fast radial symmetry transform (FRST) in 3D.

Loy and Zelinsky (2003, IEEE PAMI 25:959) extended to volumes, as Liu et al. (2019) propose microbleeds: every voxel
with a clear gradient votes, at a few distances down it, for the centre of a dark ball on whose rim it may lie. The
votes of a vessel that runs through the slices, a disc in each of them, are spread along its axis.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from pipeline.geometry import Acquisition
from pipeline.parameters import Parameters as BaseParameters

from . import Candidate
from ._peaks import strongest_peaks

FloatVolume = NDArray[np.float32]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]


class Parameters(BaseParameters):
    """Settings of the transform; lengths are millimetres, grey values are in units of the brain's median."""

    radii_mm: tuple[float, ...] = Field((1.0, 1.5, 2.0, 3.0), min_length=1, description="Radii that are voted for")
    alpha: float = Field(2.0, gt=0, description="Radial strictness")
    share: float = Field(0.5, gt=0, description="Share of a ball's rim whose votes are enough")
    smooth_mm: float = Field(0.4, ge=0, description="Gaussian blur before the gradient is taken")
    voters: float = Field(0.3, gt=0, le=1, description="Share of the brain that votes, by strength of the gradient")
    sigma_per_radius: float = Field(0.3, gt=0, description="Gaussian blur of a radius' votes, in radii")
    unit_percentile: float = Field(
        99.9, gt=0, le=100, description="Percentile of the response that is the unit of the score"
    )
    keep_percentile: float = Field(
        97.0, ge=0, lt=100, description="Percentile of the response in the brain above which candidates lie"
    )
    separation_mm: float = Field(2.0, gt=0, description="Of two peaks closer than this, the higher is kept")
    max_candidates: int = Field(1000, gt=0, description="Largest number of candidates; the strongest are kept")


def propose(acquisition: Acquisition, brain: Mask, parameters: Parameters) -> list[Candidate]:
    """Find the centres of dark balls in the SWI.

    Parameters
    ----------
    acquisition : Acquisition
        Only its SWI is used.
    brain : ndarray of bool, shape (slices, rows, columns)
        The brain mask.
    parameters : Parameters
        The settings.

    Returns
    -------
    list of Candidate
        Strongest first; a score of 1 is the 99.9th percentile of the response in the brain.
    """
    if not brain.any():
        return []
    spacing = acquisition.swi.geometry.spacing
    found = ndimage.find_objects(brain.astype(np.uint8))[0]
    box: Box = (found[0], found[1], found[2])
    inside = brain[box]
    response = respond(acquisition.swi.array[box], spacing, inside, parameters)
    candidates = strongest_peaks(
        response,
        response[inside],
        spacing,
        unit_percentile=parameters.unit_percentile,
        keep_percentile=parameters.keep_percentile,
        separation_mm=parameters.separation_mm,
        most=parameters.max_candidates,
    )
    k, j, i = (s.start for s in box)
    return [Candidate((c.ijk[0] + i, c.ijk[1] + j, c.ijk[2] + k), c.score) for c in candidates]


def respond(
    image: FloatVolume, spacing: tuple[float, float, float], brain: Mask, parameters: Parameters
) -> FloatVolume:
    """Compute the radial symmetry response.

    Parameters
    ----------
    image : ndarray of float32, shape (slices, rows, columns)
        SWI, in any unit.
    spacing : tuple of float
        Voxel size along ``(i, j, k)``, mm.
    brain : ndarray of bool
        Brain mask of the same shape, not empty.
    parameters : Parameters
        The settings.

    Returns
    -------
    ndarray of float32
        At least 0, and 0 outside the brain; roughly the drop of grey value from rim to centre, in brain medians.
    """
    steps = np.array(spacing[::-1], np.float32)
    voxels, downward, strength = _voters(image, steps, brain, parameters)
    total = np.zeros(image.shape, np.float32)
    for radius in parameters.radii_mm:
        enough = max(2.0, parameters.share * 4 * np.pi * radius**2 / float(np.prod(steps)) ** (2 / 3))
        votes, gradient = _vote(voxels + radius * downward / steps, strength, image.shape)
        np.minimum(votes, np.float32(enough), out=votes)
        score = gradient / np.float32(enough) * (votes / np.float32(enough)) ** np.float32(parameters.alpha)
        sigma = parameters.sigma_per_radius * radius / steps
        total += np.float32(radius) * ndimage.gaussian_filter(score, sigma, truncate=3)
    return np.asarray(total * brain / len(parameters.radii_mm), np.float32)


def _voters(image: FloatVolume, steps: Floats, brain: Mask, parameters: Parameters) -> tuple[Floats, Floats, Floats]:
    """Voxels ``(n, 3)`` as ``(k, j, i)`` with the unit vector down their gradient, and its strength per mm."""
    median = float(np.median(image[brain])) or 1.0
    filled = np.where(brain, image / np.float32(median), np.float32(1))
    smooth = ndimage.gaussian_filter(filled, parameters.smooth_mm / steps)
    gradient = np.stack([-g[brain] for g in np.gradient(smooth, *steps.tolist())], axis=1).astype(np.float32)
    strength = np.linalg.norm(gradient, axis=1)
    clear = (strength > 0) & (strength >= np.quantile(strength, 1 - parameters.voters))
    voxels = np.argwhere(brain)[clear].astype(np.float32)
    return voxels, gradient[clear] / strength[clear, None], strength[clear]


def _vote(at: Floats, strength: Floats, shape: tuple[int, ...]) -> tuple[FloatVolume, FloatVolume]:
    """Spread each vote over the eight nearest voxels: number of votes, and sum of their gradients.

    Rounding to the nearest voxel would favour some distances over others where slices are thick.
    """
    low = np.floor(at).astype(np.int32)
    part = at - low
    size = int(np.prod(shape))
    votes, gradient = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for corner in product((0, 1), repeat=3):
        place = low + np.array(corner, np.int32)
        ok = ((place >= 0) & (place < np.array(shape))).all(1)
        weight = np.abs(part - (1 - np.array(corner, np.float32))).prod(1)[ok]
        flat = np.ravel_multi_index(tuple(place[ok].T), shape)
        votes += np.bincount(flat, weight, size).astype(np.float32)
        gradient += np.bincount(flat, weight * strength[ok], size).astype(np.float32)
    return votes.reshape(shape), gradient.reshape(shape)
