"""How is the atlas that the pipeline ships made? From the ICBM152 template and the simulator's parcellation.

    python -m training.region_map [--out pipeline/anatomy/icbm152.npz]

The template (ICBM152 2009a nonlinear symmetric, T1 and tissue maps) is the one in the nilearn wheel. The same input
makes the same arrays; ``pipeline/anatomy/NOTICE.md`` holds the notice that goes with them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.simulation.anatomy.icbm import icbm_anatomy, template
from training.simulation.distance import distance_from
from training.simulation.regions import PARCELLATION, PARCELS, anatomy_depth, parcels

STEP_MM = 2
MARGIN_MM = 12
"""Room round the template, the same as :func:`icbm_anatomy` leaves."""
CLOSING_MM, RIM_MM = 5.0, 1.75
"""The outline takes the sulci in and a rim of fluid, as :mod:`pipeline.brain` does."""
DEPTH_SHARE = 0.75
"""Depth below the cortex in one head over that in the template, whose averaged sulci are shallow.

Of the white matter that may be deep, 25 to 38 % (mean 35 %) lies deeper than 9 mm in five labelled heads of the
training split (BrainWeb), 57 % in the template; deeper than 12 mm in the template lie 36 %. Three heads of the other
splits, two of them for testing, were looked at in the same run (25, 27 and 34 %); the five alone give the same share.
"""
LEVELS = 64
"""Grey levels of the T1 image: as many as a registration by mutual information can use."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RegionMap:
    """The arrays of the atlas, axes along LPS, shape (k, j, i).

    Parameters
    ----------
    t1 : ndarray of uint8
        The skull-stripped T1 template, 0–63.
    brain : ndarray of bool
        The brain in outline: sulci and ventricles included.
    parcel : ndarray of uint8
        Number of the parcel in :data:`training.simulation.regions.PARCELS`, everywhere, also beyond the brain.
    origin_mm : tuple of float
        LPS-oriented MNI coordinates of voxel (0, 0, 0).
    """

    t1: NDArray[np.uint8]
    brain: NDArray[np.bool_]
    parcel: NDArray[np.uint8]
    origin_mm: tuple[float, float, float]


def _shrink(array: NDArray[np.generic]) -> Float32:
    """Mean of blocks of ``STEP_MM`` voxels."""
    k, j, i = (n // STEP_MM for n in array.shape)
    cut = array[: k * STEP_MM, : j * STEP_MM, : i * STEP_MM].astype(np.float32)
    return np.asarray(cut.reshape(k, STEP_MM, j, STEP_MM, i, STEP_MM).mean(axis=(1, 3, 5)), dtype=np.float32)


def _outline(tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    far = distance_from(tissue)
    closed = distance_from(far > CLOSING_MM) > CLOSING_MM - RIM_MM
    return np.asarray(ndimage.binary_fill_holes(closed), dtype=bool)


def make_region_map() -> RegionMap:
    """Build the atlas from the installed template.

    Raises
    ------
    InputError
        If the nilearn wheel with the templates is not installed.
    """
    head = icbm_anatomy()
    t1, grey, white = (np.pad(template(kind)[0], MARGIN_MM) for kind in ("t1", "gm", "wm"))
    first = (STEP_MM - 1) / 2
    x, y, z = (o + first for o in head.origin_mm)
    depth = _shrink(anatomy_depth(head).array) * np.float32(DEPTH_SHARE)
    kk, jj, ii = np.meshgrid(*(np.arange(n) for n in depth.shape), indexing="ij")
    mni = np.stack([x + STEP_MM * ii, y + STEP_MM * jj, z + STEP_MM * kk], axis=-1).reshape(-1, 3)
    return RegionMap(
        t1=np.round(_shrink(t1) * ((LEVELS - 1) / 255)).astype(np.uint8),
        brain=_shrink(_outline(grey.astype(np.uint16) + white > 110)) > 0.5,
        parcel=parcels(mni, depth.ravel()).reshape(depth.shape),
        origin_mm=(x, y, z),
    )


def save(made: RegionMap, path: Path) -> None:
    """Write the atlas as plain compressed arrays, without pickles."""
    np.savez_compressed(
        path,
        t1=made.t1,
        brain=made.brain,
        parcel=made.parcel,
        regions=np.array([region for region, _ in PARCELS]),
        locations=np.array([location for _, location in PARCELS]),
        origin_mm=np.array(made.origin_mm),
        spacing_mm=np.array(float(STEP_MM)),
        parcellation=np.array(PARCELLATION),
    )


def main() -> None:
    """Make the atlas and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    shipped = Path(__file__).parents[1] / "pipeline" / "anatomy" / "icbm152.npz"
    parser.add_argument("--out", type=Path, default=shipped)
    path = parser.parse_args().out
    save(make_region_map(), path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
