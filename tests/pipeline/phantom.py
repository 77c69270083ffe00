"""A head made of ellipsoids with dark spheres and tubes in it, small enough to analyse in a second or two.

It has what skull removal and shape tests need (scalp, bone, CSF, sulci, coil shading, noise, blooming by blur) and no
physics; the demo study, which has, is read by :func:`demo`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from scipy import ndimage

import node.demo
from pipeline.geometry import Acquisition, FrameReference, Geometry, Volume
from pipeline.read.study import find_files, read_studies, select_series

if TYPE_CHECKING:
    from pipeline.detect import Detection
    from pipeline.read.pairing import SeriesSelection

DEMO = Path(node.demo.__file__).parent / "study"
SPACING = (1.0, 1.0, 2.5)
SHAPE = (56, 200, 168)
MIDDLE = (83.5, 99.5, 68.75)
"""Centre of the head, mm from the first voxel along (x, y, z)."""

T = TypeVar("T")

shared_folder: Path | None = None
"""Where the processes of one test run keep what the first of them has made."""

Bleed = tuple[float, float, float, float]
"""Centre ``(x, y, z)`` from the head's centre, and radius; mm."""
BLEEDS: tuple[Bleed, ...] = ((30, 20, 10, 2.0), (-25, -30, 0, 2.5), (10, 45, -10, 1.8), (-35, 5, 20, 3.0))


def _grid(shape: Sequence[int], spacing: Sequence[float]) -> list[NDArray[np.float64]]:
    """Millimetres from the head's centre, as ``[z, y, x]``."""
    axes = [np.arange(n) * s - c for n, s, c in zip(shape, spacing[::-1], MIDDLE[::-1], strict=True)]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def _ellipsoid(at: list[NDArray[np.float64]], x: float, y: float, z: float) -> NDArray[np.bool_]:
    return (at[2] / x) ** 2 + (at[1] / y) ** 2 + (at[0] / z) ** 2 <= 1


@cache
def head(
    bleeds: tuple[Bleed, ...] = BLEEDS,
    *,
    tubes: tuple[tuple[Bleed, tuple[float, float, float]], ...] = (),
    noise: float = 0.03,
    shading: float = 0.3,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
    seed: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw the head; returns the image and the true brain, both ``[slice, row, column]``, not to be written to.

    A tube is a start with its radius, and the way to its end (mm).
    """
    at = _grid(shape, spacing)
    brain = _ellipsoid(at, 66, 82, 58)
    image = np.full(shape, 0.02)
    image[_ellipsoid(at, 80, 96, 72)] = 0.9  # scalp
    image[_ellipsoid(at, 75, 91, 67)] = 0.05  # bone
    image[_ellipsoid(at, 68.5, 84.5, 60.5)] = 0.65  # cerebrospinal fluid
    image[brain] = 1.0
    image[_ellipsoid(at, 12, 25, 10)] = 0.65  # ventricles
    image[brain & (np.abs(at[2]) < 1.0) & (at[0] > 10)] = 0.65  # the cleft between the hemispheres
    for x, y, z, radius in bleeds:
        near = np.sqrt((at[2] - x) ** 2 + (at[1] - y) ** 2 + (at[0] - z) ** 2)
        image *= 1 - np.clip(radius - near + 0.5, 0, 1)
    for (x, y, z, radius), way in tubes:
        for t in np.linspace(0, 1, 200):
            slices = np.abs(at[0].ravel() - z - t * way[2]) <= radius
            above = at[0][slices] - z - t * way[2]
            near = (at[2] - x - t * way[0]) ** 2 + (at[1] - y - t * way[1]) ** 2 + above**2
            image[slices] = np.where(near <= radius**2, 0.1, image[slices])
    image = ndimage.gaussian_filter(image, (0, 0.5, 0.5))
    image *= 1 + shading * (at[2] / 80 + (at[1] / 95) ** 2)
    image += np.random.default_rng(seed).normal(0, noise, shape)
    image = (400 * np.abs(image)).astype(np.float32)
    image.setflags(write=False)
    return image, brain


def volume(array: NDArray[np.float32], spacing: tuple[float, float, float] = SPACING, uid: str = "1.2.3") -> Volume:
    """Put an array on a grid whose first voxel is at the origin, with a frame for each slice."""
    shape = (array.shape[0], array.shape[1], array.shape[2])
    frames = tuple(FrameReference(f"{uid}.{k + 1}", "1.2.840.10008.5.1.4.1.1.4", f"{k}.dcm") for k in range(shape[0]))
    return Volume(array, Geometry(shape, np.diag([*spacing, 1.0]), "1.2.9"), frames, uid)


def to_ijk(bleed: Bleed, spacing: tuple[float, float, float] = SPACING) -> NDArray[np.float64]:
    """Voxel coordinates ``(i, j, k)`` of a bleed's centre."""
    return (np.array(bleed[:3]) + MIDDLE) / spacing


@cache
def acquisition() -> Acquisition:
    """The head with its bleeds, no phase, no magnitude."""
    return Acquisition(volume(head()[0]))


@cache
def demo() -> Acquisition:
    """The bundled demo study, read from its DICOM files."""
    from pipeline.read.volume import read_acquisition

    return _shared("acquisition", lambda: read_acquisition(demo_pick()))


@cache
def demo_pick() -> SeriesSelection:
    """The series of the demo study that are analysed."""
    (study,), _ = read_studies(p for p in find_files(DEMO) if p.suffix == ".dcm")
    return select_series(study)


@cache
def demo_detection() -> Detection:
    """What profile `frst` finds in the demo study."""
    from pipeline.detect import detect
    from pipeline.profile import load_profile

    return _shared("detection", lambda: detect(demo_pick(), load_profile("frst")))


def _shared(name: str, make: Callable[[], T]) -> T:
    """What `make` returns, made by the first process that asks."""
    if shared_folder is None:
        return make()
    stored = shared_folder / f"demo-{name}.pickle"
    with FileLock(f"{stored}.lock"):
        if not stored.exists():
            stored.write_bytes(pickle.dumps(make()))
    made: T = pickle.loads(stored.read_bytes())
    return made


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Overlap of two masks."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
