"""Which candidates are regions with the shape of a bleed? Grown, described, filtered: the step between the stages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.candidates import Candidate
from pipeline.geometry import Acquisition
from pipeline.measure import Region, grow
from pipeline.profile import Profile
from pipeline.shape import Shape, describe, passes


class Described(NamedTuple):
    """A region and its shape."""

    region: Region
    shape: Shape


def find_regions(
    candidates: Iterable[Candidate], acquisition: Acquisition, brain: NDArray[np.bool_], profile: Profile
) -> list[Described]:
    """Grow and describe the region of each candidate; those that are none, or fail the filter, are left out."""
    grown = [grow(candidate, acquisition.swi, brain, profile.measure) for candidate in candidates]
    regions = [Described(r, describe(r, profile.measure.rim_mm, acquisition.phase)) for r in grown if r is not None]
    if profile.shape is None:
        return regions
    return [r for r in regions if passes(r.shape, profile.shape)]
