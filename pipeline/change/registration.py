"""How are two scans of a head registered? By a rigid pose, which is checked before it is used.

Mattes mutual information (Mattes et al. 2003, IEEE TMI 22:120) in the brain, so that SWI can be registered to
T2*-weighted images; coarse from several starts, then fine from the best. The same samples are drawn each time, on one
thread: the same images give the same pose. A pose is accepted if the images agree and the reverse registration finds
it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from pipeline.geometry import Geometry
from pipeline.parameters import ChangeParameters
from pipeline.sitk_images import to_sitk

from .reference import ReferenceImage

FloatArray = NDArray[np.float64]

COARSE_MM, MIDDLE_MM, FINE_MM = 6.0, 3.0, 2.0
PITCH_DEG = (0.0, -12.0, 12.0)
"""Starting angles: heads differ most in how far the chin is tucked in."""
SMOOTH_MM = 3.0
"""Scale at which the fit is judged, so that noise and small veins do not matter."""
ENOUGH = 250_000
"""Of a grid with more voxels than this, a regular subset is used."""
ROUNDS = 80
_SEED = 1
_BINS = 32
LOCAL_MM = 12.0
"""Scale of the mean that the image is divided by."""
_EDGE_MM = 4.0


@dataclass(frozen=True, eq=False)
class Pose:
    """Where the prior images lie in the present ones.

    Parameters
    ----------
    matrix : ndarray, shape (4, 4)
        Rigid map from prior to present patient coordinates, mm.
    fit : float
        Correlation of the two brains at that pose, smoothed to 3 mm; 1 for identical images.
    discord_mm : float
        Largest distance in the brain between this pose and that of the reverse registration.
    common : float
        Share of the smaller brain mask that lies within the slices and masks of both studies.
    """

    matrix: FloatArray
    fit: float
    discord_mm: float
    common: float

    def to_present(self, prior_lps: FloatArray) -> FloatArray:
        """Present coordinates of prior points (n, 3)."""
        return _apply(self.matrix, prior_lps)

    def to_prior(self, present_lps: FloatArray) -> FloatArray:
        """Prior coordinates of present points (n, 3)."""
        return _apply(_inverse(self.matrix), present_lps)

    def objection(self, parameters: ChangeParameters) -> str:
        """Why the pose cannot be used; empty if nothing speaks against it."""
        if self.common < parameters.least_common:
            return f"only {self.common:.0%} of the brain is visible in both scans"
        if self.fit < parameters.least_fit:
            return f"the images do not match each other (correlation {self.fit:.2f}, at least {parameters.least_fit:g})"
        if self.discord_mm > parameters.largest_discord_mm:
            return (
                f"the registration is unreliable ({self.discord_mm:.1f} mm between forward and backward registration)"
            )
        return ""


def register(present: ReferenceImage, prior: ReferenceImage) -> Pose:
    """Find the pose of the prior images in the present ones.

    Raises
    ------
    ValueError
        If one of the two has no brain.
    """
    if not present.brain.any() or not prior.brain.any():
        raise ValueError("no brain to register")
    one, other = _Scales(present), _Scales(prior)
    there = _lay(one, other, (COARSE_MM, MIDDLE_MM, FINE_MM))
    back = _lay(other, one, (COARSE_MM, MIDDLE_MM))
    # ITK maps points of the fixed image into the moving one.
    there = _rounded(there)
    forth, again = _inverse(_matrix(there)), _matrix(back)
    fit, common = _agreement(one, other, there)
    return Pose(forth, round(fit, 4), round(_discord(forth, again, prior), 3), round(common, 4))


def _rounded(pose: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
    """Drop the last digits, which depend on the order of summation."""
    *turn, x, y, z = pose.GetParameters()
    result = sitk.Euler3DTransform(pose)
    result.SetParameters([*(round(angle, 6) for angle in turn), *(round(mm, 4) for mm in (x, y, z))])
    return result


def _lay(fixed: _Scales, moving: _Scales, steps_mm: tuple[float, ...]) -> sitk.Euler3DTransform:
    """Find the transform from the points of `fixed` to those of `moving`: several starts, the best of them refined."""
    starts = [_start(fixed.middle, moving.middle, pitch) for pitch in PITCH_DEG]
    tried = [_search(fixed.at(steps_mm[0]), moving.at(steps_mm[0]), start) for start in starts]
    best, _ = min(tried, key=lambda found: found[1])
    for step in steps_mm[1:]:
        best, _ = _search(fixed.at(step), moving.at(step), best)
    return best


class _Scales:
    """One image of the pair, cut to the head, at every scale of the search."""

    def __init__(self, reference: ReferenceImage) -> None:
        seen = [np.flatnonzero(reference.image.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        box = tuple(slice(int(n[0]), max(int(n[-1]) + 1, int(n[0]) + 4)) for n in seen)
        image, affine = reference.image[box].astype(np.float32), reference.affine.copy()
        affine[:3, 3] = reference.geometry.to_lps([s.start for s in reversed(box)])
        k, j, i = image.shape
        grid = Geometry((k, j, i), affine)
        self.brain = to_sitk(reference.brain[box].astype(np.float32), grid)
        self.image = _flat(to_sitk(image, grid), self.brain)
        self.middle = reference.geometry.to_lps(np.argwhere(reference.brain).mean(axis=0)[::-1])
        self._made: dict[float, _Scaled] = {}

    def at(self, step_mm: float) -> _Scaled:
        """Smoothed and sampled at `step_mm` (or the slice step, where that is larger)."""
        if step_mm not in self._made:
            grid = _coarser(self.image, step_mm)
            near = sitk.Resample(sitk.SmoothingRecursiveGaussian(self.brain, max(step_mm, _EDGE_MM) / 2), grid)
            image = sitk.Resample(sitk.SmoothingRecursiveGaussian(self.image, step_mm / 2), grid)
            self._made[step_mm] = _Scaled(image, sitk.Cast(near > 0.15, sitk.sitkUInt8))
        return self._made[step_mm]


class _Scaled(NamedTuple):
    image: sitk.Image
    mask: sitk.Image


def _flat(image: sitk.Image, brain: sitk.Image) -> sitk.Image:
    """Remove the shading of the coils, which does not move with the head."""
    level = sitk.SmoothingRecursiveGaussian(image * brain, LOCAL_MM)
    weight = sitk.SmoothingRecursiveGaussian(brain, LOCAL_MM)
    known = sitk.Cast(weight > 0.02, sitk.sitkFloat32)
    return sitk.Clamp(known * image * weight / sitk.Maximum(level, 1e-3), lowerBound=0.0, upperBound=3.0)


def _search(fixed: _Scaled, moving: _Scaled, start: sitk.Euler3DTransform) -> tuple[sitk.Euler3DTransform, float]:
    """Refine a pose at one scale; return it with its metric (lower is better)."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(_BINS)
    if fixed.image.GetNumberOfPixels() > ENOUGH:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(ENOUGH / fixed.image.GetNumberOfPixels(), _SEED)
    method.SetMetricFixedMask(fixed.mask)
    method.SetInterpolator(sitk.sitkLinear)
    step = fixed.image.GetSpacing()[0]
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=step / 2,
        minStep=0.01,
        numberOfIterations=ROUNDS,
        relaxationFactor=0.7,
        gradientMagnitudeTolerance=1e-8,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    pose = sitk.Euler3DTransform(start)
    method.SetInitialTransform(pose, inPlace=True)
    try:
        method.Execute(fixed.image, moving.image)
    except RuntimeError:  # the images do not overlap at all
        return sitk.Euler3DTransform(start), float("inf")
    return pose, float(method.GetMetricValue())


