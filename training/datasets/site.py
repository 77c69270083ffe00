"""How is a site's own DICOM read? Images anywhere below a folder, marked by a CSV, a report (TID 1500) or a SEG.

Of several the first in this order counts: ``lesions.csv`` at the top of the folder (for the studies it names), the
newest report that a person verified, the newest report, all segmentations. What a person verified therefore decides
which of the node's own segments are microbleeds; the others are what a detector has to learn not to find.
"""

from __future__ import annotations

import csv
import warnings
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from pipeline.errors import InputError, NoSwiError
from pipeline.geometry import Acquisition
from pipeline.read.study import Study, find_files, read_studies, select_series
from pipeline.read.volume import read_acquisition

from .annotations import marks_of_report, marks_of_segmentations, rejected_marks
from .check import Problem
from .mark_kinds import BLEED, IN_TABLES
from .record import LabelledStudy, Mark, Record
from .spreadsheet import delimiter_of

TABLE = "lesions.csv"
SIMULATED = "SIMULATED IMAGE"
"""How the Image Comments of simulated images begin."""
COLUMNS = ("study_instance_uid", "x", "y", "z")
UNVERIFIED = "its marks are of a report that nobody verified: a detector would learn its own mistakes"


def read_dicom(folder: Path) -> Acquisition:
    """Read the one study of a folder.

    Raises
    ------
    InputError
        When there is none, or several, or no SWI.
    """
    studies, _ = read_studies(find_files(folder))
    if len(studies) != 1:
        raise InputError(f"holds {len(studies)} studies, not one", where=str(folder))
    return _acquire(studies[0])


def _acquire(study: Study) -> Acquisition:
    chosen = select_series(study, t2star=True)
    if not chosen.analysable:
        raise NoSwiError(chosen.why, where=study.study_instance_uid)
    return read_acquisition(chosen)


def is_site(folder: Path) -> bool:
    """Whether there is any DICOM below a folder."""
    return any(_header(p) is not None for p in find_files(folder)[:50])


def list_site(folder: Path) -> list[Record]:
    """One record for each study with images."""
    files = find_files(folder)
    studies, _ = read_studies(files)
    marked = _marked(files)
    table = _read_table(folder / TABLE).marks if (folder / TABLE).is_file() else {}
    records = []
    for study in studies:
        uid = study.study_instance_uid
        if not select_series(study, t2star=True).analysable:
            continue
        header = _header(study.series[0].instances[0].path)
        person = str(getattr(header, "PatientID", "") or uid)
        simulated = str(getattr(header, "ImageComments", "")).startswith(SIMULATED)
        read = partial(_read, study, table.get(uid), marked[uid], person)
        records.append(Record(uid, person, person, None, False, read, simulated))
    return records


def _header(path: Path) -> Dataset | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, ValueError, EOFError):
            return None


def _marked(files: list[Path]) -> dict[str, list[Path]]:
    """Reports and segmentations by study."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        header = _header(path)
        if header is not None and header.get("Modality") in ("SR", "SEG"):
            found[str(header.StudyInstanceUID)].append(path)
    return found


def _read(study: Study, points: tuple[Mark, ...] | None, files: list[Path], person: str) -> LabelledStudy:
    acquisition = _acquire(study)
    if points is not None:
        return LabelledStudy(acquisition, points)
    objects = [dcmread(path) for path in files]
    segmentations = [o for o in objects if o.Modality == "SEG"]
    reports = [o for o in objects if o.Modality == "SR"]
    if reports:
        report = max(reports, key=lambda r: (r.get("VerificationFlag") == "VERIFIED", *_made(r)))
        bleeds = marks_of_report(report, segmentations, acquisition.swi)
        rejected = rejected_marks(report, segmentations, bleeds, acquisition.swi.geometry)
        verified = report.get("VerificationFlag") == "VERIFIED"
        return LabelledStudy(acquisition, (*bleeds, *rejected), notes=() if verified else (UNVERIFIED,))
    if segmentations:
        return LabelledStudy(acquisition, marks_of_segmentations(segmentations, acquisition.swi.geometry))
    raise InputError(
        f"is not marked (Patient ID {person})",
        where=study.study_instance_uid,
        do=f"add a report, a segmentation, or lines of {TABLE}",
    )


def _made(report: Dataset) -> tuple[str, str, str]:
    return str(report.get("ContentDate", "")), str(report.get("ContentTime", "")), str(report.SOPInstanceUID)


def unused_site_labels(folder: Path) -> list[Problem]:
    """Lines of ``lesions.csv`` that are not used, and studies without images that can be: each with the reason."""
    studies, _ = read_studies(find_files(folder))
    selected = {s.study_instance_uid: select_series(s, t2star=True) for s in studies}
    unused = [
        Problem(uid, f"is left out: {chosen.why}", error=False)
        for uid, chosen in selected.items()
        if not chosen.analysable
    ]
    if not (folder / TABLE).is_file():
        return unused
    table = _read_table(folder / TABLE)
    for uid, lines in table.lines.items():
        if uid not in selected:
            numbers = ", ".join(map(str, lines))
            unused.append(Problem(f"{TABLE} line {numbers}", f"no study {uid} is in the folder"))
    return [*table.unknown, *unused]


@dataclass(frozen=True)
class LesionTable:
    """What ``lesions.csv`` says: marks and line numbers of each study, and the lines whose kind nobody knows."""

    marks: dict[str, tuple[Mark, ...]]
    lines: dict[str, list[int]]
    unknown: tuple[Problem, ...]


def _read_table(path: Path) -> LesionTable:
    """``study_instance_uid,x,y,z[,diameter_mm][,kind]`` (LPS); without x a line names a study that has none.

    Semicolons may stand for commas, and the numbers then may have decimal commas.
    """
    marks: dict[str, list[Mark]] = {}
    lines: dict[str, list[int]] = {}
    unknown = []
    text = path.read_text(encoding="utf-8-sig")
    delimiter = delimiter_of(text)
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"has no column {', '.join(missing)}", where=str(path))
    for number, row in enumerate(reader, start=2):
        uid = (row["study_instance_uid"] or "").strip()
        of_study = marks.setdefault(uid, [])
        lines.setdefault(uid, []).append(number)
        if not (row["x"] or "").strip():
            continue
        kind = (row.get("kind") or "").strip() or BLEED
        if kind not in IN_TABLES:
            known = ", ".join(IN_TABLES)
            unknown.append(Problem(f"{TABLE} line {number}", f"unknown kind {kind!r}; use one of {known}"))
            continue
        try:
            x, y, z = (_number(row[c], delimiter) for c in ("x", "y", "z"))
            size = _number(row["diameter_mm"], delimiter) if (row.get("diameter_mm") or "").strip() else None
        except (TypeError, ValueError):
            raise InputError(f"line {number} holds no numbers x, y, z", where=str(path)) from None
        of_study.append(Mark((x, y, z), kind, size))
    return LesionTable({uid: tuple(found) for uid, found in marks.items()}, lines, tuple(unknown))


def _number(cell: str, delimiter: str) -> float:
    return float(cell if delimiter == "," else cell.replace(",", "."))
