"""`cmbnode detect` writes everything or nothing, and says in one line why it cannot."""

from __future__ import annotations

import json
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from node.cli import main
from node.demo.run import STUDY
from pipeline.findings import SCHEMA, read_findings, wording
from tests.dicom_factory import Patient, classic, siemens_swi, write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slab of the bundled study, and a file that is not DICOM: the demo's own test analyses all of it."""
    folder = tmp_path_factory.mktemp("slab")
    for path in STUDY.glob("*.dcm"):
        if abs(float(dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])) < 14:
            shutil.copy(path, folder)
    shutil.copy(STUDY / "truth.json", folder)
    return folder


@pytest.fixture(scope="module")
def detected(study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The study analysed into a folder that holds an older result."""
    out = tmp_path_factory.mktemp("detect") / "out"
    out.mkdir()
    (out / "findings.json").write_text("old")
    (out / "notes.txt").write_text("mine")
    with redirect_stdout(StringIO()) as said:
        assert main(["detect", str(study), "--out", str(out), "--device", "cpu"]) == 0
    return out, said.getvalue()


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, out: Path, *options: str) -> str:
    """The one line of a detect that ends with status 2 and leaves nothing behind."""
    before = sorted(out.parent.iterdir())
    status = main(["detect", str(folder), "--out", str(out), *options])
    said = capsys.readouterr()
    assert (status, said.out) == (2, ""), said.err
    lines = [line for line in said.err.splitlines() if line.startswith("cmbnode: ")]
    assert lines == said.err.splitlines()[-1:]
    assert sorted(out.parent.iterdir()) == before
    return lines[0]


def slices(count: int = 9, size: int = 32) -> np.ndarray:
    return np.random.default_rng(7).integers(300, 500, (count, size, size)).astype(np.uint16)


def test_detect_writes_findings_and_dicom_results(detected: tuple[Path, str]) -> None:
    out, said = detected
    findings = json.loads((out / "findings.json").read_text())
    assert findings["schema"] == SCHEMA
    assert findings["profile"] == "default"
    assert findings["series"]["phase"] is not None
    for kind, modality in (("seg", "SEG"), ("sr", "SR"), ("capture", "OT")):
        result = dcmread(out / f"{kind}.dcm")
        assert result.Modality == modality
        assert result.StudyInstanceUID == findings["study_instance_uid"]
        assert str(out / f"{kind}.dcm") in said
    assert wording.counts(read_findings(findings)) in said
    assert wording.RESEARCH_ONLY in said


def test_detect_leaves_other_files_of_its_folder_alone(detected: tuple[Path, str]) -> None:
    out, _ = detected
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["capture.dcm", "findings.json", "notes.txt", "seg.dcm", "sr.dcm"]
    )
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]


def test_the_table_counts_slices_as_the_pacs_does(detected: tuple[Path, str]) -> None:
    out, said = detected
    findings = json.loads((out / "findings.json").read_text())
    numbers = {ds.SOPInstanceUID: ds.InstanceNumber for ds in map(dcmread, STUDY.glob("swi-*.dcm"))}
    header = next(line for line in said.splitlines() if line.startswith("no."))
    rows = said.splitlines()[said.splitlines().index(header) + 1 :][: len(findings["lesions"])]
    for lesion, row in zip(findings["lesions"], rows, strict=True):
        column = header.index("slice")
        assert int(row[column : column + 5]) == numbers[lesion["slice_sop_instance_uid"]]


def test_detect_as_json_prints_the_findings_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, study: Path, detected: tuple[Path, str]
) -> None:
    assert main(["detect", str(study), "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    again = json.loads((tmp_path / "out" / "findings.json").read_text())
    first = json.loads((detected[0] / "findings.json").read_text())
    for document in (printed, again, first):
        document.pop("timing_s")
    assert printed == again == first


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_dicom_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "in"
    if there:
        folder.mkdir()
        (folder / "readme.txt").write_text("hello")
    line = refusal(capsys, folder, tmp_path / "out")
    assert str(folder) in line
    assert ("no DICOM images" if there else "no such folder") in line


def test_a_study_without_swi_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(classic(slices(), description="t1_mprage", image_type=("ORIGINAL", "PRIMARY", "M", "NORM")), tmp_path / "in")
    assert "no SWI series" in refusal(capsys, tmp_path / "in", tmp_path / "out")


def test_a_projection_alone_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    projections = [ds for ds in siemens_swi(slices()) if ds.SeriesDescription == "mIP_Images(SW)"]
    write(projections, tmp_path / "in")
    assert "minimum intensity projection" in refusal(capsys, tmp_path / "in", tmp_path / "out")


def test_a_missing_slice_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    paths = write(siemens_swi(slices()), tmp_path / "in")
    swi = [path for path in paths if dcmread(path).SeriesDescription == "SWI_Images"]
    swi[4].unlink()
    assert "missing" in refusal(capsys, tmp_path / "in", tmp_path / "out")


def test_a_broken_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    paths = write(siemens_swi(slices()), tmp_path / "in")
    paths[-1].write_bytes(b"\0" * 128 + b"DICM" + b"garbage")
    assert str(paths[-1]) in refusal(capsys, tmp_path / "in", tmp_path / "out")


def test_a_cut_off_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    paths = write(siemens_swi(slices()), tmp_path / "in")
    whole = paths[-1].read_bytes()
    paths[-1].write_bytes(whole[: len(whole) - 500])
    assert paths[-1].name in refusal(capsys, tmp_path / "in", tmp_path / "out")


def test_several_studies_are_named_and_one_can_be_chosen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first, second = Patient(seed="first"), Patient(seed="second")
    for patient in (first, second):
        write(classic(slices(), patient=patient, description="t1", image_type=("ORIGINAL", "PRIMARY", "M")),
              tmp_path / "in" / patient.seed)  # fmt: skip
    line = refusal(capsys, tmp_path / "in", tmp_path / "out")
    assert first.study_uid in line
    assert second.study_uid in line
    assert "--study" in line
    assert "no SWI" in refusal(capsys, tmp_path / "in", tmp_path / "out", "--study", second.study_uid)
    assert "no study 1.2.3" in refusal(capsys, tmp_path / "in", tmp_path / "out", "--study", "1.2.3")


def test_an_unknown_profile_is_refused_before_any_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no-such-profile" in refusal(capsys, STUDY, tmp_path / "out", "--profile", "no-such-profile")


def test_results_do_not_replace_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    assert "is not a folder" in refusal(capsys, STUDY, tmp_path / "out")


def test_an_unwritable_place_is_refused_before_any_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status = main(["detect", str(STUDY), "--out", str(tmp_path / "file" / "below")])
    assert status == 2
    assert "cannot be written" in capsys.readouterr().err
