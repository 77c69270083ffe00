"""The forest: as arrays it votes as in scikit-learn; grown from records it makes a profile that runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sklearn.ensemble import RandomForestClassifier

from pipeline.classifiers import forest as classifier
from pipeline.classifiers.features import NAMES
from pipeline.classifiers.forest import calibrated, read_forest
from pipeline.detect import analyse
from pipeline.errors import InputError, ProfileError
from pipeline.geometry import Acquisition
from pipeline.networks.weights import load_weights
from pipeline.profile import Profile, load_profile
from tests.classical import quick_profile
from tests.pipeline import phantom
from training.datasets.record import LabelledStudy, Mark, Record
from training.fit.forest import Samples, export, fit_forest
from training.fit.profile_files import weights_of, write_profile

pytestmark = pytest.mark.slow

KEY = "ab" * 32


def _read(arrays: dict[str, np.ndarray], path: Path) -> classifier.Forest:
    save_file(arrays, path)
    return read_forest(load_weights(weights_of(path, "forest")))


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.booleans(), st.integers(2, 40))
def test_the_arrays_vote_as_scikit_learn_does(
    tmp_path_factory: pytest.TempPathFactory, seed: int, missing: bool, leaf: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    x[:, 1] = np.round(x[:, 1])  # values that equal thresholds
    if missing:
        x[rng.random(x.shape) < 0.2] = np.nan
    y = (np.nan_to_num(x[:, 0]) + 0.3 * rng.normal(size=300) > 0.4).astype(int)
    y[:2] = 0, 1
    grown = RandomForestClassifier(12, min_samples_leaf=leaf // 4 + 1, random_state=0).fit(x, y)
    new = np.concatenate([x, rng.normal(size=(100, 6)).astype(np.float32)])
    new[-1] = np.nan
    votes = _read(export(grown), tmp_path_factory.mktemp("forest") / "f.safetensors").vote(new)
    assert np.allclose(votes, grown.predict_proba(new)[:, 1], atol=1e-12)


def test_calibration_keeps_the_order_and_stays_between_0_and_1() -> None:
    votes = np.linspace(0, 1, 101)
    probability = calibrated(votes, np.array([-1.0, 0.7]))
    assert (np.diff(probability) >= 0).all()
    assert 0 < probability[0] < probability[-1] < 1
    assert calibrated(votes, np.array([0.0, 1.0]))[10:90] == pytest.approx(votes[10:90])


def test_a_forest_over_other_features_is_refused(tmp_path: Path) -> None:
    grown = RandomForestClassifier(2, random_state=0).fit(np.eye(2, 3, dtype=np.float32), [0, 1])
    arrays = export(grown)
    with pytest.raises(ProfileError, match="trained on other features"):
        _read({**arrays, "names": np.frombuffer(b"a\nb", np.uint8)}, tmp_path / "f.safetensors")
    with pytest.raises(ProfileError, match="not those of a forest"):
        _read({"names": arrays["names"]}, tmp_path / "f.safetensors")


def test_without_weights_the_profile_says_how_to_get_them() -> None:
    with pytest.raises(ProfileError, match=r"frst-forest has no trained weights.*cmbtrain"):
        analyse(phantom.acquisition(), load_profile("frst-forest"), key=KEY)


def test_a_candidate_is_labelled_by_its_distance_from_bleeds() -> None:
    marks = (
        Mark((0, 0, 0), diameter_mm=4.0),
        Mark((50, 0, 0), diameter_mm=8.0),
        Mark((100, 0, 0), visible=False),
        Mark((150, 0, 0), "calcification"),
    )
    places = {0: 1, 2.4: 1, 3: -1, 6: 0, 47: 1, 45.5: -1, 100: -1, 150: 0}
    centres = np.array([[x, 0, 0] for x in places], float)
    record = Record("a", "a", "a", None, True, lambda: LabelledStudy(phantom.acquisition(), ()))
    samples = Samples(record, marks, centres, np.zeros((len(places), len(NAMES)), np.float32))
    assert samples.labels().tolist() == list(places.values())


def _record(n: int) -> Record:
    rng = np.random.default_rng(n)
    bleeds = tuple((*rng.uniform(-30, 30, 3).round(1).tolist(), float(rng.uniform(1.5, 3))) for _ in range(4))

    def read() -> LabelledStudy:
        image, brain = phantom.head(bleeds, seed=n)
        marks = tuple(
            Mark(tuple(c + m for c, m in zip(b[:3], phantom.MIDDLE, strict=True)), diameter_mm=2 * b[3]) for b in bleeds
        )
        return LabelledStudy(Acquisition(phantom.volume(image)), marks, brain)

    return Record(f"head-{n}", f"head-{n}", f"head-{n}", None, True, read)


@pytest.fixture(scope="module")
def few() -> Profile:
    """The profile with few candidates and trees, to be quick."""
    profile = quick_profile("frst-forest").model_dump()
    profile["candidates"]["parameters"]["max_candidates"] = 60
    profile["classifier"]["parameters"]["trees"] = 20
    return Profile(**profile)


@pytest.fixture(scope="module")
def fitted(few: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_forest([_record(n) for n in range(4)], few, tmp_path_factory.mktemp("forest") / "new")


def test_a_grown_forest_finds_the_bleeds_of_another_head(fitted: Path) -> None:
    profile = load_profile(str(fitted))
    findings = analyse(phantom.acquisition(), profile, key=KEY).findings
    assert findings.weights == {"frst-forest-forest": profile.weights["frst-forest-forest"]}
    places = np.array([c.centroid_lps_mm for c in findings.candidates[: len(phantom.BLEEDS)]])
    for bleed in phantom.BLEEDS:
        assert np.linalg.norm(places - (np.array(bleed[:3]) + phantom.MIDDLE), axis=1).min() < 3
    assert findings.candidates[0].probability > 0.5 > findings.candidates[-1].probability


def test_the_same_records_and_seed_give_the_same_forest(fitted: Path, few: Profile, tmp_path: Path) -> None:
    again = fit_forest([_record(n) for n in (3, 1, 0, 2)], few, tmp_path)
    assert load_profile(str(again)).digest == load_profile(str(fitted)).digest
    assert set(load_file(tmp_path / "frst-forest.safetensors")) >= {"roots", "calibration", "names"}


def test_a_trained_profile_moves_with_its_folder(fitted: Path, tmp_path: Path) -> None:
    moved = fitted.parent.rename(tmp_path / "moved")
    try:
        load_profile(str(moved / fitted.name)).require_trained()
        assert 'file = "frst-forest.safetensors"' in (moved / fitted.name).read_text()
    finally:
        moved.rename(fitted.parent)


def test_a_written_profile_is_the_same_profile(tmp_path: Path) -> None:
    for name in ("frst", "frst-forest"):
        profile = load_profile(name)
        assert load_profile(str(write_profile(profile, tmp_path / f"{name}.toml"))) == profile


def test_one_head_is_not_enough_for_a_forest(few: Profile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two heads or more"):
        fit_forest([_record(1)], few, tmp_path)


def test_a_profile_without_a_forest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="frst has no random forest"):
        fit_forest([], load_profile("frst"), tmp_path)
