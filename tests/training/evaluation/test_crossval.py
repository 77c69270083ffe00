"""Folds by anatomy, trained and measured; the tables of the two papers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.profile import Profile, load_profile
from tests.classical import quick_profile
from training.cli import main
from training.evaluation.cases import Case, CaseTruth, ReportedMark, TruthObject, read_cohort
from training.evaluation.crossval import Training, anatomy_folds, named_for, record_of, train
from training.evaluation.outcomes import DUPLICATE
from training.evaluation.papers import (
    PatchCounts,
    afzal_comparison,
    afzal_table,
    almasni_table,
    paper_tables,
    patches_of,
)
from training.evaluation.tables import SIMULATED
from training.fit.config import FitConfig
from training.fit.profile_files import write_profile

from .cohort import SHAPE, write_cohort
from .strategies import case, pairs, result, results

pytestmark = pytest.mark.slow

Pairs = list[tuple[CaseTruth, tuple[ReportedMark, ...]]]


def _cases(anatomies: list[int]) -> list[Case]:
    return [case(CaseTruth(()), f"study-{n}", f"head-{anatomy}") for n, anatomy in enumerate(anatomies)]


@given(st.lists(st.integers(0, 8), min_size=2, max_size=20), st.integers(2, 5))
def test_every_study_is_tested_once_by_what_has_not_seen_its_anatomy(anatomies: list[int], folds: int) -> None:
    cases = _cases(anatomies)
    if len(set(anatomies)) < folds:
        with pytest.raises(InputError, match="anatomies cannot make"):
            anatomy_folds(cases, folds)
        return
    made = anatomy_folds(cases, folds)
    assert sorted(c.name for fold in made for c in fold.test) == sorted(c.name for c in cases)
    for fold in made:
        assert not {c.anatomy for c in fold.train} & {c.anatomy for c in fold.test}
        assert len(fold.train) + len(fold.test) == len(cases)
        assert fold.test
    assert made == anatomy_folds(cases, folds)


def _study() -> CaseTruth:
    return CaseTruth((TruthObject((0, 0, 0)), TruthObject((50, 0, 0)), TruthObject((99, 0, 0), visible=False)))


def test_the_first_paper_s_table_counts_both_stages_by_fold() -> None:
    marks = (
        ReportedMark((0, 0, 0), 0.9),
        ReportedMark((50, 0, 0), 0.3),
        ReportedMark((20, 0, 0), 0.8),
        ReportedMark((30, 0, 0), 0.1),
    )
    fold = [result(_study(), marks, name="a"), result(_study(), (), name="b")]
    lines = almasni_table([fold, fold[:1]]).splitlines()
    assert lines[2] == "| 1 | 2 | 4 | 2 | 50.00 | 2 | 1.00 | 1 | 25.00 | 1 | 0.50 |"
    assert lines[3] == "| 2 | 1 | 2 | 2 | 100.00 | 2 | 2.00 | 1 | 50.00 | 1 | 1.00 |"
    assert lines[4].startswith("| All | 3 | 6 | 4 | 66.67 | 4 | 1.33 |")
    assert "| 72 | 188 | – | 93.62 | – | 52.18 |" in lines[5]
    assert "| 107 | 572 | – | 78.85 | – | 155.50 |" in lines[6]
    assert {line.count("|") for line in lines} == {12}


def test_the_second_paper_s_tables_show_published_beside_ours() -> None:
    patches = {"afzal-2021-resnet50": PatchCounts(90, 10, 180, 20), "default": PatchCounts(0, 0, 1, 0)}
    one, two = afzal_table(patches), afzal_comparison(patches)
    assert "| Model 02 (Augmentation) | 97.89 | 96.40 | 95.23 | 95.81 | 300 | 90.00 | 90.00 | 90.00 | 90.00 |" in one
    assert "| Model 01: AlexNet | 87.00 | 85.56 | 84.39 | 84.97 | – | – | – | – | – |" in one
    assert "| default | – | – | – | – | 1 | 100.00 | 100.00 | – | – |" in one
    assert "| ours | afzal-2021-resnet50 | 90.00 | 90.00 |" in two
    assert "| Tao et al. | GA + NN | 72.90 | 72.90 |" in two


def test_an_empty_answer_is_balanced_to_one_half() -> None:
    empty = PatchCounts(0, 10, 690, 0)
    assert empty.accuracy == pytest.approx(0.986, abs=1e-3)
    assert empty.balanced_accuracy == 0.5


@given(pairs)
def test_patches_are_the_scored_candidates_but_for_those_left_out(many: Pairs) -> None:
    judged = results(many)
    found = patches_of(judged)
    counted = [j for r in judged for j in r.candidates if j.verdict != "not counted" and j.lies_on != DUPLICATE]
    assert found.right_bleeds + found.missed_bleeds + found.right_others + found.false_others == len(counted)
    for share in (found.accuracy, found.specificity, found.sensitivity):
        assert share is None or 0 <= share <= 1


def test_a_case_is_a_record_with_all_of_its_marks(tmp_path: Path) -> None:
    first, *_ = read_cohort(write_cohort(tmp_path))
    record = record_of(first)
    labelled = record.read()
    assert record.split is None
    assert record.anatomy == first.anatomy
    assert [m.centre_lps_mm for m in labelled.marks] == [b.centre_lps_mm for b in first.truth.bleeds]
    assert labelled.acquisition.swi.array.shape == SHAPE


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The forest's profile with few candidates and trees."""
    document = quick_profile("frst-forest", name="quick").model_dump()
    document["candidates"]["parameters"]["max_candidates"] = 40
    document["classifier"]["parameters"]["trees"] = 15
    return write_profile(Profile(**document), tmp_path_factory.mktemp("profile") / "quick.toml")


