"""Reference images for the tests: a plain box of brain, and the demo study's head laid elsewhere."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from pipeline.change import ReferenceImage, ScanParameters, make_reference
from pipeline.geometry import Geometry
from pipeline.sitk_images import to_sitk
from tests.longitudinal import rigid
from tests.pipeline import phantom

Matrix = NDArray[np.float64]
SWI = ScanParameters("swi", (0.5, 0.5, 2.0), 20.0, 3.0, phase=True)


def box(*, below_mm: float = -40.0, scan: ScanParameters = SWI) -> ReferenceImage:
    """A brain that fills 80 × 80 mm about the origin, from `below_mm` up to 40 mm."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-49.0, -49.0, below_mm)
    image = np.zeros((int(40 - below_mm) // 2 + 1, 50, 50), np.uint8)
    image[:, 5:45, 5:45] = 150
    return ReferenceImage(image, image > 0, affine, scan)


@cache
def demo_reference() -> ReferenceImage:
    """That of the bundled study."""
    detection = phantom.demo_detection()
    assert detection.brain is not None
    return make_reference(detection.acquisition, detection.brain)


def laid(reference: ReferenceImage, pose: Matrix, *, seed: int, spacing: tuple[float, float, float]) -> ReferenceImage:
    """The same head scanned again: moved by `pose`, on another grid, under other coils, with other noise."""
    extent = np.array([200.0, 230.0, 150.0])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -extent / 2
    i, j, k = (int(n) for n in extent / spacing)
    grid = Geometry((k, j, i), affine)
    grey = _moved(reference.image, reference.geometry, pose, grid)
    brain = _moved(reference.brain, reference.geometry, pose, grid) > 0.5
    rng = np.random.default_rng(seed)
    z, y, x = (np.linspace(-1, 1, n) for n in grid.shape)
    tilt = rng.uniform(-0.2, 0.2, 3)
    shading = 1 + 0.2 * (x**2 + y[:, None] ** 2) + tilt[0] * x + tilt[1] * y[:, None] + tilt[2] * z[:, None, None]
    noisy = grey * shading + np.where(grey > 0, rng.normal(0, 10, grey.shape), 0)
    return ReferenceImage(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), brain, affine, reference.scan)


def cut(reference: ReferenceImage, slices: slice) -> ReferenceImage:
    """Only some of its slices."""
    affine = reference.affine.copy()
    affine[:3, 3] = reference.geometry.to_lps([0, 0, slices.start or 0])
    return replace(reference, image=reference.image[slices], brain=reference.brain[slices], affine=affine)


def _moved(array: NDArray[np.generic], grid: Geometry, pose: Matrix, onto: Geometry) -> NDArray[np.float32]:
    back = np.linalg.inv(pose)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(back[:3, :3].ravel().tolist())
    transform.SetTranslation(back[:3, 3].tolist())
    image, like = to_sitk(array.astype(np.float32), grid), to_sitk(np.zeros(onto.shape, np.float32), onto)
    return np.asarray(sitk.GetArrayFromImage(sitk.Resample(image, like, transform)))


__all__ = ["SWI", "box", "cut", "demo_reference", "laid", "rigid"]
