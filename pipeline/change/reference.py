"""What is kept of a study for a later comparison? A small image of the brain, and how it was acquired."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.findings import Findings
from pipeline.geometry import Acquisition, Geometry

Mask = NDArray[np.bool_]

STEP_MM = 1.6
"""Voxels are averaged to about this size; a pose does not depend on finer detail."""
RIM_MM = 8.0
"""Margin around the brain that is kept; beyond it the image is empty, so that no face is shown."""
MAX_VOXELS = 64_000_000
_BRIGHT = 200.0
_VERSION = 1


@dataclass(frozen=True)
class ScanParameters:
    """How images were acquired, as far as it determines what they show.

    `sequence` is ``swi`` or ``t2star``; `voxel_mm` is along ``(i, j, k)``.
    """

    sequence: str
    voxel_mm: tuple[float, float, float]
    echo_time_ms: float | None = None
    field_strength_t: float | None = None
    phase: bool = False


@dataclass(frozen=True, eq=False)
class ReferenceImage:
    """A small image of the brain on a grid in patient coordinates.

    Parameters
    ----------
    image : ndarray of uint8, shape (slices, rows, columns)
        Grey values around the brain, 0 elsewhere.
    brain : ndarray of bool, same shape
        The brain mask.
    affine : ndarray, shape (4, 4)
        Maps ``(i, j, k, 1)`` to LPS millimetres.
    scan : ScanParameters
        How the images were acquired.
    """

    image: NDArray[np.uint8]
    brain: Mask
    affine: NDArray[np.float64]
    scan: ScanParameters

    @cached_property
    def geometry(self) -> Geometry:
        """The grid."""
        k, j, i = self.image.shape
        return Geometry((k, j, i), self.affine)

    @cached_property
    def _outside_mm(self) -> NDArray[np.float32]:
        """Distance of every voxel to the brain, mm; 0 inside."""
        steps = self.geometry.spacing[::-1]
        return np.asarray(ndimage.distance_transform_edt(~self.brain, sampling=steps), dtype=np.float32)

    def shows(self, lps: NDArray[np.float64], beyond_mm: float) -> Mask:
        """Whether points (n, 3) lie within the slices, in the brain or at most `beyond_mm` from it."""
        lps = np.reshape(lps, (-1, 3))
        nearest = np.rint(self.geometry.to_ijk(lps)).astype(int)[:, ::-1]
        shape = np.array(self.image.shape)
        inside = np.all((nearest >= 0) & (nearest < shape), axis=1)
        distance = self._outside_mm[tuple(np.clip(nearest, 0, shape - 1).T)]
        return np.asarray(inside & (distance <= beyond_mm))

    def to_bytes(self) -> bytes:
        """Pack it (NumPy's npz, nothing pickled); the same reference gives the same bytes."""
        text = json.dumps({"version": _VERSION, **asdict(self.scan)}, sort_keys=True)
        packed = io.BytesIO()
        np.savez_compressed(
            packed,
            image=self.image,
            brain=np.packbits(self.brain),
            affine=self.affine,
            scan=np.frombuffer(text.encode(), np.uint8),
        )
        return packed.getvalue()

    @classmethod
    def from_bytes(cls, packed: bytes) -> ReferenceImage:
        """Unpack what :meth:`to_bytes` packed.

        Raises
        ------
        InputError
            If it is something else.
        """
        try:
            with np.load(io.BytesIO(packed), allow_pickle=False) as stored:
                image, affine = stored["image"], stored["affine"]
                facts = json.loads(stored["scan"].tobytes())
                bits = np.unpackbits(stored["brain"], count=image.size)
            version, voxel = facts.pop("version"), facts.pop("voxel_mm")
            _require(version == _VERSION and image.ndim == 3 and image.dtype == np.uint8 and image.size <= MAX_VOXELS)
            _require(affine.shape == (4, 4) and np.isfinite(affine).all() and abs(np.linalg.det(affine)) > 1e-6)
            scan = ScanParameters(voxel_mm=(float(voxel[0]), float(voxel[1]), float(voxel[2])), **facts)
            return cls(image, bits.astype(bool).reshape(image.shape), affine.astype(np.float64), scan)
        except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, AttributeError, BadZipFile) as error:
            raise InputError(f"the reference image cannot be read ({type(error).__name__})") from error


@dataclass(frozen=True, eq=False)
class Prior:
    """A prior study of the same patient that was analysed.

    Parameters
    ----------
    findings : Findings
        Its findings, as corrected by a reader if they were.
    reference : ReferenceImage or None
        Its reference image; without one, `why` says why and nothing is compared.
    study_instance_uid, study_date : str
        The study and its date (DICOM DA).
    sr_sop_instance_uid, sr_series_instance_uid : str or None
        Its structured report, if it was sent.
    swi : bytes or None
        Its SWI for the viewer (NIfTI), if it is still there.
    """

    findings: Findings
    reference: ReferenceImage | None
    study_instance_uid: str
    study_date: str
    sr_sop_instance_uid: str | None = None
    sr_series_instance_uid: str | None = None
    why: str = ""
    swi: bytes | None = None


def _require(condition: bool | np.bool_) -> None:
    if not condition:
        raise ValueError("not as it was written")


def make_reference(acquisition: Acquisition, brain: Mask) -> ReferenceImage:
    """Make the image of an acquisition that a later one is registered to.

    Parameters
    ----------
    acquisition : Acquisition
        Its SWI is used: every study that is analysed has one.
    brain : ndarray of bool, shape (slices, rows, columns)
        Brain mask on the grid of the SWI.

    Returns
    -------
    ReferenceImage
        About 1.6 mm in plane, slices averaged only when they are thinner than that.
    """
    geometry = acquisition.swi.geometry
    factor = tuple(max(1, round(STEP_MM / step)) for step in geometry.spacing)  # along i, j, k
    small = _averaged(acquisition.swi.array, factor)
    mask = _averaged(brain.astype(np.float32), factor) > 0.5
    affine = geometry.affine.copy()
    affine[:3, :3] = geometry.affine[:3, :3] * np.asarray(factor)
    affine[:3, 3] = geometry.to_lps((np.asarray(factor) - 1) / 2)
    bright = float(np.percentile(small[mask], 99)) if mask.any() else 0.0
    grey = np.clip(np.rint(small * (_BRIGHT / bright)), 0, 255) if bright > 0 else np.zeros_like(small)
    steps = tuple(s * f for s, f in zip(geometry.spacing, factor, strict=True))
    grey[ndimage.distance_transform_edt(~mask, sampling=steps[::-1]) > RIM_MM] = 0
    scan = ScanParameters(
        sequence=acquisition.sequence,
        voxel_mm=geometry.spacing,
        echo_time_ms=acquisition.echo_time_ms,
        field_strength_t=acquisition.field_strength_t,
        phase=acquisition.phase is not None,
    )
    return ReferenceImage(grey.astype(np.uint8), mask, affine, scan)


def _averaged(array: NDArray[np.float32], factor: tuple[int, ...]) -> NDArray[np.float32]:
    """Mean over blocks of `factor` voxels along (i, j, k); edge values are repeated to fill a block."""
    blocks = factor[::-1]
    missing = [(0, -n % f) for n, f in zip(array.shape, blocks, strict=True)]
    if any(after for _, after in missing):
        array = np.pad(array, missing, mode="edge")
    k, j, i = (n // f for n, f in zip(array.shape, blocks, strict=True))
    split = array.reshape(k, blocks[0], j, blocks[1], i, blocks[2])
    return np.asarray(split.mean(axis=(1, 3, 5)), dtype=np.float32)
