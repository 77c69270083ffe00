"""Which part of the brain is a point in? The one parcellation of MNI space into the regions of MARS (Gregoire 2009).

Boundaries are planes and boxes read off the ICBM152 template, and the analytic nuclei of the simulated heads: good
enough to name the lobe or structure of a microbleed, not an atlas. The truth of simulated studies and the region map
that the pipeline ships (:mod:`training.region_map`) both come from here.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from pipeline.anatomy.atlas import MIDLINE_MM
from training.simulation.anatomy.nuclei import CAUDATE, ELLIPSOIDS, Ellipsoid
from training.simulation.anatomy.tissue_maps import Anatomy

from .coarse_grid import SampledGrid, coarse
from .distance import distance_from
from .tissue import Tissue

REGIONS = ("lobar", "deep", "infratentorial")
PARCELS: Final = (
    ("lobar", "frontal"),
    ("lobar", "parietal"),
    ("lobar", "temporal"),
    ("lobar", "occipital"),
    ("lobar", "insula"),
    ("deep", "basal ganglia"),
    ("deep", "thalamus"),
    ("deep", "internal capsule"),
    ("deep", "external capsule"),
    ("deep", "corpus callosum"),
    ("deep", "white matter"),
    ("infratentorial", "brainstem"),
    ("infratentorial", "cerebellum"),
)
"""Region and location by number, as :func:`parcels` returns it."""
PARCELLATION: Final = 2
"""Counts up when names or boundaries change. The first had no capsules, and "deep white matter" for *white matter*."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_NUMBER: Final = {location: number for number, (_, location) in enumerate(PARCELS)}
_NUCLEUS_RIM_MM = 1.0
"""A point this far outside a nucleus still belongs to it."""
_LATERAL = np.array([0.94, 0.35, 0.05]) / np.linalg.norm([0.94, 0.35, 0.05])
"""The short axis of the putamen: the external capsule lies to this side of it, the internal one to the other."""


def _ellipsoid_distance(x: Floats, y: Floats, z: Floats, e: Ellipsoid) -> Floats:
    """About the distance from the surface, mm, negative inside."""
    axes, _ = np.linalg.qr(np.array(e.axes).T)
    away = np.stack([x - e.centre[0], y - e.centre[1], z - e.centre[2]], axis=-1) @ axes
    return np.asarray((np.linalg.norm(away / e.radii_mm, axis=-1) - 1) * min(e.radii_mm))


def _nucleus(tissue: Tissue) -> Ellipsoid:
    return next(e for e in ELLIPSOIDS if e.tissue is tissue)


def _caudate_distance(x: Floats, y: Floats, z: Floats) -> Floats:
    nearest = np.full(x.shape, np.inf)
    for (cx, cy, cz), radius in CAUDATE:
        nearest = np.minimum(nearest, np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) - radius)
    return nearest


def _central(x: Floats, y: Floats, z: Floats) -> NDArray[np.uint8]:
    """Parcel among the nuclei: a nucleus, or the capsule between or beside them.

    What lies below the capsules (z < -5: the basal forebrain) is put to the basal ganglia, the rest of the
    diencephalon to the thalamus.
    """
    putamen = _nucleus(Tissue.PUTAMEN)
    lentiform = np.minimum(
        _ellipsoid_distance(x, y, z, putamen), _ellipsoid_distance(x, y, z, _nucleus(Tissue.PALLIDUM))
    )
    thalamus = _ellipsoid_distance(x, y, z, _nucleus(Tissue.THALAMUS))
    ganglia = np.minimum(lentiform, _caudate_distance(x, y, z))
    sideways = np.stack([x, y, z], axis=-1) @ _LATERAL - float(np.dot(putamen.centre, _LATERAL))
    parcel = np.where(sideways > 0, _NUMBER["external capsule"], _NUMBER["internal capsule"])
    parcel[(z < -5) | (ganglia <= _NUCLEUS_RIM_MM)] = _NUMBER["basal ganglia"]
    medial = (x < 10) & (y < -2)
    parcel[((thalamus <= _NUCLEUS_RIM_MM) & (thalamus < ganglia)) | medial] = _NUMBER["thalamus"]
    return parcel.astype(np.uint8)


def _infratentorial(x: Floats, y: Floats, z: Floats) -> tuple[Bools, Bools]:
    """Brainstem, and what is cerebellum unless it is brainstem."""
    pons = (x < 19) & (y > -46) & (y < -6) & (z < -12 - 0.25 * np.maximum(0.0, y + 30))
    midbrain = (x < 15) & (y > -36) & (y < -12) & (z < -5)
    tentorium = -1 - 0.17 * np.maximum(0.0, -y - 40) - 0.2 * np.maximum(0.0, -y - 65) - 0.42 * np.maximum(0.0, x - 8)
    return pons | midbrain, (y < -32) & (z < tentorium) & (z < -2)


