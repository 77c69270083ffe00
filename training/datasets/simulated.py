"""How are the simulator's cohorts read? ``truth.json`` beside ``arrays.npz``, ``dicom`` or ``nifti``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.geometry import Acquisition, Geometry, Volume

from .mark_kinds import BLEED
from .record import LabelledStudy, Mark, Record, vein_marks

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
        if "schema" not in document:
            return _plain_record(path, document)
        if document["schema"] != SCHEMA:
            raise InputError(f"has schema {document['schema']}, not {SCHEMA}", where=str(path))
        cohort = document["cohort"]["name"]
        return Record(
            name=f"{cohort}-{document['study']}".replace("/", "-"),
            subject=f"{cohort}-{document['anatomy']}-{document['seeds']['head']}",
            anatomy=document["anatomy"],
            split=document["split"],
            mimics_known=bool(document.get("mimics_known", True)),
            read=partial(_read, path.parent, document),
            simulated=True,
        )
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise InputError(f"is not the truth file of a simulated study ({error})", where=str(path)) from error


def _plain_record(path: Path, document: dict[str, Any]) -> Record:
    """Take a truth file that states little more than the centres of microbleeds, as docs/evaluate.md describes it."""
    name = str(document.get("study", path.parent.resolve().name))
    subject = str(document.get("subject", name))
    return Record(
        name=name,
        subject=subject,
        anatomy=str(document.get("anatomy", subject)),
        split=document.get("split"),
        mimics_known="mimics" in document,
        read=partial(_read, path.parent, {"mimics": [], **document, "lesions": document["lesions"]}),
        simulated="simulated" in str(document.get("note", "")).lower(),
    )


def _read(folder: Path, document: dict[str, Any]) -> LabelledStudy:
    inclusions = tuple(_mark(entry) for entry in (*document["lesions"], *document["mimics"]))
    return LabelledStudy(_images(folder, document), (*inclusions, *_veins(document, inclusions)))


def _veins(document: dict[str, Any], others: tuple[Mark, ...]) -> tuple[Mark, ...]:
    """Veins that can be taken for microbleeds, which the truth lists under a key of their own."""
    veins = [*document.get("end_on_veins", ()), *document.get("veins", ())]
    centres = [_point(entry["centre_lps_mm"]) for entry in veins]
    return vein_marks(centres, [2 * entry["radius_mm"] for entry in veins], others)


def _point(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = map(float, values)
    return x, y, z


def _mark(entry: dict[str, Any]) -> Mark:
    return Mark(
        _point(entry["centre_lps_mm"]),
        entry.get("kind", BLEED),
        entry.get("apparent_diameter_mm") or None,
        bool(entry.get("visible", True)),
    )


def _images(folder: Path, document: dict[str, Any]) -> Acquisition:
    if (folder / "arrays.npz").is_file():
        return _arrays(folder / "arrays.npz", document)
    if (folder / "dicom").is_dir() or any(folder.glob("*.dcm")):
        from .site import read_dicom

        return read_dicom(folder / "dicom" if (folder / "dicom").is_dir() else folder)
    if (folder / "nifti").is_dir():
        from .nifti import read_nifti

        swi = read_nifti(folder / "nifti" / "swi.nii.gz")
        others = (folder / "nifti" / f"{name}.nii.gz" for name in ("phase", "magnitude"))
        phase, magnitude = (read_nifti(path) if path.is_file() else None for path in others)
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
