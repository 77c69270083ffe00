"""How is one head's share of a cohort made and stored, so that what is there is whole?

A study is written to a hidden folder beside its place and renamed when everything is in it: a folder with the study's
name is complete, whatever happened to the machine.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydicom.uid import JPEGLSLossless

from pipeline.errors import InputError
from training.simulation.anatomy import load_anatomy
from training.simulation.inclusion import InclusionKind
from training.simulation.lesion_sampling import draw_inclusions
from training.simulation.regions import PARCELLATION
from training.simulation.scene import Scene, make_scene
from training.simulation.sites import Sites
from training.simulation.study import SimulatedStudy, simulate
from training.simulation.veins.mimics import end_on_veins, vein_places
from training.simulation.visibility import VISIBLE_CNR, VISIBLE_CONSPICUITY, VISIBLE_CONTRAST
from training.simulation.writers.arrays import write_arrays
from training.simulation.writers.identity import SIMULATED, Patient, StudyIdentity
from training.simulation.writers.nifti import write_nifti
from training.simulation.writers.truth_objects import write_truth_objects
from training.simulation.writers.vendors import Packing, write_dicom

from .scan_settings import HeadTask, draw_protocol, draw_scene

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Format = Literal["dicom", "nifti", "arrays"]
FORMATS: tuple[Format, ...] = ("dicom", "nifti", "arrays")
TRUTH_FILE = "truth.json"


@dataclass(frozen=True)
class Output:
    """Where and how studies are written.

    Parameters
    ----------
    folder : Path
        Of the cohort.
    formats : tuple of str
        ``dicom``, ``nifti``, ``arrays``.
    compress : bool
        JPEG-LS without loss.
    truth_objects : bool
        Also write the truth as SEG and SR (with ``dicom``).
    """

    folder: Path
    formats: tuple[Format, ...] = ("dicom",)
    compress: bool = True
    truth_objects: bool = True


@dataclass(frozen=True)
class MadeStudy:
    """One study that is there."""

    name: str
    bleeds: int
    visible: int
    new: bool


def study_folder(output: Output, task: HeadTask, study: int) -> Path:
    """Where a study lies once it is complete."""
    return output.folder / task.set_name / task.study_name(study)


def identity_of(task: HeadTask, study: int) -> StudyIdentity:
    """A fictitious patient per head; one study date after the other."""
    name = task.study_name(study)
    head = f"{task.set_name}-{task.index:04d}"
    day = f"2025{1 + study // 28 % 12:02d}{1 + study % 28:02d}"
    age = round(draw_scene(task).head.age)
    patient = Patient(f"Simulated^{head}", f"SIM-{task.cohort.name}-{head}", f"{2025 - age}0101", "O", f"{age:03d}Y")
    key = f"simulated/{task.cohort.name}/{task.cohort.digest[:16]}/{name}/{task.study_seed(study)}"
    return StudyIdentity(key, patient, day, "101500", accession=f"SIM{study:05d}")


def truth_document(task: HeadTask, study: int, made: SimulatedStudy, scene: Scene) -> dict[str, Any]:
    """The truth file: every inclusion, what is seen of it, and all that is needed to make the study again."""
    entries = made.truth.entries
    return {
        "schema": "cmb-simulated-truth/1",
        "note": SIMULATED,
        "study": task.study_name(study),
        "study_instance_uid": identity_of(task, study).uid("study"),
        "anatomy": task.anatomy.name,
        "split": task.set.split,
        "parcellation": PARCELLATION,
        "lesions": [e.to_json() for e in entries if e.inclusion.kind.is_lesion],
        "mimics": [e.to_json() for e in entries if not e.inclusion.kind.is_lesion],
        "end_on_veins": [
            {"kind": InclusionKind.VEIN.value, "centre_lps_mm": c.round(3).tolist(), "radius_mm": round(r, 4)}
            for c, r in end_on_veins(scene)
        ],
        **_places(task, scene),
        "visible_means": {"contrast": VISIBLE_CONTRAST, "cnr": VISIBLE_CNR, "conspicuity": VISIBLE_CONSPICUITY},
        "vein_volume_ml": round(scene.tree.volume_ml, 2),
        "seeds": {"cohort": task.cohort.seed, "head": task.seed, "study": task.study_seed(study)},
        "cohort": {"name": task.cohort.name, "sha256": task.cohort.digest, "set": task.set_name, "index": study},
        "parameters": used_parameters({"scene": scene.parameters, "protocol": made.protocol}),
    }


def used_parameters(parameters: Mapping[str, DataclassInstance]) -> dict[str, Any]:
    """Parameters as plain data, without those that are not used (None)."""

    def used(entry: dict[str, Any]) -> dict[str, Any]:
        return {k: used(v) if isinstance(v, dict) else v for k, v in entry.items() if v is not None}

    return {name: used(asdict(one)) for name, one in parameters.items()}


def _places(task: HeadTask, scene: Scene) -> dict[str, Any]:
    """Veins that stand alone, ends and bends, in cohorts that have short veins."""
    if task.set.short_veins is None:
        return {}
    return {
        "veins": [
            {"kind": f"{p.form} vein", "centre_lps_mm": p.centre.round(3).tolist(), "radius_mm": round(p.radius, 4)}
            for p in vein_places(scene)
        ]
    }


def _write(task: HeadTask, study: int, made: SimulatedStudy, scene: Scene, output: Output) -> None:
    final = study_folder(output, task, study)
    partial = final.parent / f".{final.name}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    identity = identity_of(task, study)
    try:
        if "dicom" in output.formats:
            packing = Packing(compress=JPEGLSLossless if output.compress else None)
            files = write_dicom(made, identity, partial / "dicom", packing)
            if output.truth_objects:
                write_truth_objects(made, identity, files, partial / "truth")
        if "nifti" in output.formats:
            write_nifti(made, partial / "nifti")
        if "arrays" in output.formats:
            write_arrays(made, partial / "arrays.npz")
        document = truth_document(task, study, made, scene)
        (partial / TRUTH_FILE).write_text(json.dumps(document, indent=1) + "\n")
        partial.replace(final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError("the disk is full", where=str(output.folder), do="make room and run again") from None
        raise


def already_made(output: Output, task: HeadTask, study: int) -> MadeStudy | None:
    """What is known of a study that is there, or ``None``.

    Raises
    ------
    InputError
        If it was made from another cohort file.
    """
    path = study_folder(output, task, study) / TRUTH_FILE
    if not path.is_file():
        return None
    document = json.loads(path.read_text())
    if document["cohort"]["sha256"] != task.cohort.digest:
        raise InputError(
            "holds a study of another version of this cohort", where=str(path.parent), do="use another output folder"
        )
    visible = sum(lesion["visible"] for lesion in document["lesions"])
    return MadeStudy(path.parent.name, len(document["lesions"]), visible, False)


def make_head_studies(task: HeadTask, output: Output, workers: int = 1) -> Iterator[MadeStudy]:
    """Make every study of a head that is not there yet."""
    missing = []
    for study in task.studies:
        there = already_made(output, task, study)
        if there is None:
            missing.append(study)
        else:
            yield there
    if not missing:
        return
    plans = {}
    for study in missing:  # before the long work, so that an impossible protocol ends it at once
        rng = np.random.default_rng([task.study_seed(study), 6])
        plans[study] = draw_protocol(task.set.protocol, study, rng), rng
    scene = make_scene(load_anatomy(task.anatomy), draw_scene(task), task.seed, workers=workers)
    sites = Sites(scene)
    for study, (protocol, rng) in plans.items():
        inclusions = draw_inclusions(sites, task.set.lesions, rng, task.set.clusters)
        made = simulate(scene, protocol, inclusions, task.study_seed(study), workers=workers)
        _write(task, study, made, scene, output)
        bleeds = made.truth.of(InclusionKind.BLEED)
        yield MadeStudy(task.study_name(study), len(bleeds), sum(e.seen.visible for e in bleeds), True)
