"""What of a head stays the same over lesion sets and protocols? Tissue, veins, and the field they make."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numba import njit, prange
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.sitk_images import to_sitk
from training.simulation.anatomy.tissue_maps import Anatomy
from training.simulation.veins.short import ShortVeins, ShortVeinTree, grow_short_veins

from .field import dipole_field, shim
from .head import Head, Slab, make_head
from .head_parameters import HeadParameters
from .texture import texture_block
from .tissue import Tissue
from .veins import Generator, Territory, VeinImage, VeinParameters, VeinTree, grow_veins, join, rasterise, territory

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Texture:
    """Grain of the tissue; the defaults match the in-plane spectrum of a real 7 T scan.

    Parameters
    ----------
    r2star_hz_per_t : float
        Spread of R2* per tesla; with the field it grows as iron's and myelin's share of R2* does.
    chi_ppm : float
        Spread of the susceptibility.
    exponent : float
        Fall of the amplitude with frequency.
    """

    r2star_hz_per_t: float = 1.35
    chi_ppm: float = 0.026
    exponent: float = 1.15


@dataclass(frozen=True)
class SceneParameters:
    """All that decides a scene besides its anatomy and its seed."""

    head: HeadParameters = field(default_factory=HeadParameters)
    slab: Slab = field(default_factory=Slab)
    generator: Generator = Generator.DRAINAGE
    veins: VeinParameters = field(default_factory=VeinParameters)
    texture: Texture = field(default_factory=Texture)
    short_veins: ShortVeins | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """One head ready to be scanned.

    Parameters
    ----------
    head : Head
        Tissue on the fine grid.
    ground : Territory
        The same in voxels of about 1 mm.
    tree, veins : VeinTree, VeinImage
        The veins, and their image on the fine grid.
    field_ppm : ndarray of float32, shape (k, j, i)
        ΔB/B0 without lesions, shimmed.
    grain : ndarray of float32, shape (128, 128, 128)
        Periodic texture of unit variance.
    short_veins : ShortVeinTree or None
        Veins that stand alone, which `tree` holds as well.
    """

    parameters: SceneParameters
    seed: int
    head: Head
    ground: Territory
    tree: VeinTree
    veins: VeinImage
    field_ppm: Float32
    grain: Float32
    short_veins: ShortVeinTree | None = None


@njit(parallel=True, cache=True)
def _susceptibility(chi, csf, grey, white, inlay, inlay_fraction, vein, artery, table, grain, amount):  # type: ignore[no-untyped-def]  # pragma: no cover
    nk, nj, ni = chi.shape
    for k in prange(nk):
        for j in range(nj):
            for i in range(ni):
                c, g, w = csf[k, j, i], grey[k, j, i], white[k, j, i]
                q = inlay_fraction[k, j, i] / 255.0
                value = (c * table[1] + g * table[2] + w * table[3]) / 255.0 * (1.0 - q) + q * table[inlay[k, j, i]]
                value += amount * grain[k % 128, j % 128, i % 128] * (np.float32(g) + w) / 255.0
                v, a = vein[k, j, i] / 255.0, artery[k, j, i] / 255.0
                value = value * (1.0 - v) + v * (table[19] + table[3])
                chi[k, j, i] = value * (1.0 - a) + a * table[9]


def _far_field(head: Head, workers: int) -> Float32:
    """Field of air, bone and fat on the fine grid, from the coarse one."""
    water = np.float32(head.tissue.chi_ppm[Tissue.AIR])
    table = head.tissue.chi_ppm - water  # against the surrounding air
    for tissue in (Tissue.CSF, Tissue.GREY, Tissue.WHITE):
        table[tissue] = -water
    wide = head.surroundings_geometry
    chi = table[head.surroundings]
    pad = (chi.shape[0] // 2, chi.shape[1] // 2, chi.shape[2] // 2)
    coarse = dipole_field(chi, wide.spacing, head.b0, padding=pad, workers=workers)
    grid = head.geometry
    k, j, i = grid.shape
    fine = sitk.Resample(
        to_sitk(coarse, wide),
        (i, j, k),
        sitk.Transform(),
        sitk.sitkLinear,
        grid.affine[:3, 3].tolist(),
        grid.spacing,
        grid.direction.ravel().tolist(),
    )
    # Linear interpolation leaves kinks that a high-pass filter would show.
    smooth = 0.5 * wide.spacing[0] / grid.spacing[0]
    return np.asarray(ndimage.gaussian_filter(sitk.GetArrayFromImage(fine), smooth, truncate=2.5), dtype=np.float32)


def _split_vessels(head: Head, veins: VeinImage) -> tuple[VeinImage, NDArray[np.uint8]]:
    """Add the anatomy's own sinuses to the veins; what lies far from any large vein is an artery."""
    artery = np.zeros(head.geometry.shape, dtype=np.uint8)
    if head.vessels is None:
        return veins, artery
    where = np.flatnonzero(head.vessels.ravel() > 40)
    index = np.stack(np.unravel_index(where, head.geometry.shape), axis=1)[:, ::-1]
    mni = head.to_mni(head.geometry.to_lps(index))
    x, y, z = np.abs(mni[:, 0]), mni[:, 1], mni[:, 2]
    # The sagittal sinus lies far out in the midline, the anterior cerebral arteries nearer the middle.
    falx = (x < 7) & (np.hypot(y - 18, z - 12) > 62)
    tentorial = (y > 20) & (z < 8) & (z > -50) & ((y > 62) | (x > 40))
    venous = falx | tentorial | (z > 62)
    fraction = veins.fraction.copy()
    flat, source = fraction.reshape(-1), head.vessels.reshape(-1)
    flat[where[venous]] = np.maximum(flat[where[venous]], source[where[venous]])
    artery.reshape(-1)[where[~venous]] = source[where[~venous]]
    combined = VeinImage(
        fraction, veins.voxel, veins.segment, veins.start, veins.axis, veins.length, veins.radius, artery
    )
    return combined, artery


def make_scene(anatomy: Anatomy, parameters: SceneParameters, seed: int, *, workers: int = 1) -> Scene:
    """Build the head, its veins and its field; the same seed builds the same scene."""
    head = make_head(anatomy, parameters.head, parameters.slab, seed)
    ground = territory(head)
    tree = grow_veins(head, ground, parameters.generator, parameters.veins, seed)
    short = None
    if parameters.short_veins is not None:
        normal = head.geometry.direction[:, 2]
        short = grow_short_veins(ground, normal, parameters.short_veins, np.random.default_rng([seed, 10]))
        tree = join([tree, short.tree])
    veins, artery = _split_vessels(head, rasterise(tree, head.geometry))
    rng = np.random.default_rng([seed, 3])
    grain = texture_block(rng, parameters.texture.exponent)
    shift = _far_field(head, workers)
    chi = np.empty(head.geometry.shape, dtype=np.float32)
    _susceptibility(
        chi,
        head.csf,
        head.grey,
        head.white,
        head.inlay,
        head.inlay_fraction,
        veins.fraction,
        artery,
        head.tissue.chi_ppm,
        texture_block(rng, parameters.texture.exponent),
        np.float32(parameters.texture.chi_ppm),
    )
    shift += dipole_field(chi, head.geometry.spacing, head.b0, workers=workers)
    shim(shift, head.brain())
    return Scene(parameters, seed, head, ground, tree, veins, shift, grain, short)
