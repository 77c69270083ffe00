"""How are the simulator's cohorts read? ``truth.json`` beside ``arrays.npz``, ``dicom`` or ``nifti``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.geometry import Acquisition, Geometry, Volume
from training.datasets.record import Labelled, Mark, Record

TRUTH = "truth.json"
SCHEMA = "cmb-simulated-truth/1"


def is_simulated(folder: Path) -> bool:
    """Whether a folder is, or holds, simulated studies."""
    return (folder / "cohort.json").is_file() or next(folder.rglob(TRUTH), None) is not None


def list_simulated(folder: Path) -> list[Record]:
    """Every complete study below a folder: a cohort, several, or one of its sets."""
    return [_record(path) for path in sorted(folder.rglob(TRUTH)) if not _hidden(path.relative_to(folder))]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _record(path: Path) -> Record:
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA:
            raise InputError(f"has schema {document['schema']}, not {SCHEMA}", where=str(path))
        cohort = document["cohort"]["name"]
        return Record(
            name=f"{cohort}-{document['study']}".replace("/", "-"),
            subject=f"{cohort}-{document['anatomy']}-{document['seeds']['head']}",
            anatomy=document["anatomy"],
            split=document["split"],
            mimics_known=True,
            read=partial(_read, path.parent, document),
            simulated=True,
        )
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"is no truth of a simulated study ({error})", where=str(path)) from error


def _read(folder: Path, document: dict[str, Any]) -> Labelled:
    marks = tuple(_mark(entry) for entry in (*document["lesions"], *document["mimics"]))
    return Labelled(_images(folder, document), marks)


def _mark(entry: dict[str, Any]) -> Mark:
    x, y, z = entry["centre_lps_mm"]
    return Mark((x, y, z), entry["kind"], entry["apparent_diameter_mm"] or None, bool(entry["visible"]))


def _images(folder: Path, document: dict[str, Any]) -> Acquisition:
    if (folder / "arrays.npz").is_file():
        return _arrays(folder / "arrays.npz", document)
    if (folder / "dicom").is_dir():
        from training.datasets.site import read_dicom

        return read_dicom(folder / "dicom")
    if (folder / "nifti").is_dir():
        from training.datasets.nifti import read_nifti

        swi, phase, magnitude = (read_nifti(folder / "nifti" / f"{n}.nii.gz") for n in ("swi", "phase", "magnitude"))
        return Acquisition(swi, phase, magnitude)
    raise InputError("has no images", where=str(folder), do="simulate with --format arrays, dicom or nifti")


def _arrays(path: Path, document: dict[str, Any]) -> Acquisition:
    with np.load(path) as stored:
        shape = stored["swi"].shape
        geometry = Geometry((shape[0], shape[1], shape[2]), stored["affine"])
        phase = stored["phase"].astype(np.float32) * np.float32(np.pi / 32767)
        swi, phases, magnitude = (
            Volume(a.astype(np.float32), geometry, ()) for a in (stored["swi"], phase, stored["magnitude"])
        )
    protocol = document["parameters"]["protocol"]
    return Acquisition(swi, phases, magnitude, protocol.get("echo_time_ms"), protocol.get("field_strength_t"))
