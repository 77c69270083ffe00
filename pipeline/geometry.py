"""Where is a voxel in the patient? A regular grid in DICOM patient coordinates (LPS, millimetres)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Geometry:
    """A regular grid of voxel centres in patient coordinates.

    Arrays on this grid are indexed ``[k, j, i]`` (slice, row, column); coordinates are ``(i, j, k)`` and ``(x, y, z)``,
    as in DICOM PS3.3 C.7.6.2.1.1 (Equation C.7.6.2.1-1, extended by the slice step).

    Parameters
    ----------
    shape : tuple of int
        ``(slices, rows, columns)``.
    affine : ndarray, shape (4, 4)
        Maps homogeneous ``(i, j, k, 1)`` to LPS millimetres.
    frame_of_reference_uid : str
        The frame of reference those coordinates belong to; empty if the images name none.
    """

    shape: tuple[int, int, int]
    affine: FloatArray
    frame_of_reference_uid: str = ""

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along ``(i, j, k)``, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @cached_property
    def direction(self) -> FloatArray:
        """Unit vectors of ``i``, ``j`` and ``k`` as columns, shape (3, 3)."""
        return np.asarray(self.affine[:3, :3] / np.asarray(self.spacing))

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel, mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @cached_property
    def _inverse(self) -> FloatArray:
        return np.asarray(np.linalg.inv(self.affine))

    def to_lps(self, ijk: ArrayLike) -> FloatArray:
        """Patient coordinates (mm) of voxel coordinates ``(..., 3)`` given as ``(i, j, k)``."""
        ijk = np.asarray(ijk, dtype=np.float64)
        return np.asarray(ijk @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_ijk(self, lps: ArrayLike) -> FloatArray:
        """Voxel coordinates ``(i, j, k)``, fractional, of patient coordinates ``(..., 3)`` in mm."""
        lps = np.asarray(lps, dtype=np.float64)
        return np.asarray(lps @ self._inverse[:3, :3].T + self._inverse[:3, 3])

    def matches(self, other: Geometry, tolerance_mm: float = 0.1) -> bool:
        """Whether `other` is the same grid, with every corner within `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        k, j, i = self.shape
        corners = np.array([[a, b, c] for a in (0, i - 1) for b in (0, j - 1) for c in (0, k - 1)])
        return bool(np.abs(self.to_lps(corners) - other.to_lps(corners)).max() <= tolerance_mm)


@dataclass(frozen=True)
class FrameReference:
    """The DICOM frame a slice of a volume came from.

    `frame_number` counts from 1 and is ``None`` for a single-frame instance.
    """

    sop_instance_uid: str
    sop_class_uid: str
    path: str
    frame_number: int | None = None


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxel values on a :class:`Geometry`, with the frame each slice came from.

    Parameters
    ----------
    array : ndarray of float32, shape (slices, rows, columns)
        Values in the image's own unit (phase in radians, paramagnetic blood positive).
    geometry : Geometry
        The grid.
    frames : tuple of FrameReference
        One per slice, in slice order.
    series_instance_uid : str
        The series it was read from.
    """

    array: NDArray[np.float32]
    geometry: Geometry
    frames: tuple[FrameReference, ...]
    series_instance_uid: str = ""


@dataclass(frozen=True)
class PhaseRecord:
    """How stored phase values became radians with paramagnetic blood positive.

    Parameters
    ----------
    scale : str
        What the scale was derived from.
    sign : int
        Sign of paramagnetic blood in the stored phase; −1 means that it was inverted.
    settled_by : str
        ``veins`` (measured in this study), ``site`` (a recognition rule of the site) or ``maker`` (the manufacturer's
        convention).
    score : float or None
        How clearly the veins show it: the difference between dark structures and tissue in standard errors.
    """

    scale: str
    sign: int
    settled_by: str
    score: float | None = None

    def __str__(self) -> str:
        by = {
            "veins": "measured on the veins",
            "site": "set by the site",
            "maker": "the manufacturer's convention, because the veins did not show it",
        }
        score = "" if self.score is None else f" (score {self.score:.1f})"
        sign = "positive" if self.sign > 0 else "negative (inverted)"
        return f"Phase: scale from {self.scale}; paramagnetic blood is {sign}, {by[self.settled_by]}{score}"


@dataclass(frozen=True, eq=False)
class Acquisition:
    """One SWI acquisition on one grid: the input of every candidate method and classifier.

    `phase` and `magnitude` are ``None`` when the study has none; otherwise they share the grid of `swi`.
    `warnings` are short sentences for the reader of the result. `phase_record` says how the phase was read. `sequence`
    is ``t2star`` if a T2*-weighted gradient echo is analysed in place of an SWI.
    """

    swi: Volume
    phase: Volume | None = None
    magnitude: Volume | None = None
    echo_time_ms: float | None = None
    field_strength_t: float | None = None
    warnings: tuple[str, ...] = ()
    phase_record: PhaseRecord | None = None
    sequence: Literal["swi", "t2star"] = "swi"
