"""What does the default head look like? ICBM152 2009a (Fonov 2009), with a skull and face built round it.

The template is a brain without a head, so cerebrospinal fluid, dura, skull, scalp and the air spaces that spoil the
field (paranasal sinuses, ear canals) are laid round it by distance.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import InputError
from training.simulation.distance import distance_from
from training.simulation.tissue import Tissue

from .tissue_maps import Anatomy

_SHARPEN = 2.2
"""Exponent that turns the template's averaged probabilities back into nearly crisp tissue."""
_AIR_SPACES_RAS = (
    # centre and radii, mm: frontal, ethmoid (two), sphenoid, mastoids, maxillary; sizes typical of adults
    ((0, 76, -8), (17, 6, 11)),
    ((6, 56, -28), (6, 16, 11)),
    ((-6, 56, -28), (6, 16, 11)),
    ((0, 22, -36), (13, 12, 9)),
    ((58, -34, -36), (9, 12, 12)),
    ((-58, -34, -36), (9, 12, 12)),
    ((26, 52, -52), (13, 14, 14)),
    ((-26, 52, -52), (13, 14, 14)),
    ((0, 40, -58), (10, 30, 14)),
)


def template(kind: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """``t1``, ``gm`` or ``wm`` of the template at 1 mm, (k, j, i) along LPS, with its NIfTI affine (RAS)."""
    name = f"datasets/data/mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    path = files("nilearn").joinpath(name)
    if not path.is_file():
        raise InputError(
            "the ICBM152 template is not in the installed nilearn",
            where=name,
            do="install the training extra, or give --anatomy DIR",
        )
    image: Any = nib.load(str(path))
    # (x, y, z) in RAS → (k, j, i) along LPS: reverse x and y.
    array = np.ascontiguousarray(np.asarray(image.dataobj, dtype=np.uint8)[::-1, ::-1, :].transpose(2, 1, 0))
    return array, image.affine


def _pad(array: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    return np.pad(array, margin)


def _sharpened(grey: NDArray[np.uint8], white: NDArray[np.uint8], inside: NDArray[np.bool_]) -> list[NDArray[np.uint8]]:
    """Tissue fractions (CSF, grey, white), 0–255, with the template's blur taken back."""
    g, w = grey.astype(np.float32) / 255, white.astype(np.float32) / 255
    c = np.clip(1 - g - w, 0, 1)
    parts = np.stack([c, g, w]) ** _SHARPEN
    parts /= np.maximum(parts.sum(axis=0), 1e-6)
    parts *= inside
    return [np.round(p * 255).astype(np.uint8) for p in parts]


def _layers(intracranial: NDArray[np.bool_], origin: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Tissue outside the intracranial space, by distance from it, with a face and air spaces below."""
    distance = distance_from(intracranial).astype(np.float32)
    k, j, i = intracranial.shape
    z = origin[2] + np.arange(k, dtype=np.float32)[:, None, None]
    y = origin[1] + np.arange(j, dtype=np.float32)[None, :, None]
    x = origin[0] + np.arange(i, dtype=np.float32)[None, None, :]
    other = np.full(intracranial.shape, Tissue.AIR, dtype=np.uint8)
    face = (x / 62) ** 2 + ((y + 25) / 78) ** 2 + ((z + 62) / 62) ** 2 < 1
    other[face & (z < 0)] = Tissue.MUSCLE
    for limit, tissue in (
        (15.0, Tissue.FAT),
        (12.5, Tissue.MUSCLE),
        (10.0, Tissue.FAT),
        (9.0, Tissue.BONE),
        (6.8, Tissue.MARROW),
        (4.0, Tissue.BONE),
        (1.5, Tissue.DURA),
    ):
        other[distance <= limit] = tissue
    for (cx, cy, cz), (rx, ry, rz) in _AIR_SPACES_RAS:
        space = ((x + cx) / rx) ** 2 + ((y + cy) / ry) ** 2 + ((z - cz) / rz) ** 2 < 1
        other[space & (distance > 2.5)] = Tissue.AIR
    other[intracranial] = Tissue.CSF
    return other


def icbm_anatomy() -> Anatomy:
    """The ICBM152 head at 1 mm.

    Raises
    ------
    InputError
        If the nilearn wheel with the templates is not installed.
    """
    grey, affine = template("gm")
    white, _ = template("wm")
    t1, _ = template("t1")
    margin = 12
    grey, white, t1 = (_pad(a, margin) for a in (grey, white, t1))
    nx = t1.shape[2] - 2 * margin
    ny = t1.shape[1] - 2 * margin
    origin = (
        -(affine[0, 3] + nx - 1) - margin,
        -(affine[1, 3] + ny - 1) - margin,
        affine[2, 3] - margin,
    )
    brain = ndimage.binary_fill_holes((t1 > 20) | (grey > 60) | (white > 60))
    far = distance_from(brain)
    closed = distance_from(far > 7) > 4.2  # a closing by 7 mm, then 2.8 mm of fluid outside
    intracranial = np.asarray(ndimage.binary_fill_holes(closed | brain))
    csf, g, w = _sharpened(grey, white, intracranial)
    other = _layers(intracranial, origin)
    return Anatomy("icbm152", csf, g, w, other, None, 1.0, origin)
