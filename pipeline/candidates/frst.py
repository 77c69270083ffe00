"""Where is something small, round and dark? The fast radial symmetry transform (FRST), slice by slice.

Loy and Zelinsky (2003, IEEE PAMI 25:959), as used for microbleeds by Kuijf et al. (2012) and Bian et al. (2013): every
pixel votes, at a few distances down its gradient, for the centre of a dark disc on whose rim it may lie.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from pipeline.geometry import Acquisition
from pipeline.parameters import Parameters as BaseParameters

from . import Candidate
from ._peaks import strongest_peaks

FloatSlice = NDArray[np.float32]
FloatVolume = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Parameters(BaseParameters):
    """Settings of the transform; lengths are millimetres, grey values are in units of the brain's median."""

    radii_mm: tuple[float, ...] = Field((1.0, 1.5, 2.0, 3.0), min_length=1, description="Radii that are voted for")
    alpha: float = Field(2.0, gt=0, description="Radial strictness")
    k: float = Field(8.0, gt=0, description="Normalising votes for radii over one pixel")
    k_one: float = Field(9.9, gt=0, description="The same for a radius of one pixel")
    sigma_per_radius: float = Field(0.25, gt=0, description="Gaussian blur of a radius' votes, in radii")
    erosion_voxels: int = Field(1, ge=0, description="In-plane erosion of the brain mask")
    unit_percentile: float = Field(
        99.9, gt=0, le=100, description="Percentile of the response that is the unit of the score"
    )
    keep_percentile: float = Field(
        99.0, ge=0, lt=100, description="Percentile of the response in the brain above which candidates lie"
    )
    separation_mm: float = Field(
        2.0, gt=0, description="Of two peaks closer than this, the higher is kept; at least one slice"
    )
    max_candidates: int = Field(1000, gt=0, description="Largest number of candidates; the strongest are kept")


def propose(acquisition: Acquisition, brain: Mask, parameters: Parameters) -> list[Candidate]:
    """Find the centres of dark discs in the SWI.

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
        Strongest first; a score of 1 is the 99.9th percentile of the response in the brain. It is not capped
        there, which would lose the order of the strongest.
    """
    spacing = acquisition.swi.geometry.spacing
    response = respond(acquisition.swi.array, spacing, brain, parameters)
    return strongest_peaks(
        response,
        response[brain],
        spacing,
        unit_percentile=parameters.unit_percentile,
        keep_percentile=parameters.keep_percentile,
        separation_mm=parameters.separation_mm,
        most=parameters.max_candidates,
    )


def respond(
    image: FloatVolume, spacing: tuple[float, float, float], brain: Mask, parameters: Parameters
) -> FloatVolume:
    """Compute the radial symmetry response of every slice.

    Parameters
    ----------
    image : ndarray of float32, shape (slices, rows, columns)
        SWI, in any unit.
    spacing : tuple of float
        Voxel size along ``(i, j, k)``, mm.
    brain : ndarray of bool
        Brain mask of the same shape.
    parameters : Parameters
        The settings.

    Returns
    -------
    ndarray of float32
        At least 0, and 0 outside the eroded brain; dimensionless (gradients are per voxel, in brain medians).
    """
    response = np.zeros(image.shape, np.float32)
    if not brain.any():
        return response
    median = float(np.median(image[brain])) or 1.0
    radii = sorted({max(1, round(r / np.sqrt(spacing[0] * spacing[1]))) for r in parameters.radii_mm})
    for k in np.flatnonzero(brain.any((1, 2))):
        mask = brain[k]
        if parameters.erosion_voxels:
            mask = ndimage.binary_erosion(mask, iterations=parameters.erosion_voxels)
        if mask.any():
            filled = np.where(brain[k], image[k], np.median(image[k][brain[k]])) / median
            response[k] = _respond_slice(filled.astype(np.float32), mask, radii, parameters) * mask
    return response


def _respond_slice(image: FloatSlice, mask: Mask, radii: list[int], parameters: Parameters) -> FloatSlice:
    """Sum over the radii of the blurred votes for dark centres."""
    down_row, down_column = -ndimage.sobel(image, axis=0) / 8, -ndimage.sobel(image, axis=1) / 8
    strength = np.hypot(down_row, down_column)
    rows, columns = np.nonzero(mask & (strength > 0))
    weight = strength[rows, columns].astype(np.float64)
    unit_row, unit_column = down_row[rows, columns] / weight, down_column[rows, columns] / weight
    total = np.zeros(image.shape, np.float32)
    for n in radii:
        r = rows + np.rint(n * unit_row).astype(np.intp)
        c = columns + np.rint(n * unit_column).astype(np.intp)
        ok = (r >= 0) & (r < image.shape[0]) & (c >= 0) & (c < image.shape[1])
        flat = r[ok] * image.shape[1] + c[ok]
        k_n = parameters.k_one if n == 1 else parameters.k
        votes = np.minimum(np.bincount(flat, minlength=image.size), k_n) / k_n
        magnitude = np.bincount(flat, weights=weight[ok], minlength=image.size) / k_n
        score = (magnitude * votes**parameters.alpha).astype(np.float32).reshape(image.shape)
        # Kernels of sum n make radii comparable (Loy and Zelinsky, section 3.1).
        total += n * ndimage.gaussian_filter(score, parameters.sigma_per_radius * n, truncate=3)
    return np.asarray(total / len(radii), np.float32)
