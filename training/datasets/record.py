"""What is a study for training? Its images, and marks of what is in them, in patient coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Acquisition, Geometry

from .mark_kinds import BLEED, NULL, VEIN

Point = tuple[float, float, float]
APART_FROM_VEINS_MM = 3.0
"""A vein this near to anything else that is marked is not marked itself: one place has one name."""
USUAL_DIAMETER_MM = 4.0
"""Taken where a data set marks points only."""


@dataclass(frozen=True)
class Mark:
    """One microbleed, mimic or null insertion.

    Parameters
    ----------
    centre_lps_mm : tuple of float
        Patient coordinates.
    kind : str
        ``bleed``, ``calcification``, ``vein``, ``cavernoma``, ``iron``, ``null``, ``rejected``, …
    diameter_mm : float or None
        Apparent, in plane; None where it is not known.
    visible : bool
        Whether a reader could see it: an invisible microbleed is neither to be found nor to be punished.
    """

    centre_lps_mm: Point
    kind: str = BLEED
    diameter_mm: float | None = None
    visible: bool = True

    @property
    def size_mm(self) -> float:
        """Its diameter, or the usual one."""
        return self.diameter_mm or USUAL_DIAMETER_MM


@dataclass(frozen=True, eq=False)
class LabelledStudy:
    """The images and marks of a study; `brain` is None unless the data set comes with one (masked images).

    `notes` are worth knowing before it is trained on.
    """

    acquisition: Acquisition
    marks: tuple[Mark, ...]
    brain: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Record:
    """A study that can be read.

    Parameters
    ----------
    name : str
        Unique in its data set; fit for a file name.
    subject : str
        The person; studies of one person stay on one side of a split.
    anatomy : str
        The head a simulated person has; the person otherwise.
    split : str or None
        ``train``, ``validation``, ``test``, where the data set says so.
    mimics_known : bool
        Whether mimics are marked, too.
    read : callable
        Reads images and marks.
    simulated : bool
        Whether nobody was ever scanned.
    """

    name: str
    subject: str
    anatomy: str
    split: str | None
    mimics_known: bool
    read: Callable[[], LabelledStudy]
    simulated: bool = False


def vein_marks(
    centres: Sequence[Point], diameters_mm: Sequence[float | None], others: Sequence[Mark]
) -> tuple[Mark, ...]:
    """Marks of veins, less those at a microbleed or at another mimic that can be seen."""
    taken = np.array([m.centre_lps_mm for m in others if m.kind == BLEED or (m.visible and m.kind != NULL)])
    return tuple(
        Mark(centre, VEIN, diameter)
        for centre, diameter in zip(centres, diameters_mm, strict=True)
        if not len(taken) or np.linalg.norm(taken - centre, axis=1).min() >= APART_FROM_VEINS_MM
    )


def marks_of_labels(labels: NDArray[np.integer], geometry: Geometry) -> tuple[Mark, ...]:
    """Microbleeds that are the connected components (26 neighbours) of each value of a label volume ``(k, j, i)``."""
    from scipy import ndimage

    marks = []
    for value in np.unique(labels[labels > 0]):
        parts, count = ndimage.label(labels == value, np.ones((3, 3, 3)))
        for n, box in enumerate(ndimage.find_objects(parts, count), start=1):
            mask = parts[box] == n
            k, j, i = (float(m) + s.start for m, s in zip(ndimage.center_of_mass(mask), box, strict=True))
            x, y, z = geometry.to_lps((i, j, k)).tolist()
            area = float(mask.sum((1, 2)).max()) * geometry.spacing[0] * geometry.spacing[1]
            marks.append(Mark((x, y, z), BLEED, round(2 * float(np.sqrt(area / np.pi)), 2)))
    return tuple(marks)
