"""What ground do veins grow on? The head's tissue at about a millimetre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import Geometry
from training.simulation.coarse_grid import shrink
from training.simulation.head import Head
from training.simulation.regions import ventricular


@dataclass(frozen=True, eq=False)
class Territory:
    """Tissue fractions (0–1) on a grid of about 1 mm, and where the ventricles are.

    Parameters
    ----------
    geometry : Geometry
        The grid.
    csf, grey, white : ndarray of float32, shape (k, j, i)
        Fractions.
    inside : ndarray of bool
        Intracranial.
    ventricles : ndarray of bool
        Fluid inside the brain.
    """

    geometry: Geometry
    csf: NDArray[np.float32]
    grey: NDArray[np.float32]
    white: NDArray[np.float32]
    inside: NDArray[np.bool_]
    ventricles: NDArray[np.bool_]


def territory(head: Head, step_mm: float = 1.0) -> Territory:
    """The ground of `head` on blocks of fine voxels about `step_mm` wide."""
    stride = max(1, round(step_mm / head.geometry.spacing[0]))
    csf, grey, white = (shrink(a, stride) for a in (head.csf, head.grey, head.white))
    affine = head.geometry.affine.copy()
    affine[:3, 3] = head.geometry.to_lps([(stride - 1) / 2] * 3)
    affine[:3, :3] *= stride
    inside = csf + grey + white > 0.5
    geometry = Geometry((csf.shape[0], csf.shape[1], csf.shape[2]), affine)
    # Ventricles: fluid deep inside the brain, found by its position in MNI space.
    fluid = np.argwhere(csf > 0.5)
    central = ventricular(head.to_mni(geometry.to_lps(fluid[:, ::-1])))
    ventricles = np.zeros(csf.shape, dtype=bool)
    ventricles[tuple(fluid[central].T)] = True
    ventricles = np.asarray(ndimage.binary_opening(ventricles) & ventricles)
    return Territory(geometry, csf, grey, white, np.asarray(inside), ventricles)
