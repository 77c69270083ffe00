"""How does a NIfTI image become an acquisition? Axial slices, in LPS coordinates, however the file is oriented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.geometry import Geometry, Volume

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_AXIAL = nib.orientations.axcodes2ornt("LPS")
STEEPEST_DEG = 40.0
"""Slices that are turned farther from axial are refused."""
COARSEST = 2.0
"""If a pixel is larger than this many slice distances, the slices were sagittal or coronal."""


def read_nifti(path: Path) -> Volume:
    """Read a 3D image as axial slices: ``array[k, j, i]`` with i to the left, j to the back and k to the head.

    Raises
    ------
    InputError
        When it is missing, broken, not three-dimensional, or was not acquired in about axial slices.
    """
    image = _load(path)
    try:
        array = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot be read ({_short(error)})", where=str(path)) from error
    array = array.squeeze() if array.ndim > 3 else array
    if array.ndim != 3:
        raise InputError(f"has {array.ndim} dimensions, not 3", where=str(path))
    affine = np.asarray(image.affine, np.float64)
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), _AXIAL)
    turned = nib.orientations.apply_orientation(array, turn)
    affine = affine @ nib.orientations.inv_ornt_aff(turn, array.shape)
    axial: NDArray[np.float32] = np.ascontiguousarray(turned.transpose(2, 1, 0), dtype=np.float32)
    geometry = Geometry((axial.shape[0], axial.shape[1], axial.shape[2]), _RAS_TO_LPS @ affine)
    _require_axial(geometry, path)
    return Volume(axial, geometry, (), path.name)


def file_geometry(path: Path) -> Geometry:
    """The grid in the order of the file's own axes: what voxel numbers that come with it count.

    Raises
    ------
    InputError
        When it is missing or broken.
    """
    image = _load(path)
    i, j, k = (*image.shape, 1, 1)[:3]
    return Geometry((k, j, i), _RAS_TO_LPS @ np.asarray(image.affine, np.float64))


def find_image(folder: Path, stem: str) -> Path | None:
    """The file ``stem.nii`` or ``stem.nii.gz`` of a folder."""
    return next((p for p in (folder / f"{stem}.nii.gz", folder / f"{stem}.nii") if p.is_file()), None)


def _load(path: Path) -> Any:
    try:
        return nib.load(str(path))
    except (OSError, ValueError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"cannot be read ({_short(error)})", where=str(path)) from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _require_axial(geometry: Geometry, path: Path) -> None:
    x, y, z = geometry.spacing
    angle = float(np.degrees(np.arccos(np.clip(abs(geometry.direction[2, 2]), 0, 1))))
    if max(x, y) > COARSEST * z:
        voxel = " × ".join(f"{v:.2g}" for v in geometry.spacing)
        raise InputError(f"was not acquired in axial slices (voxel of {voxel} mm)", where=str(path), do="leave it out")
    if angle > STEEPEST_DEG:
        raise InputError(f"its slices are turned by {angle:.0f}° from axial", where=str(path), do="resample it first")
