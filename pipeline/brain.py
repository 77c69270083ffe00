"""Where is the brain? Skull removal by edges and morphology, for SWI or gradient-echo magnitude.

The brain surface extractor (BSE) that Afzal et al. (2021) use as part of BrainSuite has three steps: anisotropic
diffusion, Marr-Hildreth edges and morphology (Shattuck et al. 2001, NeuroImage 13:856). Here each step uses SimpleITK
on a grid of about 1 mm. Two things differ from T1-weighted BSE because veins and sulci are dark in SWI: an edge counts
only where the Laplacian is strong *relative to the local brightness* (so coil shading does not matter), and all
structuring elements are balls in millimetres (so slice thickness does not).
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage

from .errors import InputError
from .geometry import Geometry, Volume
from .parameters import BrainParameters
from .sitk_images import to_sitk

Mask = NDArray[np.bool_]
FloatVolume = NDArray[np.float32]

MINIMUM_SLICES = 4
"""The recursive filters need four samples along an axis."""


def extract_brain(image: Volume, parameters: BrainParameters | None = None) -> Mask:
    """Make the mask of the brain, ventricles and sulci included.

    Parameters
    ----------
    image : Volume
        Magnitude (better: its bone and air edges are cleaner) or SWI; not phase.
    parameters : BrainParameters, optional
        Settings; the defaults suit adults at 0.4 to 1.1 mm in plane and 1 to 5 mm slices.

    Returns
    -------
    ndarray of bool, shape (slices, rows, columns)
        On the grid of `image`. :func:`implausible` judges whether it can be trusted.

    Raises
    ------
    InputError
        When the image is empty, constant, not finite, has fewer than four slices, or no brain is found in it.
    """
    parameters = parameters or BrainParameters()
    require_usable(image)
    upright = np.diag((*image.geometry.spacing, 1.0))  # the orientation of the patient does not matter here
    original = to_sitk(image.array, Geometry(image.geometry.shape, upright))
    work = _shrink(original, parameters)
    smooth = sitk.GradientAnisotropicDiffusion(
        work,
        timeStep=min(work.GetSpacing()) / 16,
        conductanceParameter=parameters.diffusion_conductance,
        numberOfIterations=parameters.diffusion_iterations,
    )
    mask = _morphology(_inside_edges(smooth, parameters), parameters)
    if not sitk.GetArrayViewFromImage(mask).any():
        raise InputError(
            "no brain was found in the image", where=_name(image), do="check that it is a head, SWI or magnitude"
        )
    fine = sitk.Resample(
        sitk.Cast(mask, sitk.sitkFloat32),
        original,
        sitk.Transform(),
        sitk.sitkLinear,
        0.0,
        sitk.sitkFloat32,
        useNearestNeighborExtrapolator=True,
    )
    return np.asarray(sitk.GetArrayViewFromImage(fine) > 0.5)


def implausible(mask: Mask, image: Volume, parameters: BrainParameters | None = None) -> str | None:
    """Say what is implausible about the size of a brain mask; ``None`` if nothing is.

    A mask that touches the first or last slice may be cut by the field of view, so only its upper volume limit counts.
    """
    parameters = parameters or BrainParameters()
    volume = float(mask.sum()) * image.geometry.voxel_volume / 1000
    i_step, j_step, _ = image.geometry.spacing
    area = float(mask.sum((1, 2)).max()) * i_step * j_step / 100
    (least, most), (narrow, wide) = parameters.plausible_ml, parameters.plausible_area_cm2
    cut = bool(mask[0].any() or mask[-1].any())
    if (volume >= least or cut) and volume <= most and narrow <= area <= wide:
        return None
    return (
        f"the brain mask is implausible ({volume:.0f} ml, largest section {area:.0f} cm²): "
        "microbleeds may be missed, or reported outside the brain"
    )


def require_usable(image: Volume) -> None:
    """Refuse an image that no method can work on, and say why."""
    where = _name(image)
    if image.array.ndim != 3 or min(image.array.shape) < 1:
        raise InputError(f"the image has shape {image.array.shape}, not (slices, rows, columns)", where=where)
    if image.array.shape[0] < MINIMUM_SLICES:
        raise InputError(
            f"the volume has {image.array.shape[0]} slice(s), at least {MINIMUM_SLICES} are needed",
            where=where,
            do="send the complete series",
        )
    if min(image.array.shape[1:]) < 32:
        raise InputError(f"the slices are only {image.array.shape[2]}×{image.array.shape[1]} voxels", where=where)
    if not np.isfinite(image.array).all():
        raise InputError("the image has voxels that are not numbers (NaN or infinite)", where=where)
    if not np.ptp(image.array):
        raise InputError(f"every voxel of the image is {image.array.flat[0]:g}", where=where, do="send it again")


def _name(image: Volume) -> str:
    return f"series {image.series_instance_uid}" if image.series_instance_uid else "the image"


def _shrink(image: sitk.Image, parameters: BrainParameters) -> sitk.Image:
    """Resample to the working grid, averaging where it is much coarser, and scale the bright end to 100."""
    i, j, k = image.GetSpacing()
    target = (
        max(parameters.grid_mm, i),
        max(parameters.grid_mm, j),
        min(max(parameters.grid_mm, k), parameters.slice_mm),
    )
    small = sitk.BinShrink(image, [max(1, int(t / s)) for t, s in zip(target, (i, j, k), strict=True)])
    extent = [n * s for n, s in zip(small.GetSize(), small.GetSpacing(), strict=True)]
    size = [max(1, round(e / t)) for e, t in zip(extent, target, strict=True)]
    if size != list(small.GetSize()):
        step = [e / n for e, n in zip(extent, size, strict=True)]
        first = zip(small.GetOrigin(), small.GetSpacing(), step, strict=True)
        small = sitk.Resample(
            small,
            size,
            sitk.Transform(),
            sitk.sitkLinear,
            [o + (t - s) / 2 for o, s, t in first],
            step,
            small.GetDirection(),
            0.0,
            sitk.sitkFloat32,
            useNearestNeighborExtrapolator=True,
        )
    top = float(np.percentile(sitk.GetArrayViewFromImage(small), 98))
    return sitk.Clamp(small * (100.0 / top if top > 0 else 1.0), lowerBound=0.0, upperBound=150.0)


def _inside_edges(smooth: sitk.Image, parameters: BrainParameters) -> sitk.Image:
    """Voxels that are neither on the dark side of a strong edge nor darker than their surroundings."""
    laplacian = sitk.GetArrayFromImage(
        sitk.LaplacianRecursiveGaussian(smooth, sigma=parameters.edge_sigma_mm, normalizeAcrossScale=True)
    )
    array: FloatVolume = sitk.GetArrayFromImage(smooth)
    local = _local_mean(array, smooth, parameters.local_mm)
    inside = (laplacian < parameters.edge_strength * local) & (array > parameters.darkest * local)
    return _like(inside, smooth)


def _like(mask: Mask, image: sitk.Image) -> sitk.Image:
    result = sitk.GetImageFromArray(mask.astype(np.uint8))
    result.CopyInformation(image)
    return result


def _local_mean(array: FloatVolume, image: sitk.Image, sigma_mm: float) -> FloatVolume:
    """Mean of the foreground (Otsu) in a Gaussian window."""
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(image)
    foreground = (array > otsu.GetThreshold()).astype(np.float32)
    sigma = [sigma_mm / s for s in reversed(image.GetSpacing())]
    weight = ndimage.gaussian_filter(foreground, sigma, truncate=3)
    total = ndimage.gaussian_filter(array * foreground, sigma, truncate=3)
    # Far outside the head there is nothing to compare with: an infinite mean excludes those voxels.
    return np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), np.inf).astype(np.float32)


def _morphology(inside: sitk.Image, parameters: BrainParameters) -> sitk.Image:
    """Erode, keep the largest piece, grow it back, close the sulci, fill the ventricles."""
    core = _largest(_erode(inside, parameters.erosion_mm))
    grown = _largest(sitk.And(_dilate(core, parameters.erosion_mm + 0.5), inside))
    closed = _erode(_dilate(grown, parameters.closing_mm), parameters.closing_mm - parameters.margin_mm)
    return sitk.BinaryFillhole(closed)


def _distance(mask: sitk.Image) -> sitk.Image:
    """Signed distance to the mask's surface, mm, negative inside."""
    return sitk.SignedMaurerDistanceMap(mask, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)


def _erode(mask: sitk.Image, radius_mm: float) -> sitk.Image:
    return _distance(mask) <= -radius_mm


def _dilate(mask: sitk.Image, radius_mm: float) -> sitk.Image:
    return _distance(mask) <= radius_mm


def _largest(mask: sitk.Image) -> sitk.Image:
    return sitk.RelabelComponent(sitk.ConnectedComponent(mask)) == 1
