"""What networks run on is named, and a processor that multiplies bfloat16 gives the same answer sooner."""

from __future__ import annotations

import pytest
import torch

from pipeline.candidates import heatmap
from pipeline.classifiers import context
from pipeline.networks import hardware
from pipeline.networks.hardware import Hardware, find_hardware, mixed_precision, multiplies_bfloat16
from pipeline.networks.loading import load_network
from pipeline.profile import load_profile

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("threads", "bfloat16", "said"),
    [(1, False, "1 thread"), (2, False, "2 threads"), (2, True, "2 threads, bfloat16")],
)
def test_the_processor_is_named_as_a_person_reads_it(threads: int, bfloat16: bool, said: str) -> None:
    assert Hardware("2.15", True, "", threads, bfloat16).cpu == said


def test_this_processor_is_known() -> None:
    found = find_hardware()
    assert found.threads == torch.get_num_threads()
    assert found.bfloat16 is multiplies_bfloat16()


@pytest.mark.parametrize("able", [True, False])
def test_only_a_processor_that_multiplies_bfloat16_uses_it(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda: able)
    with mixed_precision(CPU):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (torch.bfloat16 if able else torch.float32)


def answers(monkeypatch: pytest.MonkeyPatch, *, bfloat16: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """What both networks of the default profile say of noise: the map of centres, and odds."""
    monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda: bfloat16)
    profile = load_profile("default")
    stages = []
    for module, stage in ((heatmap, profile.candidates), (context, profile.classifier)):
        parameters = module.Parameters(**stage.parameters)
        stages.append((load_network(module.build, parameters, stage.weights, "cpu").network, parameters))
    (detector, of_detector), (classifier, of_classifier) = stages
    random = torch.Generator().manual_seed(3)
    volume = torch.randn(len(of_detector.channels), 12, 64, 64, generator=random)
    patches = torch.randn(4, len(of_classifier.channels), *of_classifier.shape, generator=random)
    heat = heatmap.respond(detector, volume, of_detector, CPU)
    with torch.inference_mode(), mixed_precision(CPU):
        return heat, classifier(patches).float()


def test_both_precisions_answer_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    (heat, odds), (quick_heat, quick_odds) = (answers(monkeypatch, bfloat16=quick) for quick in (False, True))
    assert quick_heat.dtype is torch.float32
    assert torch.allclose(heat, quick_heat, atol=0.01)
    assert torch.allclose(odds, quick_odds, atol=0.15)
    for axis in range(3):  # where a network sees nothing, its answer is the same everywhere, in float32, too
        differ = heat.diff(dim=axis) != 0
        assert (quick_heat.diff(dim=axis) != 0)[differ].float().mean() > 0.999
