"""How is a study written as NIfTI? One file an image, coordinates turned from LPS to RAS."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Geometry
from training.simulation.study import SimulatedStudy

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def save_nifti(array: NDArray[np.generic], geometry: Geometry, path: Path) -> Path:
    """Write an array (k, j, i) on `geometry`."""
    image = nib.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), _LPS_TO_RAS @ geometry.affine)
    nib.save(image, str(path))
    return path


def write_nifti(study: SimulatedStudy, folder: Path, *, phase: bool = True) -> list[Path]:
    """Write magnitude, phase (radians), SWI and the truth labels; where there is no phase, the SWI and the labels."""
    folder.mkdir(parents=True, exist_ok=True)
    images = study.images
    arrays: dict[str, NDArray[np.generic]] = {
        "magnitude": images.magnitude,
        "phase": images.phase,
        "swi": images.swi,
        "truth": study.truth.labels,
    }
    if not phase:  # then the SWI is the magnitude
        del arrays["magnitude"], arrays["phase"]
    return [save_nifti(a, images.geometry, folder / f"{name}.nii.gz") for name, a in arrays.items()]
