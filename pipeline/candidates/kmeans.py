"""Which voxels are dark? k-means on the grey values inside the brain, as in Afzal et al. (2021).

Four clusters; the paper keeps the one it calls K2, which has fewer false positives, and gives no centres. With the
skull removed, its first cluster is taken to be the empty background, which is left out here. K2 is then the darkest
cluster *inside* the brain: microbleeds, veins and signal voids. Grey values are one-dimensional, so clusters are
intervals.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import ndimage

from pipeline.geometry import Acquisition
from pipeline.parameters import Parameters as BaseParameters

from . import Candidate

Mask = NDArray[np.bool_]

BINS = 4096


class Parameters(BaseParameters):
    """Settings of the clustering."""

    clusters: int = Field(4, ge=2, le=16, description="Number of clusters")
    keep: int = Field(1, ge=1, le=16, description="Clusters kept, from the darkest; 1 is the darkest alone")
    iterations: int = Field(100, ge=1, description="Largest number of rounds of Lloyd's algorithm")
    volume_mm3: tuple[float, float] = Field((1.0, 600.0), description="Least and largest volume of a component")
    max_candidates: int = Field(3000, gt=0, description="Largest number of candidates; the darkest are kept")

    @model_validator(mode="after")
    def _some_left_out(self) -> Self:
        if self.keep >= self.clusters:
            raise ValueError("keep must be less than clusters")
        return self


def propose(acquisition: Acquisition, brain: Mask, parameters: Parameters) -> list[Candidate]:
    """Find the connected components of the dark cluster.

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
        Darkest first; the score is how much darker the darkest voxel is than the brain's median, 0 to 1.
    """
    geometry = acquisition.swi.geometry
    grey = acquisition.swi.array
    inside = grey[brain]
    if not inside.size:
        return []
    limits = cluster_limits(inside, parameters.clusters, parameters.iterations)
    limit = np.float32(limits[parameters.keep - 1])
    labels, count = ndimage.label(brain & (grey < limit), ndimage.generate_binary_structure(3, 1))
    volume = np.bincount(labels.ravel(), minlength=count + 1)[1:] * geometry.voxel_volume
    least, most = parameters.volume_mm3
    kept = np.flatnonzero((volume >= least) & (volume <= most)) + 1
    if not kept.size:
        return []
    darkest = np.asarray(ndimage.minimum(grey, labels, kept))
    centres = np.asarray(ndimage.center_of_mass(np.maximum(limit - grey, 0), labels, kept))
    scores = np.clip(1 - darkest / (float(np.median(inside)) or 1.0), 0, 1)
    order = np.lexsort((kept, -scores))[: parameters.max_candidates]
    return [
        Candidate((float(i), float(j), float(k)), float(s))
        for (k, j, i), s in zip(centres[order], scores[order], strict=True)
    ]


def cluster_limits(values: NDArray[np.float32], clusters: int, iterations: int) -> NDArray[np.float64]:
    """Limits between the k-means clusters of grey values, ascending: Lloyd's algorithm on their histogram.

    It starts from the quantiles, not at random as in the paper, so that the same image gives the same clusters.
    """
    low, high = np.percentile(values, (0, 99.9))
    counts, edges = np.histogram(np.clip(values, low, high), BINS)
    middles = (edges[1:] + edges[:-1]) / 2
    centres = np.percentile(values, (np.arange(clusters) + 0.5) * 100 / clusters)
    # The dark end is a thin tail that quantiles never reach: start one centre there.
    centres[0] = low
    for _ in range(iterations):
        nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, middles)
        weight = np.bincount(nearest, counts, clusters)
        total = np.bincount(nearest, counts * middles, clusters)
        moved = np.where(weight > 0, total / np.maximum(weight, 1), centres)
        if np.allclose(moved, centres):
            break
        centres = moved
    return np.asarray((centres[1:] + centres[:-1]) / 2)
