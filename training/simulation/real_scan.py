"""How are microbleeds and mimics put into a real scan? By the same insertion, into a user's own magnitude and phase.

A gradient echo without phase is taken as it is: its magnitude is what is read, and is changed by the loss of signal.

Synthetic microbleeds on real backgrounds are the most useful training data that a site can make of scans without
any.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.brain import extract_brain
from pipeline.errors import InputError
from pipeline.geometry import Geometry, Volume
from pipeline.read.study import find_files, read_studies, select_series
from pipeline.read.swi import high_pass_phase, phase_mask
from pipeline.read.volume import read_acquisition

from .filters import minimum_projection
from .inclusion import Inclusion, InclusionKind, Point
from .insertion import Physics, insert
from .lesion_sampling import LesionParameters, draw_inclusions
from .protocol import Protocol, SwiFilter, Vendor
from .study import Images, SimulatedStudy
from .visibility import judge

Float32 = NDArray[np.float32]
COHORT = "inserted"
"""What stands for the cohort in the truth of a study with insertions."""


@dataclass(frozen=True, eq=False)
class RealScan:
    """A scan to insert into.

    Parameters
    ----------
    name : str
        For messages and truth.
    magnitude : ndarray of float32, shape (k, j, i)
    phase : ndarray of float32 or None
        Radians, paramagnetic positive; none of a T2*-weighted magnitude alone.
    swi : ndarray of float32 or None
        The scanner's own weighted image, if there is one: it is kept where nothing is inserted.
    filtered : bool
        Whether the phase is high-pass filtered already.
    geometry : Geometry
        Of all of them.
    physics : Physics
        Field strength and echo time.
    vendor : Vendor
        Whose files to write.
    """

    name: str
    magnitude: Float32
    phase: Float32 | None
    swi: Float32 | None
    filtered: bool
    geometry: Geometry
    physics: Physics
    vendor: Vendor = Vendor.SIEMENS


def _nifti(path: Path) -> tuple[Float32, Geometry]:
    try:
        image: Any = nib.load(str(path))
        array = np.asarray(image.dataobj, dtype=np.float32)
    except (nib.filebasedimages.ImageFileError, OSError, EOFError) as error:
        raise InputError(
            f"cannot be read as NIfTI ({error})", where=str(path), do="give a .nii or .nii.gz file"
        ) from None
    if array.ndim != 3:
        raise InputError(f"has {array.ndim} dimensions, not 3", where=str(path), do="split the echoes first")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine  # RAS → LPS
    i, j, k = array.shape
    return np.ascontiguousarray(array.transpose(2, 1, 0)), Geometry((k, j, i), affine)


def read_nifti_scan(
    magnitude: Path, phase: Path | None, *, field_strength_t: float, echo_time_ms: float, phase_scale: float = 1.0
) -> RealScan:
    """Read a pair of NIfTI files, or the magnitude alone.

    Parameters
    ----------
    magnitude, phase : Path
        3D images on the same grid; without a phase, the magnitude is a T2*-weighted gradient echo.
    field_strength_t, echo_time_ms : float
        Of the scan; NIfTI does not say.
    phase_scale : float
        Factor to radians; negative where paramagnetic blood is negative.

    Raises
    ------
    InputError
        If they cannot be read, differ in grid, or the phase is not in radians.
    """
    size, grid = _nifti(magnitude)
    name, physics = magnitude.name.split(".")[0], Physics(field_strength_t, echo_time_ms)
    if phase is None:
        return RealScan(name, size, None, None, False, grid, physics)
    angle, other = _nifti(phase)
    if not grid.matches(other):
        raise InputError("magnitude and phase are not on the same grid", where=str(phase), do="give a matching pair")
    angle = angle * np.float32(phase_scale)
    if float(np.abs(angle).max()) > 3.3 or float(np.ptp(angle)) < 0.5:
        raise InputError(
            f"phase from {angle.min():.3g} to {angle.max():.3g} is not in radians",
            where=str(phase),
            do="give --phase-scale",
        )
    return RealScan(name, size, angle, None, False, grid, physics)


def read_dicom_scan(folder: Path) -> RealScan:
    """Read the SWI of a study with its magnitude and phase.

    Raises
    ------
    InputError
        If the study has none of them, or does not say field strength and echo time.
    """
    studies, _ = read_studies(find_files(folder))
    if len(studies) != 1:
        raise InputError(f"{len(studies)} studies, not one", where=str(folder), do="give one study at a time")
    acquisition = read_acquisition(select_series(studies[0]))
    if acquisition.phase is None or acquisition.magnitude is None:
        raise InputError("needs magnitude and phase as well as SWI", where=str(folder), do="send all three series")
    te, b0 = acquisition.echo_time_ms, acquisition.field_strength_t
    if te is None or b0 is None:
        raise InputError(
            "the headers name no echo time or field strength", where=str(folder), do="use NIfTI files and give both"
        )
    swi = acquisition.swi
    chosen = select_series(studies[0]).swi
    vendor = {"ge": Vendor.GE, "philips": Vendor.PHILIPS, "uih": Vendor.UNITED_IMAGING}.get(
        chosen.vendor if chosen else ""
    )
    return RealScan(
        folder.name,
        acquisition.magnitude.array,
        acquisition.phase.array,
        swi.array,
        True,
        swi.geometry,
        Physics(b0, te),
        vendor or Vendor.SIEMENS,
    )


class BrainSites:
    """Sites anywhere in the brain of a real scan; where no atlas is at hand, regions are not named."""

    def __init__(self, brain: NDArray[np.bool_], grid: Geometry) -> None:
        distance = ndimage.distance_transform_edt(brain, sampling=grid.spacing[::-1])
        self._grid, self._brain = grid, brain
        self._deep = np.flatnonzero((distance > 3).ravel())
        self._edge = np.flatnonzero(((distance > 1.5) & (distance <= 5)).ravel())
        if self._deep.size == 0:
            raise InputError("no brain was found in the magnitude", do="check the image")

    def draw(self, placement: str, _region: str | None, rng: np.random.Generator) -> Point | None:
        """A random site: near the surface for *edge* and *cortex*, anywhere else otherwise."""
        pool = self._edge if placement in ("edge", "cortex") and self._edge.size else self._deep
        k, j, i = np.unravel_index(int(pool[rng.integers(pool.size)]), self._grid.shape)
        at = self._grid.to_lps(np.array([i, j, k]) + rng.uniform(-0.5, 0.5, 3))
        return float(at[0]), float(at[1]), float(at[2])

    def near(self, at: Point, spread_mm: float, rng: np.random.Generator) -> Point | None:
        """A random site of the brain around a point, normally distributed; ``None`` if twenty tries leave the brain."""
        for _ in range(20):
            moved = np.array(at) + spread_mm * rng.standard_normal(3)
            voxel = np.round(self._grid.to_ijk(moved)[::-1]).astype(int)
            if np.all(voxel >= 0) and np.all(voxel < self._grid.shape) and self._brain[tuple(voxel)]:
                return float(moved[0]), float(moved[1]), float(moved[2])
        return None

    def region(self, _at: Point) -> tuple[str, str, str]:
        """Not known."""
        return "", "", ""


def _weight(phase: Float32, power: int) -> Float32:
    return np.asarray(phase_mask(phase) ** power, dtype=np.float32)


def _noise_sd(image: Float32, brain: NDArray[np.bool_]) -> float:
    """Noise of an image inside the brain, from what a 3×3 median takes away in plane."""
    rest = image - ndimage.median_filter(image, (1, 3, 3))
    return float(1.4826 * np.median(np.abs(rest[brain])))


def insert_into(
    scan: RealScan,
    inclusions: tuple[Inclusion, ...],
    seed: int,
    *,
    brain: NDArray[np.bool_] | None = None,
    power: int = 4,
    width: int = 64,
) -> SimulatedStudy:
    """Put `inclusions` into a scan.

    The scanner's own SWI is multiplied by the change that the inclusions make to magnitude and phase mask; without
    one, the SWI is made. Without a phase, the magnitude stands for the SWI, and the phase of the result is 0.
    """
    angle = np.zeros_like(scan.magnitude) if scan.phase is None else scan.phase
    before = (scan.magnitude * np.exp(1j * angle)).astype(np.complex64)
    after = insert(before, scan.geometry, inclusions, scan.physics)
    changed = after != before
    raw = np.where(changed, np.angle(after), angle).astype(np.float32)
    magnitude = np.where(changed, np.abs(after), scan.magnitude).astype(np.float32)
    if scan.phase is None:
        raw = angle  # whose mask is 1 everywhere
    if scan.filtered or scan.phase is None:
        old, new = angle, raw
    else:
        old = high_pass_phase(angle, scan.magnitude, width)
        new = high_pass_phase(raw, magnitude, width)
    made_old, made_new = scan.magnitude * _weight(old, power), magnitude * _weight(new, power)
    if scan.swi is None:
        swi_old, swi = made_old, made_new
    else:
        floor = 0.02 * float(np.percentile(made_old, 95))
        swi_old, swi = scan.swi, scan.swi * np.clip((made_new + floor) / (made_old + floor), 0, 3)
    brain = _brain(scan) if brain is None else brain
    level = float(np.median(swi_old[brain]))
    truth = judge(inclusions, swi, swi_old, max(_noise_sd(swi_old, brain), 1e-6 * level), scan.geometry)
    slices = max(1, min(scan.geometry.shape[0], round(16 / scan.geometry.spacing[2])))
    scale = np.float32(1 / max(float(np.median(magnitude[brain])), 1e-9))
    images = Images(
        scan.geometry, magnitude * scale, new, raw, swi * scale, minimum_projection(swi * scale, slices), slices
    )
    protocol = Protocol(
        name=COHORT,
        field_strength_t=scan.physics.field_strength_t,
        echo_time_ms=scan.physics.echo_time_ms,
        repetition_time_ms=scan.physics.echo_time_ms + 10,
        voxel_mm=scan.geometry.spacing,
        vendor=scan.vendor,
        filter=SwiFilter(width=width, power=power),
    )
    return SimulatedStudy(images, truth, protocol, scan.name, seed)


def _brain(scan: RealScan) -> NDArray[np.bool_]:
    return extract_brain(Volume(scan.magnitude, scan.geometry, ()))


def insert_random(scan: RealScan, parameters: LesionParameters, seed: int) -> SimulatedStudy:
    """Put a random patient's microbleeds and mimics into a scan; the same seed puts the same."""
    brain = _brain(scan)
    sites = BrainSites(brain, scan.geometry)
    inclusions = draw_inclusions(sites, parameters, np.random.default_rng([seed, 8]))
    anywhere = tuple(
        i for i in inclusions if i.kind is not InclusionKind.IRON
    )  # it belongs in nuclei, which are not known here
    return insert_into(scan, anywhere, seed, brain=brain)


def truth_of(scan: RealScan, study: SimulatedStudy) -> dict[str, Any]:
    """The document ``truth.json``: as of a simulated study, but what else the real scan shows is not known."""
    entries = study.truth.entries
    return {
        "schema": "cmb-simulated-truth/1",
        "study": f"{scan.name}-{study.seed}",
        "anatomy": scan.name,
        "split": None,
        "mimics_known": False,
        "lesions": [e.to_json() for e in entries if e.inclusion.kind.is_lesion],
        "mimics": [e.to_json() for e in entries if not e.inclusion.kind.is_lesion],
        "seeds": {"head": scan.name, "study": study.seed},
        "cohort": {"name": COHORT},
        "parameters": {
            "protocol": {"echo_time_ms": scan.physics.echo_time_ms, "field_strength_t": scan.physics.field_strength_t}
        },
    }
