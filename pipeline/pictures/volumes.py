"""What does the viewer of the page show? The volumes of a study, 8 bits deep, upright, all on one grid.

Air around the head is cut off. Every plane of the acquisition is kept, so that slices have the numbers of the PACS.
"""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.geometry import Geometry
from pipeline.results.windows import GreyWindow, phase_window, swi_window

from .anatomy import AnatomicalAxes
from .nifti import Bytes, from_nifti, to_nifti
from .picture_archive import write_picture_archive

if TYPE_CHECKING:
    from pipeline.anatomy.registration import Alignment
    from pipeline.detect import Detection, RegisteredPrior

SCHEMA: Final = "cmb-volumes/1"
SLAB_MM: Final = 10.0
"""Thickness of the minimum intensity projection."""
ATLAS: Final = "atlas.npy"
ATLAS_MM: Final = 8.0
"""Distance of the points whose place in the atlas is kept; between them it is interpolated."""

_MARGIN_MM: Final = 20.0
_HEADROOM: Final = 1.25
"""The brightest value that is kept, in multiples of the window: a reader may widen it."""

Floats = NDArray[np.float32]
Box = tuple[slice, slice, slice]


def make_volumes(detection: Detection, numbers: tuple[int, ...]) -> bytes:
    """Pack SWI, projection, phase, the registered SWI of the prior study, and the brain mask.

    Parameters
    ----------
    detection : Detection
        The images.
    numbers : tuple of int
        What a PACS calls each slice.

    Returns
    -------
    bytes
        A file of :mod:`.picture_archive` with ``swi.nii.gz``, ``mip.nii.gz`` and ``brain.nii.gz``, and, where there
        are these, ``phase.nii.gz``, ``prior.nii.gz`` and ``atlas.npy`` (places in the atlas). Its index has the grid
        (shape ``[z, y, x]``, affine to LPS mm), the axis across the slices (0 to 2: x, y, z) and, along it, the slice
        numbers.
    """
    swi, phase = detection.acquisition.swi, detection.acquisition.phase
    standing = AnatomicalAxes.of(swi.geometry)
    across = standing.axes.index(2)
    box = _box(standing, detection.brain, across)
    grid = _upright(standing, box)
    window = swi_window(swi.array)
    grey, shown_swi = _grey(_ras(standing, swi.array)[box], window)
    projection = _projection(grey, across, swi.geometry)
    files = {"swi": to_nifti(grey, grid, shown_swi), "mip": to_nifti(projection, grid, shown_swi)}
    if phase is not None:
        grey, shown = _radians(_ras(standing, phase.array)[box], phase_window(phase.array, swi.array))
        files["phase"] = to_nifti(grey, grid, shown)
    if detection.brain is not None:
        files["brain"] = to_nifti(_ras(standing, detection.brain.view(np.uint8))[box], grid, (0, 1))
    if detection.prior is not None:
        files["prior"] = to_nifti(_registered(detection.prior, grid), grid, shown_swi)
    index: dict[str, Any] = {
        "schema": SCHEMA,
        "shape": list(grid.shape),
        "affine": grid.affine.tolist(),
        "across": across,
        "numbers": _along(standing, numbers, across, box),
        "volumes": [name for name in ("swi", "phase", "mip", "prior") if name in files],
    }
    kept = {f"{name}.nii.gz": content for name, content in files.items()}
    if detection.alignment is not None:
        kept[ATLAS] = _atlas_places(detection.alignment, grid)
    return write_picture_archive(index, kept)


def _registered(prior: RegisteredPrior, grid: Geometry) -> Bytes:
    """The SWI of the prior study on the grid of this one."""
    values, then = from_nifti(prior.swi)
    matrix = np.linalg.inv(then.affine) @ prior.to_prior @ grid.affine  # voxels of this grid to voxels of the prior
    turned = np.ascontiguousarray(matrix[:3, :3][::-1, ::-1])
    laid = ndimage.affine_transform(values, turned, matrix[:3, 3][::-1], grid.shape, order=1)
    return np.asarray(laid, dtype=np.uint8)


