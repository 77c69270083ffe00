"""What of a scan is kept so that a later one can be laid on it? A small image of the brain, and how it was made."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.geometry import Acquisition, Geometry

Mask = NDArray[np.bool_]

STEP_MM = 1.6
"""Voxels are averaged until about so large: half a diameter of the smallest bleed matters not at all to a pose."""
RIM_MM = 8.0
"""So much about the brain is kept; beyond it the image is empty, and shows no face."""
MAX_VOXELS = 64_000_000
_BRIGHT = 200.0
_VERSION = 1


@dataclass(frozen=True)
class Scan:
    """How the images of a scan were made, as far as it matters to what they show.

    `sequence` is ``swi`` or ``t2star``; `voxel_mm` is along ``(i, j, k)``.
    """

    sequence: str
    voxel_mm: tuple[float, float, float]
    echo_time_ms: float | None = None
    field_strength_t: float | None = None
    phase: bool = False


@dataclass(frozen=True, eq=False)
class Reference:
    """A small image of the brain on a grid in patient coordinates.

    Parameters
    ----------
    image : ndarray of uint8, shape (slices, rows, columns)
        Grey values about the brain, 0 beyond.
    brain : ndarray of bool, same shape
        The brain mask.
    affine : ndarray, shape (4, 4)
        Maps ``(i, j, k, 1)`` to LPS millimetres.
    scan : Scan
        How the images were made.
    """

    image: NDArray[np.uint8]
    brain: Mask
    affine: NDArray[np.float64]
    scan: Scan

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
    def from_bytes(cls, packed: bytes) -> Reference:
        """Unpack what :meth:`to_bytes` packed.

        Raises
        ------
        InputError
            When it is something else.
        """
        try:
            with np.load(io.BytesIO(packed), allow_pickle=False) as stored:
                image, affine = stored["image"], stored["affine"]
                facts = json.loads(stored["scan"].tobytes())
                bits = np.unpackbits(stored["brain"], count=image.size)
            version, voxel = facts.pop("version"), facts.pop("voxel_mm")
            _require(version == _VERSION and image.ndim == 3 and image.dtype == np.uint8 and image.size <= MAX_VOXELS)
            _require(affine.shape == (4, 4) and np.isfinite(affine).all() and abs(np.linalg.det(affine)) > 1e-6)
            scan = Scan(voxel_mm=(float(voxel[0]), float(voxel[1]), float(voxel[2])), **facts)
            return cls(image, bits.astype(bool).reshape(image.shape), affine.astype(np.float64), scan)
        except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, AttributeError, BadZipFile) as error:
            raise InputError(f"the reference image cannot be read ({type(error).__name__})") from error

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        temporary = path.with_name(f".{path.name}-{os.getpid()}.part")
        try:
            temporary.write_bytes(self.to_bytes())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what :meth:`save` wrote; :class:`InputError` when it is not there, or something else."""
        try:
            return cls.from_bytes(path.read_bytes())
        except OSError as error:
            raise InputError(f"the reference image cannot be read ({error.strerror})", where=str(path)) from error


def _require(condition: bool | np.bool_) -> None:
    if not condition:
        raise ValueError("not as it was written")


def make_reference(acquisition: Acquisition, brain: Mask) -> Reference:
    """Keep of an acquisition what a later one is laid on.

    Parameters
    ----------
    acquisition : Acquisition
        Its SWI is what is kept: every study that is analysed has one.
    brain : ndarray of bool, shape (slices, rows, columns)
        Brain mask on the grid of the SWI.

    Returns
    -------
    Reference
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
    scan = Scan(
        sequence=acquisition.sequence,
        voxel_mm=geometry.spacing,
        echo_time_ms=acquisition.echo_time_ms,
        field_strength_t=acquisition.field_strength_t,
        phase=acquisition.phase is not None,
    )
    return Reference(grey.astype(np.uint8), mask, affine, scan)


def _averaged(array: NDArray[np.float32], factor: tuple[int, ...]) -> NDArray[np.float32]:
    """Mean over blocks of `factor` voxels along (i, j, k); the last ones are repeated to fill a block."""
    blocks = factor[::-1]
    missing = [(0, -n % f) for n, f in zip(array.shape, blocks, strict=True)]
    if any(after for _, after in missing):
        array = np.pad(array, missing, mode="edge")
    k, j, i = (n // f for n, f in zip(array.shape, blocks, strict=True))
    split = array.reshape(k, blocks[0], j, blocks[1], i, blocks[2])
    return np.asarray(split.mean(axis=(1, 3, 5)), dtype=np.float32)
