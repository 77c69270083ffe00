"""Training a profile: networks learn, a run goes on and repeats itself, and what is exported runs from DICOM."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import dcmread
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from node.cli import main as cmbnode
from pipeline.candidates import Candidate, heatmap, yolo
from pipeline.classifiers.probability import calibrate, candidate_odds
from pipeline.errors import InputError, ProfileError
from pipeline.networks.loading import CALIBRATION
from pipeline.networks.transfer import make_transfer
from pipeline.networks.weights import load_weights
from pipeline.profile import Profile, load_profile
from tests import dicom_factory
from tests.pipeline.phantom import SPACING, head
from tests.training.tiny import config, recipe, studies, study
from training.cli import main
from training.datasets.cache import write_study
from training.fit.config import Augmentation, StageConfig
from training.fit.export import export, to_toml
from training.fit.holdout import hold_out_validation
from training.fit.losses import heatmap_loss, yolo_loss
from training.fit.modules import SIGMA_MM, HeatmapModule
from training.fit.run import fit
from training.fit.samples import CropDataset, SliceDataset, collate_slices, on_grid, slice_grids
from training.fit.targets import draw_heatmaps
from training.fit.trainer import TrainingInterrupted, fast_precision, train
from training.fit.training_run import TrainingRun
from training.fit.weights import sha256_of, start_from_imagenet

pytestmark = pytest.mark.slow

NAMES = ("heatmap", "al-masni-2020")


def _job(profile: Profile, out: Path, **changes: Any) -> TrainingRun:
    settings = config(**changes.pop("settings", {}))
    return TrainingRun(profile, settings, hold_out_validation(studies(), 0.2), out, say=lambda _: None, **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """Train a tiny network of a profile once."""
    done: dict[str, tuple[Path, dict[str, Any]]] = {}

    def run(name: str) -> tuple[Path, dict[str, Any]]:
        if name not in done:
            out = tmp_path_factory.mktemp("runs") / name
            done[name] = out, fit(_job(recipe(name), out))
        return done[name]

    return run


# --- learning ---------------------------------------------------------------------------------------------------------


def _falls(network: torch.nn.Module, loss_of: Callable[[], torch.Tensor], steps: int) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
    losses = []
    for _ in range(steps):
        loss = loss_of()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert min(losses) < 0.5 * losses[0]


def test_the_heat_map_network_learns_two_heads_by_heart() -> None:
    torch.manual_seed(1)
    parameters = heatmap.Parameters(**recipe("heatmap").candidates.parameters)
    stage = StageConfig(
        epochs=1, steps=1, batch=4, learning_rate=1, crop=(8, 32, 32), positive_share=0.98, mimic_share=0.01
    )
    crops = CropDataset([on_grid(study(0), parameters.step_mm, parameters.channels)], stage)
    batch = torch.utils.data.default_collate([crops[n] for n in range(4)])
    maps = draw_heatmaps(batch["points"], batch["kinds"], (8, 16, 16), torch.tensor([2.0, 2.0, 2.0]), SIGMA_MM)
    network = heatmap.build(parameters)
    _falls(network, lambda: heatmap_loss(network(batch["image"].float()), maps, batch["mimics_known"]), 25)


def test_the_2d_detector_learns_a_few_slices_by_heart() -> None:
    torch.manual_seed(1)
    parameters = yolo.Parameters(**recipe("al-masni-2020").candidates.parameters)
    stage = StageConfig(
        epochs=1, steps=1, batch=4, learning_rate=1, crop=(1, 64, 64), positive_share=0.98, mimic_share=0.01,
        augmentation=Augmentation(kind="none"),
    )  # fmt: skip
    slices = SliceDataset(slice_grids([study(0)], parameters), stage)
    images, boxes = collate_slices([slices[n] for n in range(4)])
    network: Any = yolo.build(parameters)
    _falls(network, lambda: yolo_loss(network, network(images), boxes), 50)


@pytest.mark.parametrize(
    ("capability", "precision"), [("AVX512", "bf16-mixed"), ("AVX2", "32-true"), ("DEFAULT", "32-true")]
)
def test_a_processor_without_avx_512_trains_in_single_precision(
    capability: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert fast_precision(on_gpu=False) == precision


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_run_leaves_weights_logs_and_what_they_were_made_of(
    name: str, trained: Callable[[str], tuple[Path, dict[str, Any]]]
) -> None:
    out, fitted = trained(name)
    assert json.loads((out / "fitted.json").read_text()) == json.loads(json.dumps(fitted))
    assert {sha256_of(out / file) for file in fitted["weights"]} == set(fitted["weights"].values())
    assert len(fitted["weights"]) == 2
    assert fitted["training"]["anatomies"] == ["a0", "a1", "a2"]
    assert fitted["validation"]["anatomies"] == ["a10", "a11"]
    assert 0 <= fitted["thresholds"]["possible"] <= fitted["thresholds"]["definite"] <= 1
    for stage in ("detector", "classifier"):
        assert list((out / stage).rglob("metrics.csv"))
        assert list((out / stage).rglob("events.out.tfevents.*"))
    classifier = next(
        file for file in fitted["weights"] if not file.endswith(("yolo.safetensors", "heatmap.safetensors"))
    )
    assert load_file(out / classifier)[CALIBRATION].tolist() == fitted["calibration"]


def test_the_same_run_gives_the_same_weights(
    trained: Callable[[str], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    _, first = trained("heatmap")
    assert fit(_job(recipe("heatmap"), tmp_path))["weights"] == first["weights"]


def test_a_stopped_run_goes_on(tmp_path: Path, trained: Callable[[str], tuple[Path, dict[str, Any]]]) -> None:
    with pytest.raises(TrainingInterrupted, match="of 2 epochs; the same command continues"):
        fit(_job(recipe("heatmap"), tmp_path, minutes=1e-6))
    fitted = fit(_job(recipe("heatmap"), tmp_path))
    assert fitted["weights"].keys() == trained("heatmap")[1]["weights"].keys()
    mined = {path: path.stat().st_mtime_ns for path in (tmp_path / "mined").rglob("*.npz")}
    assert len(mined) == 5
    again = fit(_job(recipe("heatmap"), tmp_path))
    assert mined == {path: path.stat().st_mtime_ns for path in mined}, "nor are its candidates mined again"
    assert again["weights"] == fitted["weights"], "a finished run is not trained again"
    assert again["figures"] == pytest.approx(fitted["figures"])


def test_a_moving_average_of_the_weights_is_what_is_kept(tmp_path: Path) -> None:
    stage = StageConfig(epochs=1, steps=4, batch=4, learning_rate=5e-2, warmup=0, crop=(8, 64, 64), average=0.9)
    crops = CropDataset([on_grid(study(0), (1.0, 1.0, 2.0), ("swi", "cosine", "sine"))], stage)
    parameters = heatmap.Parameters(**recipe("heatmap").candidates.parameters)
    module = HeatmapModule(
        parameters, parameters.channels, heatmap.build(parameters), stage, 1, lambda *_: [], [study(10)]
    )
    last: list[dict[str, torch.Tensor]] = []
    module.on_train_end = lambda: last.append({k: v.clone() for k, v in module.network.state_dict().items()})  # type: ignore[method-assign]
    train(
        module, DataLoader(crops, 4), DataLoader(torch.arange(1), batch_size=None), config(), stage, tmp_path,
        lambda _: None,
    )  # fmt: skip
    kept = module.network.state_dict()
    assert all(torch.equal(kept[k], v) for k, v in module.kept.state_dict().items())
    assert any(not torch.allclose(kept[k], v) for k, v in last[0].items())


def test_a_folder_of_other_settings_is_refused(
    trained: Callable[[str], tuple[Path, dict[str, Any]]],
) -> None:
    out, _ = trained("heatmap")
    with pytest.raises(InputError, match="other settings"):
        fit(_job(recipe("heatmap"), out, settings={"seed": 9}))


def test_a_transfer_network_starts_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    start = make_transfer("alexnet", classes=1000).state_dict()
    torch.save({k: v.half() for k, v in start.items()}, tmp_path / "imagenet.pth")
    stage = StageConfig(
        epochs=1,
        steps=1,
        batch=2,
        learning_rate=1e-4,
        warmup=0,
        freeze=True,
        augmentation=Augmentation(kind="six-fold"),
    )
    said: list[str] = []
    settings = config(detector=None, classifier=stage)
    split = hold_out_validation(studies(), 0.2)
    job = TrainingRun(
        recipe("afzal-2021-alexnet"), settings, split, tmp_path / "run", tmp_path / "imagenet.pth", say=said.append
    )
    fitted = fit(job)
    assert fitted["start"] == {"imagenet.pth": sha256_of(tmp_path / "imagenet.pth")}
    assert "fresh: classifier.6.bias, classifier.6.weight" in "\n".join(said)
    (file,) = fitted["weights"]
    kept = load_file(tmp_path / "run" / file)
    assert torch.equal(kept["features.0.weight"], start["features.0.weight"].half()), "frozen"


def _imagenet_job(out: Path, said: list[str]) -> TrainingRun:
    stage = StageConfig(epochs=1, steps=1, batch=2, learning_rate=1e-4, warmup=0, freeze=True)
    settings = config(detector=None, classifier=stage, pretrained="imagenet")
    return TrainingRun(
        recipe("afzal-2021-alexnet"), settings, hold_out_validation(studies(), 0.2), out, say=said.append
    )


def test_imagenet_weights_that_cannot_be_had_are_replaced_by_random_numbers_and_the_card_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    said: list[str] = []
    job = _imagenet_job(tmp_path / "run", said)
    assert fit(job)["start"] == {}
    assert "STARTS FROM RANDOM NUMBERS" in "\n".join(said)
    assert "--pretrained" in "\n".join(said), "and what to do about it"
    export(job.out, tmp_path / "made", recipe("afzal-2021-alexnet"))
    card = (tmp_path / "made/afzal-2021-alexnet.md").read_text()
    assert "random numbers, because the ImageNet weights could not be downloaded." in card


def test_imagenet_weights_are_loaded_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    kept = tmp_path / "hub/checkpoints/alexnet-owt-7be5be79.pth"  # where torchvision looks before it downloads
    kept.parent.mkdir(parents=True)
    start = make_transfer("alexnet", classes=1000).state_dict()
    torch.save(start, kept)
    network = make_transfer("alexnet")
    assert start_from_imagenet(network, "alexnet") == kept.name
    assert torch.equal(network.state_dict()["features.0.weight"], start["features.0.weight"])


def test_weights_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="no tensor that fits"):
        fit(_job(recipe("heatmap"), tmp_path / "run", pretrained=tmp_path / "x.pth"))


def test_a_training_goes_on_from_a_trained_profile_and_its_card_says_so(
    trained: Callable[[str], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    start = export(trained("heatmap")[0], tmp_path / "first", recipe("heatmap"))
    said: list[str] = []
    job = _job(recipe("heatmap"), tmp_path / "run", start=start)
    fitted = fit(replace(job, say=said.append))
    assert fitted["start"] == start.weights
    assert {"started from heatmap-heatmap; fresh: nothing", "started from heatmap-context; fresh: nothing"} <= set(said)
    export(tmp_path / "run", tmp_path / "second", recipe("heatmap"))
    assert "started from `heatmap-heatmap`" in (tmp_path / "second/heatmap.md").read_text()
    with pytest.raises(InputError, match="other settings"):
        fit(_job(recipe("heatmap"), tmp_path / "run"))


def test_only_a_profile_of_the_same_methods_can_be_started_from(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights for the c"):
        fit(_job(recipe("al-masni-2020"), tmp_path, start=load_profile("default")))


# --- export -----------------------------------------------------------------------------------------------------------


def test_an_exported_profile_is_complete_and_checked_by_hash(
    trained: Callable[[str], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    out, fitted = trained("heatmap")
    profile = export(out, tmp_path, recipe("heatmap"), "mine")
    assert load_profile(str(tmp_path / "mine.toml")) == profile
    assert not profile.untrained
    assert profile.thresholds.possible == fitted["thresholds"]["possible"]
    assert sorted(profile.weights.values()) == sorted(fitted["weights"].values())
    card = (tmp_path / "mine.md").read_text()
    for said in (profile.digest, *profile.weights.values(), "a0, a1, a2", f"Seed {fitted['seed']}", fitted["commit"]):
        assert said in card
    weights = tmp_path / "mine-heatmap.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert profile.candidates.weights is not None
    with pytest.raises(ProfileError, match="are not those of the profile"):
        load_weights(profile.candidates.weights)


def test_the_clinic_scores_as_the_training_did(
    trained: Callable[[str], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    """The exported profile finds, on a validation study, what the figures were made of: the same preprocessing."""
    out, fitted = trained("heatmap")
    profile = export(out, tmp_path, recipe("heatmap"))
    own = study(10, "validation")
    acquisition = own.acquisition()
    proposed = profile.candidates.call("propose", acquisition, own.brain, device="cpu")
    assert proposed
    places = own.points(own.marks).tolist()  # after six batches the map is nearly flat, and one place is proposed
    candidates = [*proposed, *(Candidate((i, j, k), 0.5) for i, j, k in places)]
    assert profile.classifier is not None
    chances, odds = profile.classifier.call("score", acquisition, own.brain, candidates, device="cpu")
    assert chances.shape == odds.shape == (len(candidates),)
    assert ((chances >= 0) & (chances <= 1)).all()
    assert chances == pytest.approx(calibrate(odds, candidate_odds(candidates), fitted["calibration"]), abs=1e-6)
    assert fitted["calibration"][1] == 0 or len(set(np.round(chances, 6))) > 1


def test_an_unfinished_or_changed_run_is_not_exported(
    trained: Callable[[str], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no finished training"):
        export(tmp_path, tmp_path / "to", recipe("heatmap"))
    with pytest.raises(InputError, match="has changed since it was trained"):
        export(trained("heatmap")[0], tmp_path / "to", load_profile("heatmap"))


def test_a_profile_written_as_toml_reads_back(tmp_path: Path) -> None:
    for name in ("frst", "al-masni-2020"):
        profile = load_profile(name)
        path = tmp_path / f"{name}.toml"
        path.write_text(to_toml(profile.model_dump(mode="json", exclude_none=True)))
        assert load_profile(str(path)) == profile


# --- from end to end --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom head as DICOM, at half its resolution in plane, without phase."""
    image, _ = head()
    coarse = image[:, ::2, ::2].astype(np.uint16)
    folder = tmp_path_factory.mktemp("dicom")
    matrix = dicom_factory.affine((2 * SPACING[0], 2 * SPACING[1], SPACING[2]))
    dicom_factory.write(dicom_factory.classic(coarse, matrix=matrix, series_number=11), folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_profile_runs_from_dicom_to_a_report(
    name: str, trained: Callable[[str], tuple[Path, dict[str, Any]]], dicom: Path, tmp_path: Path
) -> None:
    run, _ = trained(name)
    profile = export(run, tmp_path, recipe(name))
    out = tmp_path / "out"
    assert cmbnode(["detect", str(dicom), "--out", str(out), "--profile", str(tmp_path / f"{name}.toml")]) == 0
    findings = json.loads((out / "findings.json").read_text())
    assert findings["weights"] == profile.weights
    assert findings["series"]["phase"] is None
    assert findings["candidates"]
    assert {"brain", "candidates", "scores"} <= set(findings["timing_s"])
    assert any(f"outside the range of 0.3 to 1.1 mm that profile {name}" in w for w in findings["quality"]["warnings"])
    assert dcmread(out / "sr.dcm").Modality == "SR"


def test_a_profile_without_weights_says_how_to_train_it(
    dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained = tmp_path / "mine.toml"
    untrained.write_text(to_toml({**recipe("heatmap").model_dump(mode="json", exclude_none=True), "name": "mine"}))
    assert cmbnode(["detect", str(dicom), "--out", str(tmp_path / "out"), "--profile", str(untrained)]) == 2
    said = capsys.readouterr().err
    assert "profile mine has no trained weights for heatmap and context" in said
    assert "cmbtrain fit mine" in said
    assert not (tmp_path / "out").exists()


def test_the_commands_train_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for one in studies():
        write_study(one, tmp_path / "cache" / "part-000" / f"{one.name}.npz")
    small = recipe("heatmap")
    (tmp_path / "small.toml").write_text(to_toml(small.model_dump(mode="json", exclude_none=True)))
    settings = config(classifier=StageConfig(epochs=1, steps=1, batch=2, learning_rate=1e-3))
    (tmp_path / "config.toml").write_text(to_toml(settings.model_dump(mode="json")))
    profile, run = str(tmp_path / "small.toml"), str(tmp_path / "run")
    fit_it = [
        "fit",
        profile,
        "--data",
        str(tmp_path / "cache"),
        "--config",
        str(tmp_path / "config.toml"),
        "--out",
        run,
    ]
    assert main(fit_it) == 0
    assert main(["export", run, "--profile", profile, "--out", str(tmp_path / "to"), "--name", "new"]) == 0
    assert load_profile(str(tmp_path / "to" / "new.toml")).digest in capsys.readouterr().out
    assert main(["fit", profile, "--data", str(tmp_path / "cache"), "--config", "nothing", "--out", run]) == 2
    assert "no such configuration" in capsys.readouterr().err
