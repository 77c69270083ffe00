"""Data sets: each layout is recognised, its points land where they were marked, and what is wrong is named."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.networks.heatmap import KINDS as KINDS_OF_MAP
from tests import dicom_factory
from tests.training.tiny import labelled
from training.cli import main
from training.datasets.check import check
from training.datasets.layouts import KINDS, open_dataset, unused_labels
from training.datasets.nifti import file_geometry, read_nifti
from training.datasets.record import LabelledStudy
from training.fit.targets import kind_of
from training.simulation.inclusion import InclusionKind

pytestmark = pytest.mark.slow

RAS = np.diag([-0.8, -0.8, 2.0, 1.0])
"""An affine whose voxel (i, j, k) is (0.8 i, 0.8 j, 2 k) in LPS."""


def _nifti(path: Path, array: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), RAS), str(path))
    return path


def _image() -> NDArray[np.float32]:
    return np.random.default_rng(1).uniform(50, 100, (10, 24, 20)).astype(np.float32)


def _centres(labelled_study: LabelledStudy) -> list[tuple[float, ...]]:
    return sorted(tuple(round(v, 2) for v in m.centre_lps_mm) for m in labelled_study.marks)


def _problems(folder: Path, kind: str | None = None) -> list[str]:
    return [str(p) for p in check(open_dataset(folder, kind))]


# --- the simulator's --------------------------------------------------------------------------------------------------


def _simulated(folder: Path, *, split: str = "train", anatomy: str = "head-1", study: str = "train/0000") -> Path:
    images, _ = labelled(1)
    entries = [
        {"kind": m.kind, "centre_lps_mm": list(m.centre_lps_mm), "apparent_diameter_mm": 4.0, "visible": n > 0}
        for n, m in enumerate(images.marks)
    ]
    document = {
        "schema": "cmb-simulated-truth/1",
        "study": study,
        "anatomy": anatomy,
        "split": split,
        "lesions": [e for e in entries if e["kind"] == InclusionKind.BLEED],
        "mimics": [e for e in entries if e["kind"] != InclusionKind.BLEED],
        "seeds": {"head": 5},
        "cohort": {"name": "small"},
        "parameters": {"protocol": {"echo_time_ms": 20.0, "field_strength_t": 3.0}},
    }
    place = folder / study
    place.mkdir(parents=True)
    (place / "truth.json").write_text(json.dumps(document))
    acquisition = images.acquisition
    assert acquisition.phase is not None
    np.savez(
        place / "arrays.npz",
        swi=acquisition.swi.array.astype(np.uint16),
        magnitude=acquisition.swi.array.astype(np.uint16),
        phase=np.round(acquisition.phase.array / np.pi * 32767).astype(np.int16),
        labels=np.zeros(acquisition.swi.array.shape, np.uint16),
        affine=acquisition.swi.geometry.affine,
    )
    return place


def test_a_simulated_cohort_is_read_with_its_splits_mimics_and_visibility(tmp_path: Path) -> None:
    _simulated(tmp_path)
    (record,) = open_dataset(tmp_path)
    assert (record.split, record.anatomy, record.mimics_known) == ("train", "head-1", True)
    study = record.read()
    original, _ = labelled(1)
    assert _centres(study) == _centres(original)
    assert [m.visible for m in study.marks if m.kind == "bleed"] == [False, True, True]
    assert study.acquisition.field_strength_t == 3
    assert study.acquisition.phase is not None
    assert original.acquisition.phase is not None
    assert np.abs(study.acquisition.phase.array - original.acquisition.phase.array).max() < 1e-3


def test_veins_of_the_simulated_truth_become_marks_apart_from_everything_else(tmp_path: Path) -> None:
    path = _simulated(tmp_path) / "truth.json"
    document = json.loads(path.read_text())
    x, y, z = document["lesions"][0]["centre_lps_mm"]
    beside, away = [x + 2.9, y, z], [x, y, z + 400]
    document["end_on_veins"] = [{"kind": "vein", "centre_lps_mm": at, "radius_mm": 0.4} for at in (beside, away)]
    path.write_text(json.dumps(document))
    (record,) = open_dataset(tmp_path)
    veins = [mark for mark in record.read().marks if mark.kind == "vein"]
    assert [(mark.centre_lps_mm, mark.diameter_mm, mark.visible) for mark in veins] == [(tuple(away), 0.8, True)]
    assert KINDS_OF_MAP[kind_of(veins[0])] == "vein"


def test_a_head_on_two_sides_is_an_error(tmp_path: Path) -> None:
    _simulated(tmp_path)
    _simulated(tmp_path, split="test", study="test/0000")
    problems = _problems(tmp_path)
    assert "error: head-1: anatomy is in test and train" in problems
    assert any("subject is in test and train" in p for p in problems)


def test_a_study_without_images_is_an_error(tmp_path: Path) -> None:
    (_simulated(tmp_path) / "arrays.npz").unlink()
    assert "has no images" in _problems(tmp_path)[0]


# --- public sets ------------------------------------------------------------------------------------------------------


def _valdo(folder: Path) -> Path:
    image, mask = _image(), np.zeros((10, 24, 20), np.uint8)
    image[:, :3] = 0
    mask[4:6, 10:12, 8:10] = 1
    mask[7, 15, 5] = 1
    name = folder / "sub-101" / "sub-101"
    _nifti(name.with_name("sub-101_space-T2S_desc-masked_T2S.nii.gz"), image)
    return _nifti(name.with_name("sub-101_space-T2S_CMB.nii.gz"), mask)


def test_valdo_marks_the_components_of_its_masks(tmp_path: Path) -> None:
    _valdo(tmp_path)
    (record,) = open_dataset(tmp_path)
    study = record.read()
    assert _centres(study) == [(4.0, 12.0, 14.0), (6.8, 8.4, 9.0)]
    assert study.brain is not None
    assert not study.brain[:, 0].any()
    assert study.brain[:, 8:].all()
    assert not record.mimics_known


def test_a_valdo_mask_on_another_grid_is_an_error(tmp_path: Path) -> None:
    mask = _valdo(tmp_path)
    _nifti(mask, np.zeros((10, 24, 21), np.uint8))
    assert any("does not lie on the grid" in p for p in _problems(tmp_path))


def test_dou_counts_voxels_from_one(tmp_path: Path) -> None:
    _nifti(tmp_path / "nii" / "01.nii", _image())
    (tmp_path / "ground_truth").mkdir()
    savemat(tmp_path / "ground_truth" / "01.mat", {"cen": np.array([[1, 1, 1], [11, 21, 4]])})
    (record,) = open_dataset(tmp_path)
    assert _centres(record.read()) == [(0.0, 0.0, 0.0), (8.0, 16.0, 6.0)]


def test_a_dou_subject_without_centres_is_named(tmp_path: Path) -> None:
    _nifti(tmp_path / "nii" / "01.nii", _image())
    (tmp_path / "ground_truth").mkdir()
    savemat(tmp_path / "ground_truth" / "01.mat", {"other": np.array([1])})
    assert any("01.mat: holds no centres `cen`" in p for p in _problems(tmp_path))


def _momeni(folder: Path, rows: list[list[object]], *, xlsx: bool) -> Path:
    root = folder / "PublicDataShare_2020"
    _nifti(root / "rCMB_DefiniteSubject" / "7_T0.nii.gz", _image())
    _nifti(root / "NoCMBSubject" / "9_T0.nii.gz", _image())
    if not xlsx:
        (root / "rCMBInformationInfo.csv").write_text("\n".join(";".join(map(str, row)) for row in rows))
        return folder
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    texts = [str(cell) for row in rows for cell in row if isinstance(cell, str)]
    cells = [
        [
            f'<c r="{chr(65 + i)}{n}" t="s"><v>{texts.index(c)}</v></c>'
            if isinstance(c, str)
            else f'<c r="{chr(65 + i)}{n}"><v>{c}</v></c>'
            for i, c in enumerate(row)
        ]
        for n, row in enumerate(rows, start=1)
    ]
    sheet = "".join(f"<row>{''.join(row)}</row>" for row in cells)
    strings = "".join(f"<si><t>{text}</t></si>" for text in texts)
    with zipfile.ZipFile(root / "rCMBInformationInfo.xlsx", "w") as book:
        book.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{space}"><sheetData>{sheet}</sheetData></worksheet>'
        )
        book.writestr("xl/sharedStrings.xml", f'<sst xmlns="{space}">{strings}</sst>')
    return folder


@pytest.mark.parametrize("xlsx", [True, False])
def test_momeni_s_triples_count_voxels_from_one(tmp_path: Path, xlsx: bool) -> None:
    rows: list[list[object]] = [["File", "x", "y", "z"], ["7_T0.nii.gz", 1, 1, 1, 11, 21, 4], ["8_T0.nii.gz", 1, 2, 3]]
    folder = _momeni(tmp_path, rows, xlsx=xlsx)
    records = {record.name: record for record in open_dataset(folder)}
    assert sorted(records) == ["momeni-7_T0", "momeni-9_T0"]
    assert _centres(records["momeni-7_T0"].read()) == [(0.0, 0.0, 0.0), (8.0, 16.0, 6.0)]
    assert records["momeni-9_T0"].read().marks == ()
    assert [str(p) for p in unused_labels(folder)] == [
        "error: 8_T0: is in rCMBInformationInfo, but there is no such image"
    ]


def test_a_row_of_momeni_that_is_not_triples_is_named(tmp_path: Path) -> None:
    folder = _momeni(tmp_path, [["7_T0.nii.gz", 1, 1, 1, 11]], xlsx=True)
    assert any("is not triples of numbers" in p for p in _problems(folder))


# --- orientation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LIP", "PSR", "SLA"])
def test_a_nifti_file_of_any_orientation_becomes_the_same_axial_slices(tmp_path: Path, axes: str) -> None:
    array = _image()
    upright = nib.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), RAS)
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(RAS), nib.orientations.axcodes2ornt(axes))
    nib.save(upright.as_reoriented(turn), str(tmp_path / "turned.nii.gz"))
    read = read_nifti(tmp_path / "turned.nii.gz")
    assert np.allclose(read.array, array)
    assert np.allclose(read.geometry.affine, np.diag([0.8, 0.8, 2, 1]), atol=1e-5)
    grid = file_geometry(tmp_path / "turned.nii.gz")
    voxel = np.argwhere(np.asarray(nib.load(str(tmp_path / "turned.nii.gz")).dataobj) == array[3, 7, 5])[0]
    assert np.allclose(grid.to_lps(voxel), (4.0, 5.6, 6.0), atol=1e-5)


def test_sagittal_slices_and_steep_ones_are_refused(tmp_path: Path) -> None:
    image = np.zeros((8, 24, 24), np.float32)
    nib.save(nib.Nifti1Image(image, np.diag([5.0, 0.9, 0.9, 1])), str(tmp_path / "sagittal.nii"))
    with pytest.raises(InputError, match="was not acquired in axial slices"):
        read_nifti(tmp_path / "sagittal.nii")
    steep = np.eye(4)
    steep[:3, :3] = Rotation.from_euler("x", 43, degrees=True).as_matrix()
    nib.save(nib.Nifti1Image(image, steep), str(tmp_path / "steep.nii"))
    with pytest.raises(InputError, match="turned by 43° from axial"):
        read_nifti(tmp_path / "steep.nii")


# --- points -----------------------------------------------------------------------------------------------------------


def _points(folder: Path, table: str) -> Path:
    _nifti(folder / "Data" / "S1.nii.gz", _image())
    _nifti(folder / "Data" / "S1_phase.nii.gz", np.zeros((10, 24, 20), np.float32))
    (folder / "Label").mkdir()
    (folder / "Label" / "S1.csv").write_text(table)
    return folder


@pytest.mark.parametrize("table", ["slice,x,y\n4,11,21\n", "4,11,21", "slice;x;y\n4;11;21\n", "4\t11\t21\t\n"])
def test_points_are_slice_x_y_from_one(tmp_path: Path, table: str) -> None:
    (record,) = open_dataset(_points(tmp_path, table))
    study = record.read()
    assert _centres(study) == [(8.0, 16.0, 6.0)]
    assert study.acquisition.phase is not None
    assert study.acquisition.magnitude is None


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("4,11,21\n5,30,2\n", "line 2: slice, x, y [5.0, 30.0, 2.0] is outside the image"),
        ("4,11\n", "line 1 has 2 numbers"),
        ("slice,x,y\n4,a,2\n", "line 2 is not slice, x, y"),
    ],
)
def test_a_wrong_line_of_points_is_named(tmp_path: Path, table: str, why: str) -> None:
    assert any(why in p and "S1.csv" in p for p in _problems(_points(tmp_path, table)))


# --- the check --------------------------------------------------------------------------------------------------------


def test_every_kind_is_found_by_its_layout(tmp_path: Path) -> None:
    makers = {"valdo": _valdo, "simulated": _simulated, "points": lambda folder: _points(folder, "4,11,21")}
    for name, make in makers.items():
        make(tmp_path / name)
        assert next(k for k, kind in KINDS.items() if kind.fits(tmp_path / name)) == name


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="no data set of a known layout"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="unknown kind"):
        open_dataset(tmp_path, "other")
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(tmp_path / "missing")


def test_the_check_lists_all_problems_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _points(tmp_path, "4,11,21\n4,11.5,21\n")
    _nifti(tmp_path / "Data" / "S1_phase.nii.gz", np.full((10, 24, 20), 4096, np.float32))
    assert main(["check", str(tmp_path)]) == 2
    out = capsys.readouterr()
    assert "error: S1: the phase is not in radians" in out.out
    assert "note: S1: has no magnitude" in out.out
    assert "note: S1: two microbleeds within 1 mm" in out.out
    assert "1 study, 1 error, 2 notes" in out.out
    assert "correct them first" in out.err


def test_a_clean_data_set_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _simulated(tmp_path)
    assert main(["check", str(tmp_path)]) == 0
    assert "1 study, 0 errors" in capsys.readouterr().out


def test_dicom_of_points_is_read_as_in_the_clinic(tmp_path: Path) -> None:
    stored = np.full((6, 24, 20), 100, np.uint16)
    stored += np.arange(20, dtype=np.uint16)
    dicom_factory.write(dicom_factory.siemens_swi(stored), tmp_path / "Data" / "S1")
    (tmp_path / "Label").mkdir()
    (tmp_path / "Label" / "S1.csv").write_text("3,5,7\n")
    (record,) = open_dataset(tmp_path, "points")
    study = record.read()
    geometry = study.acquisition.swi.geometry
    assert _centres(study) == [tuple(np.round(geometry.to_lps((4, 6, 2)), 2).tolist())]
