"""How is an 8-bit volume written for a viewer in the browser? As a compressed NIfTI-1 file, upright in the patient."""

from __future__ import annotations

import gzip
from typing import Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.geometry import Geometry

Bytes = NDArray[np.uint8]

_FLIP: Final = np.diag([-1.0, -1.0, 1.0, 1.0])  # LPS to RAS, and back
_LEVEL: Final = 1


def to_nifti(values: Bytes, geometry: Geometry, shown: tuple[int, int] = (0, 255)) -> bytes:
    """Pack values ``[k, j, i]`` on their grid; `shown` are those displayed as black and as white.

    The same values give the same bytes.
    """
    image = nib.Nifti1Image(values.transpose(2, 1, 0), _FLIP @ geometry.affine)
    image.header.set_xyzt_units("mm")
    image.header["cal_min"], image.header["cal_max"] = shown
    return gzip.compress(image.to_bytes(), _LEVEL, mtime=0)


def from_nifti(packed: bytes) -> tuple[Bytes, Geometry]:
    """Unpack what :func:`to_nifti` packed.

    Raises
    ------
    InputError
        If it is something else.
    """
    try:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(packed))
        values = np.asarray(image.dataobj).transpose(2, 1, 0)
    except Exception as error:  # nibabel raises many types on malformed files
        raise InputError("the volume cannot be read", do="analyse the study again") from error
    if values.dtype != np.uint8:
        raise InputError("the volume is not one that this node wrote")
    k, j, i = values.shape
    return values, Geometry((k, j, i), _FLIP @ image.affine)