def _atlas_places(alignment: Alignment, grid: Geometry) -> bytes:
    """Where points of the grid, about :data:`ATLAS_MM` apart, lie in the atlas: (z, y, x, 3), the corners included."""
    counts = [max(2, round(n * s / ATLAS_MM) + 1) for n, s in zip(grid.shape, grid.spacing[::-1], strict=True)]
    steps = [np.linspace(0, size - 1, count) for size, count in zip(grid.shape, counts, strict=True)]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)[..., ::-1]
    file = BytesIO()
    np.save(file, alignment.to_mni(grid.to_lps(points)).astype(np.float32), allow_pickle=False)
    return file.getvalue()


def _ras(standing: AnatomicalAxes, array: NDArray[Any]) -> NDArray[Any]:
    """Values as ``[z, y, x]``: head, front and right at the high ends, as in a NIfTI file that no viewer turns."""
    return standing.view(array)[:, ::-1, ::-1]


def _box(standing: AnatomicalAxes, brain: NDArray[np.bool_] | None, across: int) -> Box:
    """The part of the upright grid that is kept: the brain and a margin, and every slice."""
    shape = tuple(standing.geometry.shape[2 - standing.axes[a]] for a in (2, 1, 0))
    if brain is None or not brain.any():
        return slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])
    (found,) = ndimage.find_objects(_ras(standing, brain.view(np.uint8)))
    kept = []
    for axis, (part, size) in enumerate(zip(found, shape, strict=True)):
        margin = math.ceil(_MARGIN_MM / standing.spacing[2 - axis])
        whole = 2 - axis == across
        kept.append(slice(0, size) if whole else slice(max(0, part.start - margin), min(size, part.stop + margin)))
    z, y, x = kept
    return z, y, x


def _rises(standing: AnatomicalAxes, a: int) -> bool:
    """Whether the upright axis `a` (x, y, z) runs the same way as that of the acquisition."""
    return standing.forward[a] if a == 2 else not standing.forward[a]


def _upright(standing: AnatomicalAxes, box: Box) -> Geometry:
    """The grid of the part that is kept, axes to the right, the front and the head."""
    affine = np.eye(4)
    first = np.zeros(3)
    for a in range(3):  # x, y, z of the upright grid
        axis = standing.axes[a]
        up = _rises(standing, a)
        step = standing.geometry.affine[:3, axis]
        affine[:3, a] = step if up else -step
        size = standing.geometry.shape[2 - axis]
        first[axis] = box[2 - a].start if up else size - 1 - box[2 - a].start
    affine[:3, 3] = standing.geometry.to_lps(first)
    z, y, x = (part.stop - part.start for part in box)
    return Geometry((z, y, x), affine)


def _along(standing: AnatomicalAxes, numbers: tuple[int, ...], across: int, box: Box) -> list[int]:
    return list(numbers if _rises(standing, across) else numbers[::-1])[box[2 - across]]


def _grey(values: Floats, window: GreyWindow) -> tuple[Bytes, tuple[int, int]]:
    """SWI in 8 bits with some room above its window; also the window in these units."""
    scale = 255 / ((window.high - window.low) * _HEADROOM)
    grey = (np.nan_to_num(values, nan=window.low) - window.low) * scale
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8), (0, round(255 / _HEADROOM))


def _radians(values: Floats, window: GreyWindow) -> tuple[Bytes, tuple[int, int]]:
    """Phase in 8 bits from -π to π; also the window in these units."""
    scale = 255 / (2 * math.pi)
    grey = np.clip(np.rint((np.nan_to_num(values) + math.pi) * scale), 0, 255).astype(np.uint8)
    return grey, (round((window.low + math.pi) * scale), round((window.high + math.pi) * scale))


def _projection(grey: Bytes, across: int, geometry: Geometry) -> Bytes:
    """The darkest value within the slab around each slice."""
    reach = max(1, round(SLAB_MM / 2 / geometry.spacing[2]))
    return np.asarray(ndimage.minimum_filter1d(grey, 2 * reach + 1, axis=2 - across))
