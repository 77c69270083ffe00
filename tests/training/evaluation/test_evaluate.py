"""``cmbtrain evaluate`` from DICOM to tables and plots, what it keeps, and what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from tests.classical import quick_file, quick_profile
from training.cli import main
from training.evaluation.cases import read_case, read_cohort
from training.evaluation.run import run_profile
from training.evaluation.tables import SIMULATED
from training.fit.profile_files import write_profile

from .cohort import write_cohort

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def evaluated(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "new"
    strict = quick_profile(name="strict", thresholds={"possible": 1.0, "definite": 1.0})
    other = write_profile(strict, out.parent / "strict.toml")
    arguments = ["evaluate", str(cohort), "--profile", str(quick_file(out.parent)), "--profile", str(other)]
    arguments += ["--out", str(out)]
    assert main([*arguments, "--bootstrap", "50"]) == 0
    return out


def _document(evaluated: Path) -> dict[str, Any]:
    return dict(json.loads((evaluated / "evaluation.json").read_text()))


def test_bleeds_of_plain_heads_are_found_and_counted(evaluated: Path) -> None:
    document = _document(evaluated)
    assert document["measured"]["visible"] == 4
    assert document["measured"]["anatomies"] == 2
    frst = document["profiles"]["frst"]
    assert frst["sensitivity"][0] == 1.0
    assert frst["candidate_sensitivity"][0] == 1.0
    assert frst["fp_per_study"][0] <= 1
    assert sum(map(sum, frst["burden"]["true_by_reported"])) == 2
    assert {"read", "brain", "candidates", "regions", "scores", "lesions", "location", "quality", "total"} == set(
        frst["seconds"]
    )
    assert {group["name"]: group["bleeds"] for group in frst["sensitivity_by"]["region"]} == {"deep": 2, "lobar": 2}


def test_profiles_stand_side_by_side_on_the_same_studies(evaluated: Path) -> None:
    document = _document(evaluated)
    strict = document["profiles"]["strict"]
    assert strict["sensitivity"][0] == 0
    assert [len(study["missed"]) for study in strict["studies"].values()] == [4, 0]
    assert strict["silent_empty"] == []  # a plain head has no phase: the answer says so
    assert strict["froc"] == document["profiles"]["frst"]["froc"]
    page = (evaluated / "evaluation.md").read_text()
    assert "|  | frst | strict |" in page
    assert page.count("\n## ") >= 6


def test_a_figure_on_simulated_images_is_called_that(evaluated: Path) -> None:
    page = (evaluated / "evaluation.md").read_text()
    assert SIMULATED in page
    assert "contrast ≥ 0.25 and cnr ≥ 4 and conspicuity ≥ 1.5" in page
    assert "only 4 visible microbleeds" in page


def test_the_plots_are_pictures(evaluated: Path) -> None:
    for name in ("froc", "sensitivity-by-size", "calibration"):
        with Image.open(evaluated / f"{name}.png") as picture:
            assert picture.size == (768, 576)
            assert len(picture.convert("L").getcolors() or []) > 10


def test_each_profile_gets_pictures_of_what_it_found_and_missed(evaluated: Path) -> None:
    def ink(name: str, row: int) -> float:
        with Image.open(evaluated / f"gallery-{name}.png") as picture:
            page = np.asarray(picture.convert("L"), float)
        height = len(page) // 3
        return float(page[row * height + 40 : (row + 1) * height - 20, 120:].std())

    found, missed = 0, 1
    assert ink("frst", found) > 20
    assert ink("strict", found) == 0, "it reports nothing"
    assert ink("strict", missed) > 20


def test_what_was_analysed_is_not_analysed_again(
    evaluated: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _document(evaluated)["profiles"]["frst"]
    profile = quick_file(evaluated.parent)
    arguments = ["evaluate", str(cohort), "--profile", str(profile), "--out", str(evaluated), "--bootstrap", "50"]
    assert main(arguments) == 0
    assert capsys.readouterr().err.count("analysed before") == 2
    assert _document(evaluated)["profiles"]["frst"] == before


def test_another_threshold_is_another_analysis(cohort: Path, evaluated: Path) -> None:
    profile = quick_profile(max_lesions=1)
    (result,) = run_profile(read_cohort(cohort, 1), profile, evaluated / "findings")
    assert len(result.lesions) == 1


def test_a_study_that_cannot_be_analysed_misses_its_bleeds(tmp_path: Path, cohort: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "truth.json").write_text((cohort / "head-0" / "truth.json").read_text())
    assert main(["evaluate", str(tmp_path), "--profile", "frst", "--out", str(tmp_path / "out")]) == 0
    frst = _document(tmp_path / "out")["profiles"]["frst"]
    assert frst["sensitivity"][0] == 0
    assert list(frst["refused"]) == ["head-0"]
    assert "refused head-0" in (tmp_path / "out" / "evaluation.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{tmp}/nowhere", "--profile", "frst"], "no such folder"),
        (["{tmp}", "--profile", "frst"], "the folder is empty"),
        (["{cohort}", "--profile", "nope"], "there is no profile 'nope'"),
        (["{cohort}", "--profile", "frst", "--profile", "frst"], "two profiles are called frst"),
        (["{cohort}"], "Missing option '--profile'"),
    ],
)
def test_an_input_error_is_one_line_and_status_two(
    arguments: list[str], said: str, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [a.format(tmp=tmp_path, cohort=cohort) for a in arguments]
    assert main(["evaluate", *filled, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_only_the_test_split_is_measured_unless_asked(tmp_path: Path) -> None:
    for name, split in (("a", "train"), ("b", "test"), ("c", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "truth.json").write_text(json.dumps({"lesions": [], "split": split}))
    assert [case.name for case in read_cohort(tmp_path, split="test")] == ["b", "c"]
    assert [case.name for case in read_cohort(tmp_path)] == ["a", "b", "c"]
    with pytest.raises(InputError, match="no study of split validation; its splits are: test"):
        read_cohort(tmp_path / "b", split="validation")


def test_a_truth_file_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_text('{"mimics": []}')
    with pytest.raises(InputError, match=r"truth\.json: is not a truth file: 'lesions' is missing"):
        read_case(path)
    path.write_text("[")
    with pytest.raises(InputError, match="is not a truth file"):
        read_case(path)


def test_a_truth_without_visibility_counts_every_bleed(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_text('{"lesions": [{"centre_lps_mm": [1, 2, 3]}]}')
    case = read_case(path)
    assert len(case.truth.visible) == 1
    assert not case.simulated
    assert case.subject == tmp_path.name
