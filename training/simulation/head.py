"""One head in the scanner: an anatomy given its own shape, age and pose, on the fine grid that the physics runs on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.geometry import Geometry
from training.simulation.anatomy.nuclei import draw_nuclei
from training.simulation.anatomy.tissue_maps import Anatomy

from .head_parameters import HeadParameters
from .resampling import Displacement, Source, resample
from .tissue import Tissue, TissueState, draw_tissue_state

UInt8 = NDArray[np.uint8]
_FIELD_STEP_MM = 2.0


@dataclass(frozen=True)
class Slab:
    """The imaged box: its size, the fine voxel, and how the slices lie.

    Parameters
    ----------
    fov_mm : tuple of float
        Field of view along ``(i, j, k)``.
    fine_mm : float
        Edge of the cubic fine voxels.
    oblique_deg : tuple of float
        Rotation of the slices about patient x (pitch), y (roll) and z (yaw).
    """

    fov_mm: tuple[float, float, float] = (192.0, 224.0, 144.0)
    fine_mm: float = 0.5
    oblique_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def geometry(self) -> Geometry:
        """The fine grid, centred on the isocentre, axes rotated by `oblique_deg` from LPS."""
        n = [round(f / self.fine_mm) for f in self.fov_mm]
        if min(n) < 8:
            raise InputError(f"a field of view of {self.fov_mm} mm is too small", do="make it larger")
        direction = Rotation.from_euler("xyz", self.oblique_deg, degrees=True).as_matrix()
        affine = np.eye(4)
        affine[:3, :3] = direction * self.fine_mm
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(n) - 1) / 2)
        return Geometry((n[2], n[1], n[0]), affine)


@dataclass(frozen=True, eq=False)
class Head:
    """Tissue of one head on the fine grid.

    Parameters
    ----------
    name : str
        Name of the anatomy.
    parameters : HeadParameters
        What was made of it.
    geometry : Geometry
        The fine grid (LPS).
    csf, grey, white : ndarray of uint8, shape (k, j, i)
        Fractions, 0–255.
    other : ndarray of uint8
        Tissue that fills the rest.
    inlay, inlay_fraction : ndarray of uint8
        A further tissue (nucleus, white-matter lesion, perivascular space) and the fraction of the voxel it takes over.
    vessels : ndarray of uint8 or None
        Large vessels where the anatomy knows them, 0–255.
    surroundings : ndarray of uint8
        Tissue values on a wider, coarser grid, `surroundings_geometry`: what spoils the field from afar.
    tissue : TissueState
        Its constants.
    to_mni : DisplacementMap
        Patient coordinates to LPS-oriented MNI.
    """

    name: str
    parameters: HeadParameters
    geometry: Geometry
    csf: UInt8
    grey: UInt8
    white: UInt8
    other: UInt8
    inlay: UInt8
    inlay_fraction: UInt8
    vessels: UInt8 | None
    surroundings: UInt8
    surroundings_geometry: Geometry
    tissue: TissueState
    to_mni: DisplacementMap = field(repr=False)

    def brain(self) -> NDArray[np.bool_]:
        """Grey or white matter (nuclei included) in at least half the voxel."""
        return np.asarray(self.grey.astype(np.uint16) + self.white >= 128)

    @property
    def b0(self) -> tuple[float, float, float]:
        """Main field along the grid's ``(i, j, k)``: patient z, as in a horizontal-bore magnet."""
        x, y, z = self.geometry.direction.T @ np.array([0.0, 0.0, 1.0])
        return float(x), float(y), float(z)


@dataclass(frozen=True, eq=False)
class DisplacementMap:
    """Patient LPS to LPS-oriented MNI, as an affine map and a smooth displacement on a coarse grid.

    Parameters
    ----------
    matrix, offset : ndarray, shapes (3, 3) and (3,)
        The affine part.
    displacement : ndarray of float32, shape (3, k, j, i)
        What is added, mm, on a grid of `step` mm along patient axes from `origin`.
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    displacement: NDArray[np.float32]
    origin: NDArray[np.float64]
    step: float = _FIELD_STEP_MM

    def __call__(self, lps: NDArray[np.float64]) -> NDArray[np.float64]:
        """MNI coordinates (LPS axes) of points (n, 3)."""
        at = ((lps - self.origin) / self.step)[:, ::-1].T
        moved = [ndimage.map_coordinates(d, at, order=1, mode="nearest") for d in self.displacement]
        return np.asarray(lps @ self.matrix.T + self.offset + np.stack(moved, axis=1))

    def inverse(self, mni: NDArray[np.float64]) -> NDArray[np.float64]:
        """Patient coordinates of MNI points (n, 3), by fixed-point iteration to well below a voxel."""
        back = np.linalg.inv(self.matrix)
        lps = (mni - self.offset) @ back.T
        for _ in range(8):
            lps = lps - (self(lps) - mni) @ back.T
        return np.asarray(lps)

    def displacements(self) -> Displacement:
        """How far the map moves each point, for resampling onto the patient's grid."""
        k, j, i = self.displacement.shape[1:]
        axes = [self.origin[n] + self.step * np.arange(m) for n, m in enumerate((i, j, k))]
        z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        points = np.stack([x, y, z], axis=-1)
        total = points @ self.matrix.T + self.offset - points + np.moveaxis(self.displacement, 0, -1)
        return Displacement(np.ascontiguousarray(total), self.step, self.origin)


