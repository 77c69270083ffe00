"""How far is every voxel from a structure?"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray


def distance_from(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance of each voxel from the nearest one of `mask`, which must not be empty; voxels.

    The values are those of scipy's exact ``distance_transform_edt(~mask)``, in less than half of the time: squared
    distances between voxels are whole numbers, which float32 holds exactly.
    """
    squared = sitk.SignedMaurerDistanceMap(
        sitk.GetImageFromArray(mask.astype(np.uint8)), insideIsPositive=False, squaredDistance=True
    )
    return np.sqrt(np.maximum(sitk.GetArrayViewFromImage(squared), 0), dtype=np.float64)
