"""A site's calibration: probabilities that say what happens, thresholds at the rate asked for, and enough cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.classifiers.probability import calibrate as clinic
from pipeline.errors import InputError, ProfileError
from pipeline.networks.loading import CALIBRATION
from pipeline.networks.weights import load_weights
from pipeline.profile import load_profile
from tests.classical import quick_file
from training.cli import main
from training.evaluation.calibration import shown_probability
from training.evaluation.cases import CaseTruth, ReportedMark, TruthObject
from training.evaluation.metrics import StudyResult
from training.evaluation.site_calibration import SiteCalibration, calibrate_to, log_odds, write_calibrated

from .cohort import write_cohort
from .strategies import result

pytestmark = pytest.mark.slow


def _overconfident(subjects: int, seed: int = 1) -> list[StudyResult]:
    """Studies whose scores are log odds that are twice as far from zero as they should be, and shifted by one."""
    rng = np.random.default_rng(seed)
    made = []
    for n in range(subjects):
        places = [(60.0 * m, 0.0, 0.0) for m in range(12)]
        odds = rng.normal(-1, 1.5, len(places))
        real = rng.random(len(places)) < 1 / (1 + np.exp(-odds))
        marks = tuple(
            ReportedMark(place, float(1 / (1 + np.exp(-(2 * one + 1)))))
            for place, one in zip(places, odds, strict=True)
        )
        truth = CaseTruth(tuple(TruthObject(p) for p, there in zip(places, real, strict=True) if there))
        made.append(result(truth, marks, name=f"study-{n}"))
    return made


def test_scores_are_brought_to_what_happens_and_the_threshold_to_the_rate() -> None:
    found = calibrate_to(_overconfident(150), 1.0, draws=200)
    assert found.slope == pytest.approx(0.5, abs=0.08)
    assert found.offset == pytest.approx(-0.5, abs=0.2)
    assert found.fp_per_study.value == pytest.approx(1.0, abs=0.05)
    assert found.fp_per_study.low is not None
    assert found.fp_per_study.low < 1 < (found.fp_per_study.high or 0)
    assert 0 < found.possible < found.definite < 1
    assert (found.subjects, found.studies) == (150, 150)


def test_fewer_studies_want_more_of_them() -> None:
    few, many = calibrate_to(_overconfident(15), 1.0, 200), calibrate_to(_overconfident(150), 1.0, 200)
    assert few.wanted > few.studies
    assert few.wanted < 40 * many.studies
    with pytest.raises(InputError, match="too few cases to calibrate: 5 subjects"):
        calibrate_to(_overconfident(5), 1.0)


def test_the_clinic_gives_the_corrected_probability(tmp_path: Path) -> None:
    default = load_profile("default")
    found = calibrate_to(_overconfident(60), 0.5, 50)
    made = write_calibrated(default, found, tmp_path, "default-site")
    assert made.thresholds.possible == found.possible
    assert made.digest != default.digest
    assert "calibrated to 60 studies" in made.description
    assert default.classifier is not None
    assert made.classifier is not None
    assert default.classifier.weights is not None
    assert made.classifier.weights is not None
    before, after = (
        load_weights(w)[CALIBRATION].tolist() for w in (default.classifier.weights, made.classifier.weights)
    )
    own, candidate = np.array([-3.0, 0.0, 2.0]), np.array([-1.0, 0.5, 3.0])
    old, new = clinic(own, candidate, before), clinic(own, candidate, after)
    assert log_odds(new) == pytest.approx(found.offset + found.slope * log_odds(old), abs=1e-6)
    assert (tmp_path / "default-site.toml").is_file()


def test_a_profile_without_a_network_cannot_be_calibrated(tmp_path: Path) -> None:
    found: SiteCalibration = calibrate_to(_overconfident(60), 0.5, 50)
    with pytest.raises(ProfileError, match="no calibration to set"):
        write_calibrated(load_profile("frst"), found, tmp_path, "frst-site")


def test_the_command_says_when_there_are_too_few_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort, profile = write_cohort(tmp_path / "cohort"), quick_file(tmp_path)
    assert main(["calibrate", str(cohort), "--profile", str(profile), "--out", str(tmp_path / "out")]) == 2
    assert "too few cases to calibrate: 2 subjects" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "shown"), [(0.9999, "> 0.99"), (0.995, "> 0.99"), (0.994, "0.99"), (0.001, "< 0.01")]
)
def test_no_probability_is_shown_as_certain(value: float, shown: str) -> None:
    assert shown_probability(value) == shown