def _affine(p: HeadParameters) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Patient LPS → MNI (LPS axes): undo shift, pose, shear and scale about the middle of the brain."""
    rotation = Rotation.from_euler("xyz", p.pose_deg, degrees=True).as_matrix()
    shear = np.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = p.shear
    mirror = np.diag([-1.0 if p.mirror else 1.0, 1.0, 1.0])
    forward = rotation @ shear @ np.diag(p.scale) @ mirror
    middle = np.array([0.0, 18.0, 8.0])  # of the brain in MNI, LPS axes
    matrix = np.linalg.inv(forward)
    return np.asarray(matrix, dtype=np.float64), np.asarray(middle - matrix @ np.array(p.shift_mm), dtype=np.float64)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float, sd: float) -> NDArray[np.float32]:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return np.asarray(noise * (sd / max(float(noise.std()), 1e-9)), dtype=np.float32)


def _atrophy_pull(anatomy: Anatomy, mni: NDArray[np.float64], amount_mm: float) -> NDArray[np.float64]:
    """Displacement that makes sulci and ventricles wider: look towards the nearest fluid by `amount_mm`."""
    stride = max(1, round(_FIELD_STEP_MM / anatomy.spacing_mm))
    step = stride * anatomy.spacing_mm
    fluid = ndimage.uniform_filter(anatomy.csf, stride)[::stride, ::stride, ::stride].astype(np.float32) / 255
    fluid = ndimage.gaussian_filter(fluid, 1.6 / step * 1.0)
    at = ((mni - np.array(anatomy.origin_mm)) / step)[:, ::-1].T
    slopes = [ndimage.map_coordinates(np.asarray(g), at, order=1, mode="nearest") for g in np.gradient(fluid)]
    pull = np.stack(slopes[::-1], axis=1)
    return np.asarray(pull / np.maximum(np.linalg.norm(pull, axis=1, keepdims=True), 0.06) * amount_mm)


def displacement(anatomy: Anatomy, p: HeadParameters, grid: Geometry, rng: np.random.Generator) -> DisplacementMap:
    """The whole map from patient to anatomy over the box that holds the fine grid."""
    k, j, i = grid.shape
    corners = grid.to_lps([[a, b, c] for a in (-1, i) for b in (-1, j) for c in (-1, k)])
    low, high = corners.min(axis=0) - 2 * _FIELD_STEP_MM, corners.max(axis=0) + 2 * _FIELD_STEP_MM
    shape = tuple(int(n) for n in np.ceil((high - low) / _FIELD_STEP_MM)[::-1].astype(int) + 1)
    matrix, offset = _affine(p)
    warp = np.stack([_smooth_noise(rng, shape, 8.0, p.warp_mm) for _ in range(3)])
    if p.bend_mm is not None:
        warp += np.stack([_smooth_noise(rng, shape, 18.0, p.bend_mm) for _ in range(3)])
    axes = [low[n] + _FIELD_STEP_MM * np.arange(shape[2 - n]) for n in range(3)]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    if p.atrophy_mm > 0:
        pull = _atrophy_pull(anatomy, points @ matrix.T + offset, p.atrophy_mm)
        warp = warp + pull.T.reshape(3, *shape).astype(np.float32)
    return DisplacementMap(matrix, offset, warp.astype(np.float32), low)


def _paint(
    head_inlay: tuple[UInt8, UInt8],
    grid: Geometry,
    centre: NDArray[np.float64],
    radii: NDArray[np.float64],
    axes: NDArray[np.float64],
    tissue: Tissue,
) -> None:
    """Draw one soft ellipsoid of `tissue` into the inlay, in place."""
    inlay, fraction = head_inlay
    middle = grid.to_ijk(centre)[::-1]
    reach = float(radii.max()) / grid.spacing[0] + 2
    low = np.maximum(np.floor(middle - reach), 0).astype(int)
    high = np.minimum(np.ceil(middle + reach) + 1, grid.shape).astype(int)
    if np.any(low >= high):
        return
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    kk, jj, ii = np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij")
    local = (grid.to_lps(np.stack([ii, jj, kk], axis=-1)) - centre) @ axes / radii
    edge = (np.linalg.norm(local, axis=-1) - 1) * radii.min()
    part = np.round(255 * np.clip(0.5 - edge / 0.7, 0, 1)).astype(np.uint8)
    stronger = part > fraction[box]
    fraction[box][stronger] = part[stronger]
    inlay[box][stronger] = tissue


def _add_age_marks(
    head_inlay: tuple[UInt8, UInt8],
    grid: Geometry,
    white: UInt8,
    csf: UInt8,
    p: HeadParameters,
    rng: np.random.Generator,
) -> None:
    """White-matter lesions (beside the ventricles more often) and enlarged perivascular spaces."""
    stride = 4
    wm = white[::stride, ::stride, ::stride] > 230
    if not wm.any():
        return
    fluid = csf[::stride, ::stride, ::stride] > 200
    inner = (
        ndimage.distance_transform_edt(~(fluid & ndimage.binary_opening(fluid, iterations=2)))
        * stride
        * grid.spacing[0]
    )
    where = np.argwhere(wm)
    near = np.exp(-inner[tuple(where.T)] / 5.0) + 0.03
    for _ in range(p.white_lesions):
        at = where[rng.choice(len(where), p=near / near.sum())] * stride + rng.uniform(0, stride, 3)
        radii = rng.uniform(1.2, 4.0) * rng.uniform(0.6, 1.4, 3)
        axes = np.asarray(Rotation.random(rng=rng).as_matrix())
        _paint(head_inlay, grid, grid.to_lps(at[::-1]), radii, axes, Tissue.WHITE_LESION)
    for _ in range(p.perivascular_spaces):
        at = where[rng.integers(len(where))] * stride + rng.uniform(0, stride, 3)
        radii = np.array([1.0, 1.0, rng.uniform(3, 7)]) * np.array([1, 1, 1.0])
        radii[:2] = rng.uniform(0.35, 0.9)
        axes = np.asarray(Rotation.random(rng=rng).as_matrix())
        _paint(head_inlay, grid, grid.to_lps(at[::-1]), radii, axes, Tissue.CSF)


def _surroundings(anatomy: Anatomy, grid: Geometry, how: Displacement) -> tuple[UInt8, Geometry]:
    """Tissue values around and beyond the fine grid, the neck continued downwards as long as the field needs it."""
    step = max(1.0, grid.spacing[0])
    fov = np.array(grid.shape[::-1]) * grid.spacing[0]
    below, around = 48.0, 14.0
    low, high = np.array([-around, -around, -below]), fov + around
    n = np.round((high - low) / step).astype(int)
    affine = grid.affine.copy()
    affine[:3, :3] *= step / grid.spacing[0]
    affine[:3, 3] = grid.to_lps(low / grid.spacing[0])
    wide = Geometry((int(n[2]), int(n[1]), int(n[0])), affine)
    extra = round(60 / anatomy.spacing_mm)
    other = np.pad(anatomy.other, ((extra, 0), (0, 0), (0, 0)), mode="edge")
    x, y, z = anatomy.origin_mm
    longer = Source(other, anatomy.spacing_mm, (x, y, z - extra * anatomy.spacing_mm), nearest=True)
    return resample([longer], wide, how)[0], wide


def make_head(anatomy: Anatomy, parameters: HeadParameters, slab: Slab, seed: int) -> Head:
    """Shape and pose `anatomy` and sample it on the fine grid of `slab`; the same seed makes the same head."""
    rng = np.random.default_rng([seed, 1])
    grid = slab.geometry()
    mapping = displacement(anatomy, parameters, grid, rng)
    how = mapping.displacements()
    label, fraction, nuclei_origin = draw_nuclei()
    spacing, origin = anatomy.spacing_mm, anatomy.origin_mm
    sources = [Source(array, spacing, origin) for array in (anatomy.csf, anatomy.grey, anatomy.white)]
    sources.append(Source(anatomy.other, spacing, origin, nearest=True))
    sources += [Source(label, 0.5, nuclei_origin, nearest=True), Source(fraction, 0.5, nuclei_origin)]
    if anatomy.vessels is not None:
        sources.append(Source(anatomy.vessels, spacing, origin))
    csf, grey, white, other, inlay, inlay_fraction, *vessels = resample(sources, grid, how)
    # A nucleus stops at the ventricle.
    room = (255 - csf).astype(np.uint16)
    inlay_fraction = (inlay_fraction * room // 255).astype(np.uint8)
    _add_age_marks((inlay, inlay_fraction), grid, white, csf, parameters, rng)
    state = draw_tissue_state(
        rng, iron=parameters.iron, oxygenation=parameters.oxygenation, haematocrit=parameters.haematocrit
    )
    return Head(
        anatomy.name,
        parameters,
        grid,
        csf,
        grey,
        white,
        other,
        inlay,
        inlay_fraction,
        vessels[0] if vessels else None,
        *_surroundings(anatomy, grid, how),
        state,
        mapping,
    )
