"""How is a brain registered to the atlas? By its outline, then by its contents, then by a gentle deformation.

First the outline of the extracted brain is registered to that of the atlas by mean squares of the signed distance. This
needs no contrast; starting from several heights lets it place a slab correctly. Then the image inside is registered to
the T1 template by mutual information (Mattes et al. 2003, IEEE TMI 22:120), whatever the contrast of the fluid. Both
maps are affine; :mod:`pipeline.anatomy.deformation` corrects what remains. All steps use SimpleITK on all voxels of a
grid of about 4 mm and on one thread, so that the same images give the same map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its users' name for it
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from pipeline.geometry import Geometry, Volume
from pipeline.parameters import LocationParameters
from pipeline.sitk_images import to_sitk

from .atlas import Atlas
from .deformation import deform

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

_REACH_MM = 15.0
"""Distances from the outline are clipped to this."""
_START_MM = (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0)
"""Heights at which the outline is tried, relative to aligned centres."""
_BINS = 32
_SHADING_MM = 15.0


@dataclass(frozen=True, eq=False)
class Alignment:
    """The registration of a brain to the atlas, and how good it is.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
        Patient LPS to LPS-oriented MNI, mm: the affine part.
    deformation : SimpleITK.DisplacementFieldTransform
        Patient LPS to the coordinates that the matrix is applied to.
    overlap : float
        Dice overlap of the two brains, inside the slices.
    agreement : float
        Share of the image's variance inside the brain that the template explains (correlation ratio), 0 to 1.
    coverage : float
        Share of the atlas's brain inside the field of view.
    """

    matrix: Floats
    deformation: sitk.DisplacementFieldTransform
    overlap: float
    agreement: float
    coverage: float

    def to_mni(self, lps: ArrayLike) -> Floats:
        """LPS-oriented MNI coordinates of points ``(..., 3)`` in patient coordinates, mm."""
        points = np.asarray(lps, dtype=np.float64)
        moved = [self.deformation.TransformPoint(point) for point in points.reshape(-1, 3).tolist()]
        return np.asarray(np.reshape(moved, points.shape) @ self.matrix[:3, :3].T + self.matrix[:3, 3])

    @property
    def scales(self) -> tuple[float, float]:
        """Smallest and largest stretch of the matrix."""
        values = np.linalg.svd(self.matrix[:3, :3], compute_uv=False)
        return float(values[-1]), float(values[0])


def align(image: Volume, brain: Mask, atlas: Atlas, parameters: LocationParameters) -> Alignment:
    """Register a brain to the atlas.

    Parameters
    ----------
    image : Volume
        Magnitude or SWI.
    brain : ndarray of bool
        Its brain mask, not empty.
    atlas : Atlas
        The template.
    parameters : LocationParameters
        Settings.
    """
    small, outline, grid = _work_grid(image, brain, parameters.grid_mm)
    with _one_thread():
        rough = _by_outline(outline, grid, atlas, parameters)
        transform = _by_content(small, outline, grid, atlas, rough, parameters)
        t1, mask = _on(grid, atlas.t1, atlas, transform), _on(grid, atlas.brain, atlas, transform) > 0.5
        even = _evenly_bright(small, outline, grid.spacing[::-1])
        deformation = deform(even, outline, t1, mask, grid, parameters)
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    return Alignment(
        matrix=matrix,
        deformation=deformation,
        overlap=2 * float((mask & outline).sum()) / max(float(mask.sum() + outline.sum()), 1.0),
        agreement=correlation_ratio(even[outline & mask], t1[outline & mask]),
        coverage=_coverage(matrix, image.geometry, atlas),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over several threads differ in their last bits, and SimpleITK has only a global number of threads."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def correlation_ratio(values: ArrayLike, given: ArrayLike, bins: int = _BINS) -> float:
    """Share of the variance of `values` that bins of `given` explain (Roche et al. 1998), corrected for chance."""
    y, x = np.asarray(values, dtype=np.float64).ravel(), np.asarray(given, dtype=np.float64).ravel()
    if y.size <= bins or not np.ptp(y) or not np.ptp(x):
        return 0.0
    index = np.digitize(x, np.quantile(x, np.linspace(0, 1, bins + 1)[1:-1]))
    count = np.bincount(index, minlength=bins)
    mean = np.bincount(index, weights=y, minlength=bins) / np.maximum(count, 1)
    within = float(((y - mean[index]) ** 2).sum()) / (y.size - np.count_nonzero(count))
    return max(0.0, 1.0 - within / float(y.var(ddof=1)))


def _work_grid(image: Volume, brain: Mask, grid_mm: float) -> tuple[NDArray[np.float32], Mask, Geometry]:
    """Image, brain and grid, averaged over blocks of about `grid_mm`."""
    spacing = image.geometry.spacing
    factors = [max(1, min(round(grid_mm / s), n)) for s, n in zip(spacing, image.geometry.shape[::-1], strict=True)]
    small = _blocks(image.array, factors)
    outline = _blocks(brain, factors) > 0.5
    affine = image.geometry.affine.copy()
    affine[:3, 3] = image.geometry.to_lps([(f - 1) / 2 for f in factors])
    affine[:3, :3] *= factors
    return small, outline, Geometry((small.shape[0], small.shape[1], small.shape[2]), affine)


def _evenly_bright(image: NDArray[np.float32], mask: Mask, spacing: Sequence[float]) -> NDArray[np.float32]:
    """The image over its local mean inside the mask: shading must not count as variance."""
    sigma = [_SHADING_MM / s for s in spacing]
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma, truncate=2.5)
    mean = ndimage.gaussian_filter(np.where(mask, image, 0), sigma, truncate=2.5) / np.maximum(weight, 1e-6)
    return np.asarray(image / np.maximum(mean, 1e-6), dtype=np.float32)


def _blocks(array: NDArray[np.generic], factors: Sequence[int]) -> NDArray[np.float32]:
    k, j, i = (n // f for n, f in zip(array.shape, factors[::-1], strict=True))
    c, b, a = factors[::-1]
    cut = array[: k * c, : j * b, : i * a].astype(np.float32)
    return np.asarray(cut.reshape(k, c, j, b, i, a).mean(axis=(1, 3, 5)), dtype=np.float32)


def _distance(mask: Mask, spacing: Sequence[float]) -> NDArray[np.float32]:
    """Signed distance to the outline (mm, negative inside); a brain cut by the end slices is continued."""
    beyond = int(np.ceil(2 * _REACH_MM / spacing[0]))
    longer = np.pad(mask, ((beyond, beyond), (0, 0), (0, 0)), mode="edge")
    outside = ndimage.distance_transform_edt(~longer, sampling=spacing)
    inside = ndimage.distance_transform_edt(longer, sampling=spacing)
    distance = (outside - inside)[beyond : beyond + mask.shape[0]]
    return np.asarray(np.clip(distance, -_REACH_MM, _REACH_MM), dtype=np.float32)


def _mask(array: Mask, geometry: Geometry) -> sitk.Image:
    return to_sitk(array.astype(np.uint8), geometry)


@cache
def _atlas_distance(atlas: Atlas) -> sitk.Image:
    return to_sitk(_distance(atlas.brain, atlas.geometry.spacing[::-1]), atlas.geometry)


@cache
def _atlas_t1(atlas: Atlas) -> sitk.Image:
    return to_sitk(atlas.t1.astype(np.float32), atlas.geometry)


def _method(fixed_mask: sitk.Image, step: float, least: float, rounds: int) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricFixedMask(fixed_mask)
    method.SetOptimizerAsRegularStepGradientDescent(
        step, least, rounds, relaxationFactor=0.8, gradientMagnitudeTolerance=1e-8
    )
    method.SetOptimizerScalesFromPhysicalShift()
    return method


def _by_outline(outline: Mask, grid: Geometry, atlas: Atlas, parameters: LocationParameters) -> sitk.AffineTransform:
    """The affine map of the outline to that of the atlas, from the best of several heights."""
    distance = _distance(outline, grid.spacing[::-1])
    fixed, near = to_sitk(distance, grid), _mask(np.abs(distance) < _REACH_MM, grid)
    moving = _atlas_distance(atlas)
    centre = grid.to_lps(np.argwhere(outline)[:, ::-1]).mean(axis=0)
    target = atlas.geometry.to_lps(np.argwhere(atlas.brain)[:, ::-1]).mean(axis=0)
    every = [max(1, round(2 * parameters.grid_mm / s)) for s in grid.spacing]
    coarse, coarsely_near = (_sparse(one, every) for one in (fixed, near))
    tried = []
    for height in _START_MM:
        start = sitk.Similarity3DTransform()
        start.SetCenter(centre.tolist())
        start.SetTranslation((target - centre + (0.0, 0.0, height)).tolist())
        method = _method(coarsely_near, 6.0, 0.5, parameters.start_rounds)
        method.SetMetricAsMeanSquares()
        method.MetricUseMovingImageGradientFilterOff()  # a distance map is smooth
        method.SetInitialTransform(start, inPlace=True)
        method.Execute(coarse, moving)
        tried.append((method.GetMetricValue(), start))
    _, best = min(tried, key=lambda one: one[0])
    transform = sitk.AffineTransform(3)
    transform.SetCenter(best.GetCenter())
    transform.SetMatrix(best.GetMatrix())
    transform.SetTranslation(best.GetTranslation())
    method = _method(near, 4.0, 0.05, parameters.rounds)
    method.SetMetricAsMeanSquares()
    method.MetricUseMovingImageGradientFilterOff()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return transform


def _sparse(image: sitk.Image, every: Sequence[int]) -> sitk.Image:
    i, j, k = every
    return image[::i, ::j, ::k]


def _by_content(
    small: NDArray[np.float32],
    outline: Mask,
    grid: Geometry,
    atlas: Atlas,
    rough: sitk.AffineTransform,
    parameters: LocationParameters,
) -> sitk.AffineTransform:
    """The affine map that maximises the mutual information of brain and template."""
    bright = float(np.percentile(small[outline], 99.5))
    fixed = to_sitk(np.clip(small, 0, bright).astype(np.float32), grid)
    method = _method(_mask(outline, grid), 1.0, 0.02, parameters.rounds)
    method.SetMetricAsMattesMutualInformation(_BINS)
    transform = sitk.AffineTransform(rough)
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, _atlas_t1(atlas))
    return transform


def _on(grid: Geometry, array: NDArray[np.generic], atlas: Atlas, transform: sitk.Transform) -> NDArray[np.float32]:
    """An array of the atlas on the grid of the patient."""
    like = to_sitk(np.zeros(grid.shape, np.float32), grid)
    image = to_sitk(array.astype(np.float32), atlas.geometry)
    return np.asarray(sitk.GetArrayFromImage(sitk.Resample(image, like, transform)))


def _coverage(matrix: Floats, geometry: Geometry, atlas: Atlas) -> float:
    """Share of the atlas's brain that lies inside the field of view."""
    mni = atlas.geometry.to_lps(np.argwhere(atlas.brain)[::7, ::-1])
    back = np.linalg.inv(matrix)
    ijk = geometry.to_ijk(mni @ back[:3, :3].T + back[:3, 3])
    inside = (ijk >= -0.5) & (ijk <= np.array(geometry.shape[::-1]) - 0.5)
    return float(inside.all(axis=1).mean())
