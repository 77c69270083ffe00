"""A simulated head scanned twice: another pose, other noise, and three more bleeds the second time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from filelock import FileLock
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.geometry import Geometry
from pipeline.sitk_images import to_sitk
from training.simulation.anatomy import AnatomyRef, load_anatomy
from training.simulation.head import Slab
from training.simulation.head_parameters import HeadParameters
from training.simulation.inclusion import Inclusion, InclusionKind, Point, Sphere
from training.simulation.insertion import Physics, insert
from training.simulation.kspace import add_noise, coil, image_geometry, matrix, reconstruct, sample
from training.simulation.protocol import Protocol
from training.simulation.scene import Scene, SceneParameters, make_scene
from training.simulation.signal import fine_signal, white_matter_level
from training.simulation.study import Images, SimulatedStudy, make_images
from training.simulation.veins import VeinParameters
from training.simulation.visibility import SimulatedTruth
from training.simulation.writers.identity import Patient, StudyIdentity
from training.simulation.writers.vendors import write_dicom

PATIENT = Patient("Longitudinal^Simulated", "SIM-LONG-1", "19510304", "F", "074Y")
PROTOCOL = Protocol(name="longitudinal", voxel_mm=(1.0, 1.0, 2.0), snr=30.0)
OLD = ((-34.0, -62.0, 26.0), (30.0, 28.0, 22.0))
NEW = ((-28.0, 3.0, 3.0), (14.0, -19.0, 8.0), (-22.0, -62.0, -34.0))
"""MNI (right, anterior, superior) mm: lobar and deep white matter; basal ganglia, thalamus, cerebellum."""
RADIUS_MM, CHI_PPM = 1.7, 1.2
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Scanned:
    """One study of the pair: its folder, its UID, and its bleeds in its own patient coordinates (LPS mm)."""

    folder: Path
    study_uid: str
    date: str
    bleeds: tuple[Point, ...]

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.dcm"))


@dataclass(frozen=True)
class Longitudinal:
    """A pair of studies; the last three bleeds of `present` are new. `pose` maps prior to present coordinates."""

    prior: Scanned
    present: Scanned
    pose: Matrix

    @property
    def new(self) -> tuple[Point, ...]:
        return self.present.bleeds[len(self.prior.bleeds) :]


def rigid(rotation_deg: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> Matrix:
    """Rotation about the isocentre, then a shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", rotation_deg, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


def moved(
    array: NDArray[np.float32], grid: Geometry, pose: Matrix, onto: Geometry | None = None
) -> NDArray[np.float32]:
    """What stands in `array` moved by `pose`, on the same grid or another."""
    back = np.linalg.inv(pose)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(back[:3, :3].ravel().tolist())
    transform.SetTranslation(back[:3, 3].tolist())
    k, j, i = (onto or grid).shape
    like = to_sitk(np.zeros((k, j, i), np.uint8), onto or grid)
    image = to_sitk(array, grid)
    result: NDArray[np.float32] = sitk.GetArrayFromImage(sitk.Resample(image, like, transform, sitk.sitkBSpline3, 0.0))
    return result


def scan(scene: Scene, bleeds: tuple[Inclusion, ...], pose: Matrix, protocol: Protocol, seed: int) -> Images:
    """Scan a head that holds `bleeds` and lies moved by `pose`."""
    grid = scene.head.geometry
    filled = insert(
        fine_signal(scene, protocol), grid, bleeds, Physics(protocol.field_strength_t, protocol.echo_time_ms)
    )
    if not np.array_equal(pose, np.eye(4)):
        filled = moved(filled.real, grid, pose) + np.complex64(1j) * moved(filled.imag, grid, pose)
    rng = np.random.default_rng(seed)
    level = white_matter_level(scene, protocol)
    kspace = add_noise(sample(filled.astype(np.complex64), grid, protocol), level / protocol.snr, protocol, rng)
    profile = coil(matrix(grid, protocol).image, protocol.shading, rng)
    return make_images(
        reconstruct(kspace, grid, protocol) * profile / np.float32(level), image_geometry(grid, protocol), protocol
    )


def place(scene: Scene, mni_ras: tuple[float, float, float]) -> Point:
    """Patient coordinates of a place of the atlas, the head in its first pose."""
    x, y, z = mni_ras
    at = scene.head.to_mni.inverse(np.array([[-x, -y, z]]))[0]
    return float(at[0]), float(at[1]), float(at[2])


def bleed(at: Point) -> Inclusion:
    return Inclusion(InclusionKind.BLEED, (Sphere(at, RADIUS_MM, CHI_PPM, 0.85),))


def through(pose: Matrix, points: tuple[Point, ...]) -> tuple[Point, ...]:
    out = np.array(points) @ pose[:3, :3].T + pose[:3, 3]
    return tuple((float(x), float(y), float(z)) for x, y, z in out)


def make_pair(folder: Path) -> Longitudinal:
    """Simulate the pair and write it as DICOM below `folder`."""
    head = HeadParameters(age=74, pose_deg=(4.0, -1.5, 2.0), scale=(0.93, 0.925, 0.92), atrophy_mm=0.4)
    slab = Slab(fov_mm=(176.0, 212.0, 140.0), fine_mm=1.0)
    parameters = SceneParameters(head, slab, veins=VeinParameters(cortical=800, deep=100))
    scene = make_scene(load_anatomy(AnatomyRef("icbm152")), parameters, seed=11)
    old, new = ([place(scene, mni) for mni in which] for which in (OLD, NEW))
    pose = rigid((6.0, -3.0, 5.0), (4.0, -3.0, 5.0))
    made = []
    for name, date, bleeds, where in (
        ("prior", "20240115", tuple(old), np.eye(4)),
        ("present", "20250220", (*old, *new), pose),
    ):
        images = scan(scene, tuple(bleed(at) for at in bleeds), where, PROTOCOL, seed=len(made))
        study = SimulatedStudy(
            images, SimulatedTruth((), np.zeros(images.swi.shape, np.uint16)), PROTOCOL, "icbm152", 11
        )
        identity = StudyIdentity(f"longitudinal/{name}", PATIENT, date, "101500", accession=f"LONG-{name.upper()}")
        write_dicom(study, identity, folder / name)
        made.append(Scanned(folder / name, identity.uid("study"), date, through(where, bleeds)))
    return Longitudinal(made[0], made[1], pose)


def shared_pair(folder: Path) -> Longitudinal:
    """The pair below `folder`, simulated by whoever asks first: several processes may."""
    stored = folder / "pair.json"
    with FileLock(f"{folder}.lock"):
        if not stored.exists():
            pair = make_pair(folder)
            document = {"scans": [asdict(one) for one in (pair.prior, pair.present)], "pose": pair.pose.tolist()}
            stored.write_text(json.dumps(document, default=str))
    document = json.loads(stored.read_text())
    prior, present = (
        Scanned(Path(one["folder"]), one["study_uid"], one["date"], tuple((x, y, z) for x, y, z in one["bleeds"]))
        for one in document["scans"]
    )
    return Longitudinal(prior, present, np.array(document["pose"]))
