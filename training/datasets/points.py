"""How is a spreadsheet of points read? As in Al-masni's data: slice, x, y of each microbleed, one CSV a subject.

``Data/NAME`` is a folder of DICOM (SWI, phase, magnitude) or ``Data/NAME.nii[.gz]``, with ``NAME_phase`` and
``NAME_magnitude`` beside it; ``Label/NAME.csv`` has a microbleed a line.
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

from pipeline.errors import InputError
from pipeline.geometry import Acquisition, Geometry

from .record import LabelledStudy, Mark, Record
from .spreadsheet import delimiter_of

COMPANIONS = ("_phase", "_magnitude")


def is_points(folder: Path) -> bool:
    """Whether a folder has ``Data`` and ``Label``."""
    return (folder / "Data").is_dir() and (folder / "Label").is_dir()


def list_points(folder: Path) -> list[Record]:
    """One record for each image of ``Data``; without a CSV a subject has no microbleeds, and the check says so."""
    if not is_points(folder):
        return []
    names = {p.name.split(".nii")[0] for p in (folder / "Data").iterdir() if not p.name.startswith(".")}
    subjects = sorted(n for n in names if not n.endswith(COMPANIONS))
    return [Record(n, n, n, None, False, partial(_read, folder, n)) for n in subjects]


def _read(folder: Path, name: str) -> LabelledStudy:
    acquisition = _images(folder / "Data", name)
    table = folder / "Label" / f"{name}.csv"
    if not table.is_file():
        raise InputError("no such table", where=str(table), do="a subject without microbleeds has an empty one")
    geometry = _numbered(folder / "Data", name, acquisition)
    marks = []
    for number, row in _rows(table):
        # Slices and pixels count from 1; x is the column, y the row.
        k, i, j = (value - 1 for value in row[:3])
        if not (0 <= k < geometry.shape[0] and 0 <= j < geometry.shape[1] and 0 <= i < geometry.shape[2]):
            raise InputError(f"line {number}: slice, x, y {row[:3]} is outside the image", where=str(table))
        x, y, z = geometry.to_lps((i, j, k)).tolist()
        marks.append(Mark((x, y, z), diameter_mm=row[3] if len(row) > 3 else None))
    return LabelledStudy(acquisition, tuple(marks))


def _numbered(folder: Path, name: str, acquisition: Acquisition) -> Geometry:
    """The grid whose slices and pixels the table counts: the file's own, whatever way it is brought to axial slices."""
    from .nifti import file_geometry, find_image

    path = None if (folder / name).is_dir() else find_image(folder, name)
    return acquisition.swi.geometry if path is None else file_geometry(path)


def _rows(table: Path) -> list[tuple[int, list[float]]]:
    """Numbers of each line; a first line of words is a heading."""
    rows = []
    text = table.read_text(encoding="utf-8-sig")
    for number, cells in enumerate(csv.reader(text.splitlines(), delimiter=delimiter_of(text)), start=1):
        filled = [cell.strip() for cell in cells if cell.strip()]
        if not filled:
            continue
        try:
            values = [float(cell) for cell in filled]
        except ValueError:
            if number == 1:
                continue
            raise InputError(f"line {number} is not slice, x, y", where=str(table)) from None
        if len(values) < 3:
            raise InputError(f"line {number} has {len(values)} numbers, not slice, x, y", where=str(table))
        rows.append((number, values))
    return rows


def _images(folder: Path, name: str) -> Acquisition:
    if (folder / name).is_dir():
        from .site import read_dicom

        return read_dicom(folder / name)
    from .nifti import find_image, read_nifti

    image = find_image(folder, name)
    if image is None:
        raise InputError("there is no such image", where=str(folder / name))
    phase, magnitude = (find_image(folder, name + companion) for companion in COMPANIONS)
    return Acquisition(
        read_nifti(image), read_nifti(phase) if phase else None, read_nifti(magnitude) if magnitude else None
    )
