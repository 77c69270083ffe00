"""How are the public sets read? VALDO's Task 2, Dou et al. 2016, Momeni et al. 2021; layouts in docs/train.md."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from pipeline.errors import InputError
from pipeline.geometry import Acquisition

from .check import Problem
from .record import LabelledStudy, Mark, Record

_VALDO_MASK = "_space-T2S_CMB.nii.gz"
_VALDO_IMAGE = "_space-T2S_desc-masked_T2S.nii.gz"


def is_valdo(folder: Path) -> bool:
    """Whether a folder holds VALDO's Task 2."""
    return next(folder.rglob(f"*{_VALDO_MASK}"), None) is not None


def list_valdo(folder: Path) -> list[Record]:
    """One record for each ``sub-…_space-T2S_CMB.nii.gz``; the image beside it is T2*-weighted, skull removed."""
    records = []
    for mask in sorted(folder.rglob(f"*{_VALDO_MASK}")):
        name = mask.name.removesuffix(_VALDO_MASK)
        image = mask.with_name(name + _VALDO_IMAGE)
        records.append(Record(name, name, name, None, False, partial(_read_valdo, image, mask)))
    return records


def _read_valdo(image_file: Path, mask_file: Path) -> LabelledStudy:
    from .nifti import read_nifti

    image, mask = read_nifti(image_file), read_nifti(mask_file)
    if not image.geometry.matches(mask.geometry):
        raise InputError("does not lie on the grid of its image", where=str(mask_file))
    from .record import marks_of_labels

    inside = np.nan_to_num(image.array) > 0
    brain = np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(inside, iterations=2)) | inside)
    np.nan_to_num(image.array, copy=False)
    marks = marks_of_labels((mask.array > 0.5).astype(np.uint8), mask.geometry)
    return LabelledStudy(Acquisition(image, warnings=("T2*-weighted, skull removed",)), marks, brain)


def is_dou(folder: Path) -> bool:
    """Whether a folder holds Dou's set: ``ground_truth/NN.mat`` and ``nii/NN.nii``."""
    return (folder / "ground_truth").is_dir() and (folder / "nii").is_dir()


def list_dou(folder: Path) -> list[Record]:
    """One record for each image; a subject without a ``.mat`` is reported when it is read."""
    if not is_dou(folder):
        return []
    images = sorted(p for p in (folder / "nii").iterdir() if p.name.endswith((".nii", ".nii.gz")))
    records = []
    for image in images:
        name = image.name.split(".nii")[0]
        truth = folder / "ground_truth" / f"{name}.mat"
        records.append(
            Record(f"dou-{name}", f"dou-{name}", f"dou-{name}", None, False, partial(_read_dou, image, truth))
        )
    return records


def _read_dou(image_file: Path, truth: Path) -> LabelledStudy:
    """The variable ``cen`` holds voxel coordinates ``(i, j, k)``, counted from 1 as Matlab does."""
    from scipy.io import loadmat

    from .nifti import file_geometry, read_nifti

    image = read_nifti(image_file)
    try:
        centres = np.asarray(loadmat(truth)["cen"], np.float64).reshape(-1, 3) - 1
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"holds no centres `cen` ({error})", where=str(truth)) from error
    points = file_geometry(image_file).to_lps(centres)
    return LabelledStudy(Acquisition(image), tuple(Mark((x, y, z)) for x, y, z in points.tolist()))


_MOMENI_FOLDERS = ("rCMB_DefiniteSubject", "NoCMBSubject")
_MOMENI_TABLE = "rCMBInformationInfo"


def is_momeni(folder: Path) -> bool:
    """Whether a folder is, or holds, the ``PublicDataShare_2020`` of Momeni et al. (2021; scans of AIBL)."""
    return _momeni_root(folder) is not None


def _momeni_root(folder: Path) -> Path | None:
    places = (folder, folder / "PublicDataShare_2020")
    return next((p for p in places if (p / _MOMENI_FOLDERS[0]).is_dir() and _momeni_table(p) is not None), None)


def _momeni_table(root: Path) -> Path | None:
    names = (root / f"{_MOMENI_TABLE}.xlsx", root / f"{_MOMENI_TABLE}.csv")
    return next((path for path in names if path.is_file()), None)


def list_momeni(folder: Path) -> list[Record]:
    """One record for each image: those of the table with its microbleeds, those of ``NoCMBSubject`` without any."""
    root = _momeni_root(folder)
    if root is None:
        return []
    rows = _momeni_rows(root)
    records = []
    for name, empty in zip(_MOMENI_FOLDERS, (False, True), strict=True):
        for path in sorted(p for p in (root / name).glob("*.nii*") if p.is_file()):
            stem = path.name.split(".nii")[0]
            cells = [] if empty else rows.get(stem)
            person = stem.split("_")[0]
            read = partial(_read_momeni, path, cells)
            records.append(Record(f"momeni-{stem}", f"momeni-{person}", f"momeni-{person}", None, False, read))
    return records


def _momeni_rows(root: Path) -> dict[str, list[str]]:
    """Cells after the file's name, by the name without its extension; several rows of a file are joined."""
    from .spreadsheet import read_rows

    table = _momeni_table(root)
    found: dict[str, list[str]] = {}
    for row in read_rows(table) if table else []:
        if row and row[0].strip():
            found.setdefault(Path(row[0].strip()).name.split(".nii")[0], []).extend(row[1:])
    return found


def unused_momeni_rows(folder: Path) -> list[Problem]:
    """Rows of the table whose image is not there; a first row that holds no numbers is the heading."""
    root = _momeni_root(folder)
    if root is None:
        return []
    there = {p.name.split(".nii")[0] for p in (root / _MOMENI_FOLDERS[0]).glob("*.nii*")}
    rows = list(_momeni_rows(root).items())
    headed = bool(rows) and not any(_is_number(cell) for cell in rows[0][1])
    return [
        Problem(name, f"is in {_MOMENI_TABLE}, but there is no such image")
        for name, _ in rows[headed:]
        if name not in there
    ]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_momeni(path: Path, cells: list[str] | None) -> LabelledStudy:
    """Marks are triples of voxel numbers x, y, z, counted from 1."""
    from .nifti import file_geometry, read_nifti

    image, grid = read_nifti(path), file_geometry(path)
    if cells is None:
        raise InputError(f"is not in {_MOMENI_TABLE}", where=str(path), do="add its row, or leave the image out")
    filled = [cell for cell in cells if cell.strip()]
    if len(filled) % 3 or not all(map(_is_number, filled)):
        raise InputError(f"its row in {_MOMENI_TABLE} is not triples of numbers x, y, z", where=str(path))
    voxels = np.array(filled, np.float64).reshape(-1, 3) - 1
    if ((voxels < -0.5) | (voxels > np.array(grid.shape[::-1]) - 0.5)).any():
        raise InputError(f"its row in {_MOMENI_TABLE} names a voxel outside the image", where=str(path))
    return LabelledStudy(Acquisition(image), tuple(Mark((x, y, z)) for x, y, z in grid.to_lps(voxels).tolist()))