def _lobes(x: Floats, y: Floats, z: Floats) -> NDArray[np.uint8]:
    """Lobe by the central, lateral and parieto-occipital sulci, drawn as planes."""
    central_sulcus = -8 - 0.4 * np.maximum(0.0, z - 20) - 0.25 * np.maximum(0.0, 30 - x)
    medial = x < 24
    parieto_occipital = np.where(medial, -56 - 0.6 * np.maximum(0.0, z - 8), -70 - 0.5 * np.maximum(0.0, z - 15))
    lateral_sulcus = np.minimum(18, 6 + 0.45 * np.maximum(0.0, -y - 20))
    pole = (z < -22) & (x > np.where(z < -30, 12, 24)) & (y < 26)
    temporal = np.where(medial, (z < np.where(y < -20, 0, -14)) & (y < 4), (z < lateral_sulcus) & (y < 12)) | pole
    chosen = np.full(x.shape, _NUMBER["frontal"], dtype=np.uint8)
    # Later ones take precedence.
    lobes = (
        (y < central_sulcus, "parietal"),
        (temporal, "temporal"),
        ((y < parieto_occipital) & (z < 48), "occipital"),
        (medial & (y < -50) & (z < 0), "occipital"),
        ((x > 28) & (x < 46) & (y > -20) & (y < 22) & (z > -14) & (z < 18), "insula"),
    )
    for where, location in lobes:
        chosen[where] = _NUMBER[location]
    return chosen


def parcels(mni: ArrayLike, depth_mm: ArrayLike) -> NDArray[np.uint8]:
    """Parcel of every point, as its number in :data:`PARCELS`.

    Parameters
    ----------
    mni : array_like, shape (n, 3)
        LPS-oriented MNI coordinates, mm.
    depth_mm : array_like, shape (n,)
        Distance from the nearest cortical surface or fluid outside the ventricles.

    Returns
    -------
    ndarray of uint8, shape (n,)
    """
    points, depth = np.asarray(mni, dtype=np.float64), np.asarray(depth_mm, dtype=np.float64)
    x, y, z = np.abs(points[:, 0]), -points[:, 1], points[:, 2]
    stem, cerebellum = _infratentorial(x, y, z)
    hypothalamic = (x < 12) & (y > -16) & (y < 4) & (z > -16) & (z <= -4)
    thalamic = (x < 24) & (y > -36) & (y < -2) & (z > -4) & (z < 20) & (x < 20 + 0.2 * (y + 36))
    ganglial = (x > 6) & (x < 36) & (y > -16) & (y < 24) & (z > -12) & (z < 20)
    callosal = (x < 16) & (y > -48) & (y < 36) & (z > np.where(y > 22, -2, 8)) & (z < 32) & (depth > 4)
    inner = (depth > 9) & (x < 40) & (y > -62) & (y < 50) & (z > -6) & (z < 44)
    chosen = _lobes(x, y, z)
    # Later ones take precedence.
    for where, location in ((inner, "white matter"), (callosal, "corpus callosum")):
        chosen[where] = _NUMBER[location]
    among = thalamic | ganglial
    chosen[among] = _central(x[among], y[among], z[among])
    for where, location in ((hypothalamic, "thalamus"), (cerebellum, "cerebellum"), (stem, "brainstem")):
        chosen[where] = _NUMBER[location]
    return chosen


def region_of(mni: NDArray[np.float64], depth_mm: float) -> tuple[str, str, str]:
    """Region, location and side of one point.

    Parameters
    ----------
    mni : ndarray, shape (3,)
        LPS-oriented MNI coordinates, mm.
    depth_mm : float
        Distance from the nearest cortical surface or fluid outside the ventricles.

    Returns
    -------
    tuple of str
        ``lobar | deep | infratentorial``, the lobe or structure, and ``left | right | midline``.
    """
    region, location = PARCELS[int(parcels(np.asarray(mni)[None], [depth_mm])[0])]
    return region, location, side_of(float(mni[0]))


def side_of(left_mm: float) -> str:
    """``left``, ``right`` or ``midline``, of what lies so far to the left of the midline."""
    return "midline" if abs(left_mm) < MIDLINE_MM else ("left" if left_mm > 0 else "right")


def cortical_depth(csf: NDArray[np.float32], inside: Bools, ventricles: Bools, step_mm: float) -> NDArray[np.float32]:
    """Distance (mm) of every voxel from the nearest fluid outside the ventricles, or from the skull.

    Parameters
    ----------
    csf : ndarray of float32
        Fraction of fluid, 0–1.
    inside, ventricles : ndarray of bool
        Intracranial space; fluid inside the brain.
    step_mm : float
        Edge of the cubic voxels.
    """
    outer = (csf > 0.5) & ~ndimage.binary_dilation(ventricles, iterations=2)
    return distance_from(outer | ~inside).astype(np.float32) * np.float32(step_mm)


def ventricular(mni: ArrayLike) -> Bools:
    """Whether fluid at these LPS-oriented MNI points ``(n, 3)`` is that of a ventricle rather than of a sulcus."""
    points = np.asarray(mni)
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    return np.asarray((x < 38) & (y > -40) & (y < 55) & (z > -5) & (z < 32) & (x + np.maximum(z - 12, 0) < 40))


def anatomy_depth(anatomy: Anatomy) -> SampledGrid:
    """How far (mm) from its cortex the points of an anatomy lie."""
    head = coarse(anatomy)
    fluid = np.argwhere(head.csf > 0.5)
    central = ventricular(fluid[:, ::-1] * head.step_mm + head.origin_mm)
    ventricles = np.zeros(head.csf.shape, dtype=bool)
    ventricles[tuple(fluid[central].T)] = True
    ventricles = np.asarray(ndimage.binary_opening(ventricles) & ventricles)
    inside = head.csf + head.grey + head.white > 0.5
    return head.sampled(cortical_depth(head.csf, inside, ventricles, head.step_mm))