def _start(centre: FloatArray, target: FloatArray, pitch_deg: float) -> sitk.Euler3DTransform:
    pose = sitk.Euler3DTransform()
    pose.SetCenter(centre.tolist())
    pose.SetRotation(float(np.deg2rad(pitch_deg)), 0.0, 0.0)
    pose.SetTranslation((target - centre).tolist())
    return pose


def _agreement(present: _Scales, prior: _Scales, there: sitk.Transform) -> tuple[float, float]:
    """Correlation of the smoothed images where both show brain, and how much of the smaller brain that is."""
    fixed, moving = (sitk.SmoothingRecursiveGaussian(one.image, SMOOTH_MM / 2) for one in (present, prior))
    laid = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, there))
    brain = sitk.GetArrayFromImage(present.brain) > 0.5
    both = brain & (sitk.GetArrayFromImage(sitk.Resample(prior.brain, fixed, there)) > 0.5)
    there_size = float((sitk.GetArrayFromImage(prior.brain) > 0.5).sum() * np.prod(prior.brain.GetSpacing()))
    here_size = float(brain.sum() * np.prod(present.brain.GetSpacing()))
    common = float(both.sum() * np.prod(fixed.GetSpacing())) / min(here_size, there_size)
    a, b = sitk.GetArrayFromImage(fixed)[both], laid[both]
    if a.size < 2 or not a.std() or not b.std():
        return 0.0, min(common, 1.0)
    return float(np.corrcoef(a, b)[0, 1]), min(common, 1.0)


def _discord(one: FloatArray, other: FloatArray, prior: ReferenceImage) -> float:
    """Largest distance in the brain between two maps of prior points."""
    at = np.argwhere(prior.brain)[:, ::-1]
    corners = np.array([at[np.argmax(at @ way)] for way in _WAYS])
    points = prior.geometry.to_lps(corners)
    return float(np.linalg.norm(_apply(one, points) - _apply(other, points), axis=1).max())


_WAYS = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if x or y or z])


def _apply(matrix: FloatArray, lps: FloatArray) -> FloatArray:
    lps = np.reshape(np.asarray(lps, dtype=np.float64), (-1, 3))
    return np.asarray(lps @ matrix[:3, :3].T + matrix[:3, 3])


def _inverse(matrix: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _matrix(transform: sitk.Euler3DTransform) -> FloatArray:
    result = np.eye(4)
    rotation = np.reshape(transform.GetMatrix(), (3, 3))
    centre = np.asarray(transform.GetCenter())
    result[:3, :3] = rotation
    result[:3, 3] = centre + np.asarray(transform.GetTranslation()) - rotation @ centre
    return result


def _coarser(image: sitk.Image, step_mm: float) -> sitk.Image:
    """An empty grid over the same box with voxels of at least `step_mm`."""
    size, spacing = image.GetSize(), image.GetSpacing()
    steps = [max(step_mm, s) for s in spacing]
    count = [max(1, int(np.floor((n - 1) * s / t)) + 1) for n, s, t in zip(size, spacing, steps, strict=True)]
    grid = sitk.Image(count, sitk.sitkFloat32)
    grid.SetSpacing(steps)
    grid.SetOrigin(image.GetOrigin())
    grid.SetDirection(image.GetDirection())
    return grid
