"""Any data set that can be trained on can be measured on: a site's own DICOM, the public sets, tables of points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from pipeline.geometry import Acquisition
from pipeline.read.study import find_files, read_studies, select_series
from pipeline.read.volume import read_acquisition
from tests.classical import quick_file
from tests.pipeline import phantom
from training.cli import main
from training.datasets.layouts import KINDS
from training.evaluation.cases import read_cohort
from training.evaluation.crossval import record_of
from training.simulation.writers.identity import SIMULATED

from .cohort import BLEEDS, write_head

pytestmark = pytest.mark.slow

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
CENTRES = [tuple(c + m for c, m in zip(bleed[:3], phantom.MIDDLE, strict=True)) for bleed in BLEEDS]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Acquisition]:
    """The DICOM of one head, and what is read of it."""
    folder = tmp_path_factory.mktemp("head")
    write_head(folder, anatomy="a", seed=1)
    studies, _ = read_studies(find_files(folder / "dicom"))
    return folder / "dicom", read_acquisition(select_series(studies[0]))


def _site(folder: Path, dicom: Path) -> Path:
    uid = read_studies(find_files(dicom))[0][0].study_instance_uid
    folder.mkdir()
    for path in find_files(dicom):
        (folder / path.name).write_bytes(path.read_bytes())
    rows = [f"{uid},{x},{y},{z}" for x, y, z in CENTRES]
    (folder / "lesions.csv").write_text("\n".join(["study_instance_uid,x,y,z", *rows]) + "\n")
    return folder


def _nifti(path: Path, array: NDArray[Any], images: Acquisition) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), TO_RAS @ images.swi.geometry.affine), path)


def _points(folder: Path, images: Acquisition) -> Path:
    _nifti(folder / "Data" / "S1.nii.gz", images.swi.array, images)
    (folder / "Label").mkdir()
    rows = [(k + 1, i + 1, j + 1) for i, j, k in images.swi.geometry.to_ijk(CENTRES).tolist()]
    (folder / "Label" / "S1.csv").write_text("\n".join(",".join(f"{v:.2f}" for v in row) for row in rows))
    return folder


def _valdo(folder: Path, images: Acquisition) -> Path:
    """The head without its skull, and a mask of the bleeds."""
    _, brain = phantom.head((), seed=1, shape=images.swi.array.shape, spacing=images.swi.geometry.spacing)
    labels = np.zeros(images.swi.array.shape, np.uint8)
    for i, j, k in np.round(images.swi.geometry.to_ijk(CENTRES)).astype(int).tolist():
        labels[k, j, i] = 1
    name = folder / "sub-101"
    _nifti(name / "sub-101_space-T2S_desc-masked_T2S.nii.gz", np.where(brain, images.swi.array, 0), images)
    _nifti(name / "sub-101_space-T2S_CMB.nii.gz", labels, images)
    return folder


def _measured(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "evaluation.json").read_text()))


@pytest.mark.parametrize("kind", ["site", "points", "valdo"])
def test_the_marked_bleeds_are_what_is_to_be_found(
    kind: str, head: tuple[Path, Acquisition], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dicom, images = head
    data = tmp_path / kind
    data = _site(data, dicom) if kind == "site" else _points(data, images) if kind == "points" else _valdo(data, images)
    arguments = ["evaluate", str(data), "--profile", str(quick_file(tmp_path)), "--out", str(tmp_path / "out")]
    arguments += ["--bootstrap", "0"]
    assert main(arguments) == 0
    document = _measured(tmp_path / "out")
    assert document["measured"]["visible"] == len(BLEEDS)
    assert not document["measured"]["simulated"]
    assert document["profiles"]["frst"]["sensitivity"][0] == 1.0
    assert document["profiles"]["frst"]["fp_per_study"][0] <= 1
    assert (tmp_path / "out" / "gallery-frst.png").is_file()
    assert "analysed before" not in capsys.readouterr().err
    assert main(arguments) == 0
    assert "analysed before" in capsys.readouterr().err
    assert _measured(tmp_path / "out") == document


def test_figures_on_simulated_images_are_called_so_wherever_they_are_kept(
    head: tuple[Path, Acquisition], tmp_path: Path
) -> None:
    data = _site(tmp_path / "site", head[0])
    (case,) = read_cohort(data, kind="site")
    assert not case.simulated
    for path in data.glob("*"):
        if path.suffix != ".csv":
            image = dcmread(path)
            image.ImageComments = SIMULATED  # as the simulator writes it
            image.save_as(path)
    (case,) = read_cohort(data, kind="site")
    assert case.simulated


def test_a_labelled_study_is_trained_on_as_it_was_read(head: tuple[Path, Acquisition], tmp_path: Path) -> None:
    (case,) = read_cohort(_points(tmp_path / "points", head[1]))
    record = record_of(case)
    assert record.name == "S1"
    assert len(record.read().marks) == len(BLEEDS)
    assert [len(case.truth.bleeds), len(case.truth.mimics)] == [len(BLEEDS), 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_does_not_fit_is_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    arguments = [str(tmp_path), "--kind", kind]
    assert main(["evaluate", *arguments, "--profile", "frst", "--out", str(tmp_path / "out")]) == 2
    assert f"holds no study of a {kind} data set" in capsys.readouterr().err
    assert main(["check", *arguments]) == 2
