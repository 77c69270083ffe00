"""What remains after the affine map? A gentle deformation of the template onto the brain, by demons.

Symmetric-forces demons (Vercauteren et al. 2009, NeuroImage 45:S61) compare grey values, so the template is first given
those of the patient: every grey value of the template is replaced by the patient's mean at the same place. Sulci,
ventricles and the tentorium differ between heads by more than the width of the parcels that border on them.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its users' name for it
from numpy.typing import NDArray

from pipeline.geometry import Geometry
from pipeline.parameters import LocationParameters
from pipeline.sitk_images import to_sitk

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

_BINS = 24
_BRIGHTEST = 2.0
"""Upper limit of the grey values of the patient, in local means of the brain."""
_UPDATE_SMOOTHNESS = 0.7
"""Gaussian blur of each step, grid voxels."""
_OUTSIDE = 3.0
"""Value outside both brains, in standard deviations below the darkest brain, so that the outlines are aligned."""


def deform(
    image: Floats, brain: Mask, t1: Floats, atlas_brain: Mask, grid: Geometry, parameters: LocationParameters
) -> sitk.DisplacementFieldTransform:
    """Find how far each place of the patient is displaced from where the affine map puts it on the template.

    Parameters
    ----------
    image : ndarray of float32, shape (k, j, i)
        The patient's brain, evenly bright (in local means).
    brain : ndarray of bool
        Its mask.
    t1, atlas_brain : ndarray
        The template and its brain on the patient's grid, by the affine map; the brains overlap.
    grid : Geometry
        The grid.
    parameters : LocationParameters
        Number of steps and smoothness.

    Returns
    -------
    SimpleITK.DisplacementFieldTransform
        Patient coordinates (LPS, mm) to those that the affine map is then applied to.
    """
    common = brain & atlas_brain
    if not parameters.deformation_rounds or common.sum() <= _BINS:
        return _none(grid)
    patient = np.clip(image, 0, _BRIGHTEST)
    template = _as_the_patient(t1, patient, common)
    outside = float(np.percentile(patient[common], 1)) - _OUTSIDE * float(patient[common].std())
    fixed, moving = (
        to_sitk(np.where(mask, values, outside).astype(np.float32), grid)
        for mask, values in ((brain, patient), (atlas_brain, template))
    )
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(parameters.deformation_rounds)
    demons.SetSmoothDisplacementField(True)
    demons.SetStandardDeviations(parameters.deformation_smoothness)
    demons.SetSmoothUpdateField(True)
    demons.SetUpdateFieldStandardDeviations(_UPDATE_SMOOTHNESS)
    field = demons.Execute(fixed, moving)
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def _none(grid: Geometry) -> sitk.DisplacementFieldTransform:
    zero = to_sitk(np.zeros((*grid.shape, 3), np.float32), grid)
    return sitk.DisplacementFieldTransform(sitk.Cast(zero, sitk.sitkVectorFloat64))


def _as_the_patient(t1: Floats, patient: Floats, common: Mask) -> Floats:
    """The template with the grey values of the patient: their mean in each bin of its own grey values."""
    edges = np.quantile(t1[common], np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = np.digitize(t1[common], edges)
    count = np.bincount(bins, minlength=_BINS)
    mean = np.bincount(bins, weights=patient[common], minlength=_BINS) / np.maximum(count, 1)
    return np.asarray(mean[np.digitize(t1, edges)], dtype=np.float32)