def test_a_cross_validation_trains_measures_and_goes_on(
    tmp_path: Path, quick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = write_cohort(tmp_path / "cohort", heads=4, last_free=False)
    arguments = ["crossval", str(cohort), "--profile", str(quick), "--folds", "2", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--bootstrap", "20"]) == 0
    first = capsys.readouterr()
    assert first.err.count("studies to train on") == 2
    document = json.loads((tmp_path / "out" / "crossval.json").read_text())
    assert sorted(name for fold in document["folds"] for name in fold) == [f"head-{n}" for n in range(4)]
    assert document["profiles"]["quick"]["candidate_sensitivity"][0] == 1
    page = (tmp_path / "out" / "crossval.md").read_text()
    assert "### quick" in page
    assert page.count(SIMULATED[1:]) >= 2
    assert "Al-masni 2020, high resolution (published)" in first.out

    assert main([*arguments, "--bootstrap", "20"]) == 0
    again = capsys.readouterr().err
    assert "growing" not in again
    assert again.count("analysed before") == 4
    assert json.loads((tmp_path / "out" / "crossval.json").read_text()) == document


NETWORK = """
seed = 1
device = "cpu"
validation_share = 0.5
[classifier]
epochs = 1
steps = 2
batch = 4
learning_rate = 1e-3
"""


def test_a_network_is_trained_in_a_fold_as_it_is_by_fit(tmp_path: Path) -> None:
    document = quick_profile().model_dump() | {"name": "small", "rating": None, "shape": None}
    document["candidates"]["parameters"]["max_candidates"] = 30
    document["classifier"] = {"method": "context", "parameters": {"width": 4, "shape": (6, 12, 12)}}
    config = tmp_path / "small.toml"
    config.write_text(NETWORK)
    records = [record_of(c) for c in read_cohort(write_cohort(tmp_path / "cohort", last_free=False))]
    folder, how = tmp_path / "fold", Training(tmp_path / "cache", str(config))
    profile = load_profile(str(train(records, Profile(**document), folder, how)))
    profile.require_trained()
    assert list(profile.weights) == ["small-context"]
    assert (folder / "small.md").is_file()


@pytest.mark.parametrize(
    ("arm", "changed", "as_it_was"), [("plain", "none", False), ("frozen", "six-fold", True), ("", "six-fold", False)]
)
def test_an_arm_changes_one_thing_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str, changed: str, as_it_was: bool
) -> None:
    seen: list[FitConfig] = []
    monkeypatch.setattr("training.fit.run.fit", lambda job: seen.append(job.config))
    monkeypatch.setattr("training.fit.export.export", lambda *_: None)
    records = [record_of(c) for c in read_cohort(write_cohort(tmp_path / "cohort", last_free=False))]
    profile = named_for(load_profile("afzal-2021-alexnet"), arm)
    train(records, profile, tmp_path / "fold", Training(tmp_path / "cache", "afzal-2021-alexnet-cpu", arm=arm))
    assert profile.name == "afzal-2021-alexnet" + (f"-{arm}" if arm else "")
    stage = seen[0].classifier
    assert stage is not None
    assert (stage.augmentation.kind, stage.freeze) == (changed, as_it_was)
    assert stage.batch == 16, "the paper's"


@pytest.mark.parametrize(
    ("profile", "arm", "why"),
    [("frst", "plain", "cannot be trained as plain"), ("afzal-2021-alexnet", "half", "no such training")],
)
def test_an_arm_that_cannot_be_is_refused_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], profile: str, arm: str, why: str
) -> None:
    cohort = write_cohort(tmp_path / "cohort")
    asked = ["crossval", str(cohort), "--profile", profile, "--arm", arm, "--folds", "2", "--out", str(tmp_path / "o")]
    assert main(asked) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_more_folds_than_anatomies_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = write_cohort(tmp_path / "cohort")
    assert main(["crossval", str(cohort), "--profile", "frst", "--out", str(tmp_path / "out")]) == 2
    assert "2 anatomies cannot make 5 folds" in capsys.readouterr().err


def test_figures_of_patients_are_not_called_simulated() -> None:
    fold = [result(_study(), (ReportedMark((0, 0, 0), 0.9),))]
    assert SIMULATED[1:] not in paper_tables({"frst": [fold]}, simulated=False)
    assert SIMULATED[1:] in paper_tables({"frst": [fold]}, simulated=True)
