"""``cmbtrain``: what a person reads when something is missing, and what its help names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import node.demo
from pipeline.errors import InputError
from training.cli import main
from training.datasets.check import check
from training.datasets.record import LabelledStudy, Record
from training.simulation.cohort import available_cohorts

pytestmark = pytest.mark.slow

WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"numba", "nibabel", "lightning", "sklearn"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from training.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulate", "--demo", "demo"],
        ["fit", "heatmap", "--data", ".", "--out", "run"],
        ["fit-forest", ".", "--out", "x"],
    ],
)
def test_a_command_without_its_packages_says_in_one_line_what_to_install(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "pip install 'cmb-node[training]'" in done.stderr


def test_a_folder_that_cannot_be_made_is_named_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert main(["simulate", "--cohort", "dense", "--out", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"cmbtrain: {tmp_path / 'file/dense'}: Not a directory"


def test_help_names_every_cohort(capsys: pytest.CaptureFixture[str]) -> None:
    main(["simulate", "--help"])
    said = "".join(capsys.readouterr().out.split())
    assert all(name in said for name in available_cohorts())


def test_the_check_names_a_study_once() -> None:
    def read() -> LabelledStudy:
        raise InputError("is not marked", where="1.2.3", do="add a report")

    first, *_ = check([Record("1.2.3", "p", "p", None, False, read)])
    assert str(first) == "error: 1.2.3: is not marked; add a report"


def test_the_bundled_demo_study_can_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(Path(node.demo.__file__).with_name("study"))]) == 0
    assert capsys.readouterr().out == "1 study, 0 errors, 0 notes\n"


def test_a_truth_file_of_your_own_needs_only_lesions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "truth.json").write_text('{"lesions": [{"centre_lps_mm": [29.6, 39.2, 15.4]}]}')
    (tmp_path / "one" / "dicom").symlink_to(Path(node.demo.__file__).with_name("study"))
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 study, 0 errors, 0 notes\n"
    (tmp_path / "one" / "truth.json").write_text("{}")
    assert main(["check", str(tmp_path)]) == 2
    assert "is not the truth file" in capsys.readouterr().err
