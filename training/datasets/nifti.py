"""How does a NIfTI image become an acquisition? Coordinates turned from RAS to LPS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.geometry import Geometry, Volume

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_nifti(path: Path) -> Volume:
    """Read a 3D image; axes keep their order, so ``array[k, j, i]`` is voxel ``(i, j, k)`` of the file.

    Raises
    ------
    InputError
        When it is missing, broken or not three-dimensional.
    """
    try:
        image: Any = nib.load(str(path))
        array = np.asarray(image.dataobj, dtype=np.float32)
        affine = np.asarray(image.affine, np.float64)
    except (OSError, ValueError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"cannot be read ({' '.join(str(error).split())[:120]})", where=str(path)) from error
    array = array.squeeze() if array.ndim > 3 else array
    if array.ndim != 3:
        raise InputError(f"has {array.ndim} dimensions, not 3", where=str(path))
    turned: NDArray[np.float32] = np.ascontiguousarray(array.transpose(2, 1, 0))
    shape = (turned.shape[0], turned.shape[1], turned.shape[2])
    return Volume(turned, Geometry(shape, _RAS_TO_LPS @ affine), (), path.name)


def find_image(folder: Path, stem: str) -> Path | None:
    """The file ``stem.nii`` or ``stem.nii.gz`` of a folder."""
    return next((p for p in (folder / f"{stem}.nii.gz", folder / f"{stem}.nii") if p.is_file()), None)
