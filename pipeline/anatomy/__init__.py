"""Where in the brain is a microbleed? The brain is registered to an atlas, and each place is named by MARS.

If the registration fails, no place is named: a wrong lobe is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.findings import Placement, Point
from pipeline.geometry import Acquisition
from pipeline.parameters import LocationParameters

from .atlas import AtlasRegion, load_atlas

if TYPE_CHECKING:
    from .registration import Alignment

__all__ = ["AtlasRegion", "locate", "name_places", "register_to_atlas"]

_LEAST_ML = 100.0
"""A smaller piece of brain fits anywhere."""


def locate(
    acquisition: Acquisition,
    brain: NDArray[np.bool_],
    centroids_lps_mm: Sequence[Point],
    parameters: LocationParameters | None = None,
) -> tuple[Placement, list[AtlasRegion]]:
    """Name the places of microbleeds.

    Parameters
    ----------
    acquisition : Acquisition
        The magnitude is registered, or the SWI if there is none.
    brain : ndarray of bool
        Its brain mask.
    centroids_lps_mm : sequence of Point
        The places, patient coordinates (LPS, mm).
    parameters : LocationParameters, optional
        Settings; the defaults suit adults.

    Returns
    -------
    placement : Placement
        Whether the brain could be registered to the atlas, how well, and how much of it the slices cover.
    places : list of AtlasRegion
        One for each centroid; empty when the location was not assessed.
    """
    placement, alignment = register_to_atlas(acquisition, brain, parameters)
    return placement, name_places(alignment, centroids_lps_mm)


def name_places(alignment: Alignment | None, centroids_lps_mm: Sequence[Point]) -> list[AtlasRegion]:
    """Name places with a registration to the atlas; none without one."""
    return [] if alignment is None else [load_atlas().place(alignment.to_mni(point)) for point in centroids_lps_mm]


def register_to_atlas(
    acquisition: Acquisition, brain: NDArray[np.bool_], parameters: LocationParameters | None = None
) -> tuple[Placement, Alignment | None]:
    """Register a brain to the atlas; ``None`` if the registration fails or cannot be trusted. See :func:`locate`."""
    parameters = parameters or LocationParameters()
    image = acquisition.magnitude or acquisition.swi
    volume_ml = float(brain.sum()) * image.geometry.voxel_volume / 1000
    if volume_ml < _LEAST_ML:
        return Placement(False, f"only {volume_ml:.0f} ml of brain was found"), None
    from .registration import align

    try:
        alignment = align(image, brain, load_atlas(), parameters)
    except RuntimeError:  # SimpleITK: the images no longer overlap
        return Placement(False, "the brain could not be registered to the atlas"), None
    fit = round(alignment.overlap, 3)
    if why := _doubt(alignment, parameters):
        return Placement(False, why, fit), None
    return Placement(True, "", fit, round(alignment.coverage, 3)), alignment


def _doubt(alignment: Alignment, parameters: LocationParameters) -> str:
    """What speaks against a registration; empty if nothing does."""
    if alignment.overlap < parameters.least_overlap:
        return f"the brain does not fit the atlas (Dice {alignment.overlap:.2f})"
    if alignment.agreement < parameters.least_agreement:
        return f"the inside of the brain does not match the atlas ({alignment.agreement:.2f} of the variance explained)"
    (least, most), (low, high) = parameters.scales, alignment.scales
    if low < least or high > most:
        return f"the head would have to be stretched by {low:.2f} to {high:.2f} to fit the atlas"
    return ""
