"""A GPU that fails in the middle of an analysis costs time, and no result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.candidates import heatmap
from pipeline.networks import loading
from pipeline.networks.fallback import run_with_fallback
from pipeline.networks.loading import choose_device, load_network
from pipeline.networks.weights import Weights
from pipeline.profile import CandidateStage
from training.fit.weights import sha256_of

PARAMETERS = heatmap.Parameters(width=4)
LOST = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It seems to have a GPU, and forgets afterwards that it failed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loading, "_gave_up", False)
    loading.forget_networks()
    yield
    loading.forget_networks()


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    path = tmp_path / "w.safetensors"
    save_file(dict(heatmap.build(PARAMETERS).state_dict()), path)
    return Weights(name="w", file=path, sha256=sha256_of(path))


def failing(error: Exception) -> tuple[Callable[[str], str], list[str]]:
    """A stage that fails on the GPU, and the devices that it was run on."""
    devices: list[str] = []

    def run(device: str) -> str:
        where = choose_device(device).type
        devices.append(where)
        if where == "cuda":
            raise error
        return "findings"

    return run, devices


def test_a_study_that_is_too_large_for_the_gpu_is_analysed_on_the_cpu_and_the_next_on_the_gpu(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, devices = failing(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"))
    with caplog.at_level(logging.WARNING):
        assert run_with_fallback(run, "auto") == "findings"
    assert devices == ["cuda", "cpu"]
    assert "the GPU lacks memory" in caplog.text
    assert choose_device("auto").type == "cuda"


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(
    "error",
    [torch.AcceleratorError(LOST), RuntimeError(LOST), RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")],
)
def test_after_a_gpu_was_lost_the_process_stays_on_the_cpu(
    error: RuntimeError, device: str, caplog: pytest.LogCaptureFixture
) -> None:
    run, devices = failing(error)
    with caplog.at_level(logging.WARNING):
        assert [run_with_fallback(run, device) for _ in range(3)] == ["findings"] * 3
    assert devices == ["cuda", "cpu", "cpu", "cpu"]
    assert caplog.text.count("the GPU failed") == 1


def test_an_error_that_is_not_the_gpus_stays_an_error() -> None:
    run, devices = failing(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        run_with_fallback(run, "auto")
    assert devices == ["cuda"]


def test_an_error_on_the_cpu_is_not_hidden() -> None:
    def run(device: str) -> str:
        raise RuntimeError(LOST if device == "auto" else "no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        run_with_fallback(run, "auto")


def test_a_driver_that_went_away_is_no_reason_to_fail(weights: Weights) -> None:
    """Without a GPU PyTorch itself fails here: it was told that there is one. A GPU that works is used."""

    def load(device: str) -> str:
        return load_network(heatmap.build, PARAMETERS, weights, device).device.type

    assert run_with_fallback(load, "auto") == ("cuda" if torch.cuda.device_count() else "cpu")


def test_a_stage_of_a_profile_is_called_again_for_the_cpu(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []

    def propose(*_: object, device: str, **__: object) -> list[str]:
        devices.append(device)
        if device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return ["candidate"]

    monkeypatch.setattr(heatmap, "propose", propose)
    stage = CandidateStage(method="heatmap", parameters=PARAMETERS.model_dump(), weights=weights)
    assert stage.call("propose", None, None, device="auto") == ["candidate"]
    assert devices == ["auto", "cpu"]
