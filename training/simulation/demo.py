"""Which study comes with the node? A small Siemens-like SWI with microbleeds and mimics at known places.

It is small so that it can be bundled: coarse voxels, air outside the head set to zero, few grey levels, JPEG-LS
without loss.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import JPEGLSLossless
from scipy import ndimage

from pipeline.errors import CmbError
from training.simulation.cohort.studies import used_parameters
from training.simulation.writers.identity import SIMULATED, Patient, StudyIdentity
from training.simulation.writers.vendors import Packing, write_dicom

from .anatomy import AnatomyRef, load_anatomy
from .head import Slab
from .head_parameters import HeadParameters
from .inclusion import Inclusion, InclusionKind, Point, Sphere
from .protocol import Protocol
from .scene import Scene, SceneParameters, make_scene
from .sites import Sites
from .study import Images, SimulatedStudy, simulate

SEED = 20250102
SLAB = Slab(fov_mm=(168.0, 210.0, 128.8), fine_mm=0.7)
HEAD = HeadParameters(
    age=74, pose_deg=(4.0, -1.5, 2.0), shift_mm=(0.0, 0.0, -3.0), scale=(0.93, 0.925, 0.92), atrophy_mm=0.4, iron=1.1
)
PROTOCOL = Protocol(name="demo", voxel_mm=(0.7, 0.7, 2.8), snr=26.0)
BLEEDS = (
    # MNI (right, anterior, superior) mm, radius mm, χ ppm: different sizes, lobes, depths
    ((-34.0, -62.0, 26.0), 1.1, 1.2),
    ((30.0, 28.0, 22.0), 1.5, 0.9),
    ((-28.0, 3.0, 3.0), 1.2, 1.1),
    ((14.0, -19.0, 8.0), 1.4, 1.0),
    ((-22.0, -62.0, -34.0), 1.7, 0.9),
    ((44.0, -30.0, -8.0), 0.9, 1.5),
)
MIMICS = (
    (InclusionKind.CALCIFICATION, (1.0, -28.0, 2.0), 1.6, -1.6, 0.3),
    (InclusionKind.CALCIFICATION, (-20.0, -2.0, 0.0), 1.2, -1.4, 0.4),
)
PATIENT = Patient("Demo^Simulated", "CMB-DEMO-1", "19510304", "F", "074Y")


def _place(scene: Scene, mni_ras: tuple[float, float, float]) -> Point:
    x, y, z = mni_ras
    at = scene.head.to_mni.inverse(np.array([[-x, -y, z]]))[0]
    return float(at[0]), float(at[1]), float(at[2])


def _inclusions(scene: Scene) -> tuple[Inclusion, ...]:
    sites = Sites(scene)
    made = []
    for mni, radius, chi in BLEEDS:
        at = _place(scene, mni)
        made.append(Inclusion(InclusionKind.BLEED, (Sphere(at, radius, chi, 0.85),), *sites.region(at), "demo"))
    for kind, mni, radius, chi, density in MIMICS:
        at = _place(scene, mni)
        made.append(Inclusion(kind, (Sphere(at, radius, chi, density),), *sites.region(at), "demo"))
    return tuple(made)


def _without_air(images: Images) -> Images:
    """The images with everything outside the head set to zero."""
    smooth = ndimage.gaussian_filter(images.magnitude, (0.5, 2, 2))
    head = ndimage.binary_fill_holes(smooth > 0.12)
    head = ndimage.binary_opening(head, iterations=2)
    low = np.stack([head[k : k + images.mip_slices].any(axis=0) for k in range(images.mip.shape[0])])
    return replace(
        images,
        magnitude=np.where(head, images.magnitude, 0).astype(np.float32),
        phase=np.where(head, images.phase, 0).astype(np.float32),
        raw_phase=np.where(head, images.raw_phase, 0).astype(np.float32),
        swi=np.where(head, images.swi, 0).astype(np.float32),
        mip=np.where(low, images.mip, 0).astype(np.float32),
    )


def truth_document(study: SimulatedStudy) -> dict[str, Any]:
    """What ``truth.json`` of the demo says."""
    lesions = [e.to_json() for e in study.truth.entries if e.inclusion.kind.is_lesion]
    mimics = [e.to_json() for e in study.truth.entries if not e.inclusion.kind.is_lesion]
    parameters = used_parameters({"head": HEAD, "slab": SLAB, "protocol": PROTOCOL}) | {"anatomy": "icbm152"}
    return {"note": SIMULATED, "lesions": lesions, "mimics": mimics, "seed": SEED, "parameters": parameters}


def make_demo(folder: Path) -> SimulatedStudy:
    """Simulate the demo study and write it to `folder` (``*.dcm`` and ``truth.json``), replacing what was there.

    Raises
    ------
    CmbError
        If a microbleed of the list does not come out visible.
    """
    scene = make_scene(load_anatomy(AnatomyRef("icbm152")), SceneParameters(head=HEAD, slab=SLAB), SEED)
    study = simulate(scene, PROTOCOL, _inclusions(scene), SEED)
    hidden = [e for e in study.truth.of(InclusionKind.BLEED) if not e.seen.visible]
    if hidden:
        where = hidden[0].inclusion.centre_lps_mm
        raise CmbError(
            f"{len(hidden)} microbleeds of the demo are not visible, the first at {where}", do="move or enlarge it"
        )
    study = replace(study, images=_without_air(study.images))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.dcm"):
        old.unlink()
    identity = StudyIdentity(f"demo/{SEED}", PATIENT, "20250102", "101500", accession="DEMO1")
    write_dicom(study, identity, folder, Packing(JPEGLSLossless, white_level=80, phase_step=32))
    (folder / "truth.json").write_text(json.dumps(truth_document(study), indent=1) + "\n")
    return study
