"""How does an array become a SimpleITK image? On its grid in patient coordinates."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its users' name for it
from numpy.typing import NDArray

from .geometry import Geometry


def to_sitk(array: NDArray[np.generic], geometry: Geometry) -> sitk.Image:
    """An image of an array ``(k, j, i)``, or ``(k, j, i, components)`` for vectors; it keeps the data type."""
    image = sitk.GetImageFromArray(array, isVector=array.ndim > 3)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.affine[:3, 3].tolist())
    image.SetDirection(geometry.direction.ravel().tolist())
    return image
