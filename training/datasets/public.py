"""How are the public sets read? VALDO's Task 2 and the 20 subjects of Dou et al. (2016); layouts in docs/train.md."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.geometry import Acquisition
from training.datasets.record import Labelled, Mark, Record

_VALDO_MASK = "_space-T2S_CMB.nii.gz"
_VALDO_IMAGE = "_space-T2S_desc-masked_T2S.nii.gz"


def is_valdo(folder: Path) -> bool:
    """Whether a folder holds VALDO's Task 2."""
    return next(folder.rglob(f"*{_VALDO_MASK}"), None) is not None


def list_valdo(folder: Path) -> list[Record]:
    """One record for each ``sub-…_space-T2S_CMB.nii.gz``; the image beside it is T2*-weighted, skull removed."""
    records = []
    for mask in sorted(folder.rglob(f"*{_VALDO_MASK}")):
        name = mask.name.removesuffix(_VALDO_MASK)
        image = mask.with_name(name + _VALDO_IMAGE)
        records.append(Record(name, name, name, None, False, partial(_read_valdo, image, mask)))
    return records


def _read_valdo(image_file: Path, mask_file: Path) -> Labelled:
    from training.datasets.nifti import read_nifti

    image, mask = read_nifti(image_file), read_nifti(mask_file)
    if not image.geometry.matches(mask.geometry):
        raise InputError("does not lie on the grid of its image", where=str(mask_file))
    from training.datasets.record import marks_of_labels

    inside = np.nan_to_num(image.array) > 0
    brain = np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(inside, iterations=2)) | inside)
    np.nan_to_num(image.array, copy=False)
    marks = marks_of_labels((mask.array > 0.5).astype(np.uint8), mask.geometry)
    return Labelled(Acquisition(image, warnings=("T2*-weighted, skull removed",)), marks, brain)


def is_dou(folder: Path) -> bool:
    """Whether a folder holds Dou's set: ``ground_truth/NN.mat`` and ``nii/NN.nii``."""
    return (folder / "ground_truth").is_dir() and (folder / "nii").is_dir()


def list_dou(folder: Path) -> list[Record]:
    """One record for each image; a subject without a ``.mat`` is reported when it is read."""
    if not is_dou(folder):
        return []
    images = sorted(p for p in (folder / "nii").iterdir() if p.name.endswith((".nii", ".nii.gz")))
    records = []
    for image in images:
        name = image.name.split(".nii")[0]
        truth = folder / "ground_truth" / f"{name}.mat"
        records.append(
            Record(f"dou-{name}", f"dou-{name}", f"dou-{name}", None, False, partial(_read_dou, image, truth))
        )
    return records


def _read_dou(image_file: Path, truth: Path) -> Labelled:
    """The variable ``cen`` holds voxel coordinates ``(i, j, k)``, counted from 1 as Matlab does."""
    from scipy.io import loadmat

    from training.datasets.nifti import read_nifti

    image = read_nifti(image_file)
    try:
        centres = np.asarray(loadmat(truth)["cen"], np.float64).reshape(-1, 3) - 1
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"holds no centres `cen` ({error})", where=str(truth)) from error
    points = image.geometry.to_lps(centres)
    return Labelled(Acquisition(image), tuple(Mark((x, y, z)) for x, y, z in points.tolist()))
