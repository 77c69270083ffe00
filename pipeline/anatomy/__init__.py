"""Where in the brain does a bleed lie? The brain is laid on an atlas, and each place gets its name by MARS.

A registration that did not succeed is noticed, and then nothing is named: a wrong lobe is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.anatomy.atlas import Place, load_atlas
from pipeline.anatomy.registration import Alignment, align
from pipeline.findings import Placement, Point
from pipeline.geometry import Acquisition
from pipeline.parameters import LocationParameters

__all__ = ["Place", "locate"]

_LEAST_ML = 100.0
"""A smaller piece of brain fits everywhere."""


def locate(
    acquisition: Acquisition,
    brain: NDArray[np.bool_],
    centroids_lps_mm: Sequence[Point],
    parameters: LocationParameters | None = None,
) -> tuple[Placement, list[Place]]:
    """Name the places of bleeds.

    Parameters
    ----------
    acquisition : Acquisition
        The magnitude is registered, the SWI where there is none.
    brain : ndarray of bool
        Its brain mask.
    centroids_lps_mm : sequence of Point
        The places, patient coordinates (LPS, mm).
    parameters : LocationParameters, optional
        Settings; the defaults suit adults.

    Returns
    -------
    placement : Placement
        Whether the brain could be laid on the atlas, how well, and how much of it the slices cover.
    places : list of Place
        One for each centroid; empty when the location was not assessed.
    """
    parameters = parameters or LocationParameters()
    image = acquisition.magnitude or acquisition.swi
    volume_ml = float(brain.sum()) * image.geometry.voxel_volume / 1000
    if volume_ml < _LEAST_ML:
        return Placement(False, f"only {volume_ml:.0f} ml of brain were found"), []
    atlas = load_atlas()
    try:
        alignment = align(image, brain, atlas, parameters)
    except RuntimeError:  # SimpleITK: the images lost each other
        return Placement(False, "the brain could not be laid on the atlas"), []
    fit = round(alignment.overlap, 3)
    if why := _doubt(alignment, parameters):
        return Placement(False, why, fit), []
    placement = Placement(True, "", fit, round(alignment.coverage, 3))
    return placement, [atlas.place(alignment.to_mni(point)) for point in centroids_lps_mm]


def _doubt(alignment: Alignment, parameters: LocationParameters) -> str:
    """What speaks against a registration, or nothing."""
    if alignment.overlap < parameters.least_overlap:
        return f"the brain does not fit the atlas (Dice {alignment.overlap:.2f})"
    if alignment.agreement < parameters.least_agreement:
        return f"the inside of the brain is not that of the atlas ({alignment.agreement:.2f} of its variance explained)"
    (least, most), (low, high) = parameters.scales, alignment.scales
    if low < least or high > most:
        return f"the head would have to be stretched by {low:.2f} to {high:.2f} to fit the atlas"
    return ""
