"""How does an array become an image of SimpleITK? In patient coordinates: its transforms are in millimetres."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its users' name for it
from numpy.typing import NDArray

from pipeline.geometry import Geometry


def to_sitk(array: NDArray[np.generic], geometry: Geometry) -> sitk.Image:
    """An image of float32 of an array ``(k, j, i)``, or ``(k, j, i, components)`` for vectors."""
    image = sitk.GetImageFromArray(array.astype(np.float32), isVector=array.ndim > 3)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.affine[:3, 3].tolist())
    image.SetDirection(geometry.direction.ravel().tolist())
    return image
