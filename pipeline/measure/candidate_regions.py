"""Which candidates are regions with the shape of a microbleed? They are grown, described and filtered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.candidates import Candidate
from pipeline.geometry import Acquisition
from pipeline.profile import Profile

from .region import Region, grow
from .shape import Shape, describe, passes


class DescribedRegion(NamedTuple):
    """A region and its shape."""

    region: Region
    shape: Shape


def find_regions(
    candidates: Iterable[Candidate], acquisition: Acquisition, brain: NDArray[np.bool_], profile: Profile
) -> list[DescribedRegion]:
    """Grow and describe the region of each candidate; leave out those without one and those that fail the filter."""
    grown = [grow(candidate, acquisition.swi, brain, profile.measure) for candidate in candidates]
    regions = [
        DescribedRegion(r, describe(r, profile.measure.rim_mm, acquisition.phase)) for r in grown if r is not None
    ]
    if profile.shape is None:
        return regions
    return [r for r in regions if passes(r.shape, profile.shape)]
