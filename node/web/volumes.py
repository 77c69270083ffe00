"""Which volumes does the viewer of the page show, and where do microbleeds lie in them?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.findings import Point
from pipeline.geometry import Geometry

from .viewer import VIEWS


@dataclass(frozen=True, eq=False)
class VolumeGrid:
    """The volumes of a result: their grid, which is upright, and what a PACS calls the slices.

    Parameters
    ----------
    geometry : Geometry
        The grid; ``i``, ``j`` and ``k`` run to the patient's left or right, back or front, and head.
    across : int
        The axis across the slices, 0 to 2.
    numbers : tuple of int
        What a PACS calls each slice, along that axis.
    names : tuple of str
        Which volumes there are.
    """

    geometry: Geometry
    across: int
    numbers: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, index: Mapping[str, Any]) -> VolumeGrid:
        """Read the index of a file of volumes."""
        k, j, i = (int(n) for n in index["shape"])
        geometry = Geometry((k, j, i), np.array(index["affine"], dtype=np.float64))
        return cls(geometry, int(index["across"]), tuple(index["numbers"]), tuple(index["volumes"]))

    def at(self, place: Point) -> str:
        """The voxel of a place, fractional, as the page's script reads it."""
        return " ".join(f"{value:.2f}" for value in self.geometry.to_ijk(place))

    def number_of(self, place: Point) -> int:
        """What a PACS calls the slice nearest to a place."""
        nearest = round(float(self.geometry.to_ijk(place)[self.across]))
        return self.numbers[min(max(nearest, 0), len(self.numbers) - 1)]


@dataclass(frozen=True)
class VolumeLink:
    """A volume to show: its name, the title of its pane, and its address."""

    name: str
    title: str
    url: str


@dataclass(frozen=True)
class VolumesView:
    """What the page's script needs to show volumes: a description of their grid in JSON, and where they are."""

    description: str
    volumes: tuple[VolumeLink, ...]


def volumes_view(grid: VolumeGrid, base: str, titles: Mapping[str, str]) -> VolumesView:
    """Lay out the volumes; `base` is the address of the result's pictures, `titles` has those that differ."""
    geometry = grid.geometry
    given = {"size": geometry.shape[::-1], "spacing": geometry.spacing, "affine": geometry.affine.tolist()}
    links = (VolumeLink(name, titles.get(name, VIEWS.get(name, name)), f"{base}/{name}.nii") for name in grid.names)
    return VolumesView(json.dumps({**given, "across": grid.across, "numbers": grid.numbers}), tuple(links))
