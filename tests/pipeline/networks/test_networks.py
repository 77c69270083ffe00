"""The networks: sizes as published, shapes as promised, weights that fit or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from pipeline.candidates import heatmap
from pipeline.errors import ProfileError
from pipeline.networks.cnn3d import SHAPE, Cnn3dNet
from pipeline.networks.context import CLASSES, ContextNet, middle_of
from pipeline.networks.heatmap import KINDS, MULTIPLE, HeatmapNet, fold
from pipeline.networks.loading import CALIBRATION, choose_device, load_network, merge_norms
from pipeline.networks.transfer import SIZE, Backbone, last_layer, make_transfer
from pipeline.networks.weights import Weights
from pipeline.networks.yolo import ANCHORS, YoloNet
from training.fit.weights import sha256_of


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_3d_cnn_has_the_published_number_of_weights() -> None:
    assert round(_count(Cnn3dNet()) / 1e6, 2) == 1.36


def test_the_3d_cnn_normalises_each_channel() -> None:
    norms = [m.num_features for m in Cnn3dNet().modules() if isinstance(m, nn.BatchNorm3d)]
    assert norms == [32, 64, 64, 128, 128]
    assert Cnn3dNet().eval()(torch.rand(2, 1, *SHAPE)).shape == (2, 2)


def test_yolo_at_full_width_is_the_published_network() -> None:
    with torch.device("meta"):
        network = YoloNet(3, 1.0, 32)
    # 50.55 million with 30 outputs for an anchor's class, too; five rows of 1024 less without it.
    assert _count(network) == pytest.approx(50.55e6, rel=1e-3)


@pytest.mark.parametrize("stride", [16, 32])
def test_yolo_answers_for_every_anchor_of_every_cell(stride: int) -> None:
    network = YoloNet(2, 0.02, stride).eval()
    raw = network(torch.rand(1, 2, 96, 64))
    assert raw.shape == (1, ANCHORS, 5, 96 // stride, 64 // stride)
    boxes, confidence = network.decode(raw)
    assert boxes.shape == (*confidence.shape, 4)
    assert (boxes[..., 2:] > boxes[..., :2]).all()


def test_a_yolo_box_is_where_its_output_says() -> None:
    network = YoloNet(2, 0.02, 16)
    network.set_anchors([(8.0, 4.0)] * ANCHORS)
    raw = torch.zeros(1, ANCHORS, 5, 2, 3)
    boxes, confidence = network.decode(raw)
    assert boxes[0, 0, 1, 2].tolist() == [36, 22, 44, 26]  # half a cell into cell (1, 2), of the anchor's size
    assert confidence[0, 0, 1, 2] == 0.5


def test_the_heat_map_has_half_the_pixels_and_starts_quiet() -> None:
    network = HeatmapNet(3, 4).eval()
    k, j, i = MULTIPLE
    heat = network(torch.rand(1, 3, k, 2 * j, 3 * i))
    assert heat.shape == (1, len(KINDS), k, j, 3 * i // 2)
    with torch.no_grad():
        assert network.head.bias.sigmoid().tolist() == pytest.approx([0.01] * len(KINDS))


def test_folding_keeps_every_pixel() -> None:
    image = torch.arange(2 * 4 * 6).float().reshape(1, 1, 2, 4, 6)
    folded = fold(image)
    assert folded.shape == (1, 4, 2, 2, 3)
    assert folded[0, :, 1, 1, 2].tolist() == image[0, 0, 1, 2:, 4:].flatten().tolist()


def test_the_context_network_tells_all_kinds_apart() -> None:
    assert ContextNet(5, 4).eval()(torch.rand(2, 5, 6, 12, 12)).shape == (2, len(CLASSES))


def test_the_last_layer_of_the_context_network_may_see_the_middle_of_the_patch() -> None:
    torch.manual_seed(2)
    plain, middle = ContextNet(5, 4).eval(), ContextNet(5, 4, middle=True).eval()
    seen = middle.head[3].in_features
    assert (plain.head[3].in_features, seen) == (16, 8 + 16 + 16)
    with torch.no_grad():
        middle.head[3].weight.zero_()
        middle.head[3].weight[:, -16:] = plain.head[3].weight
    state = {**plain.state_dict(), "head.3.weight": middle.head[3].weight}
    middle.load_state_dict(state)
    patches = torch.rand(2, 5, 6, 12, 12)
    assert torch.allclose(plain(patches), middle(patches), atol=1e-6), "the mean over all of it comes last"
    with torch.no_grad():
        middle.head[3].weight[:, :8] = 1
    assert not torch.allclose(plain(patches), middle(patches), atol=1e-3)


def test_the_middle_of_a_patch_is_symmetrical_whatever_its_size() -> None:
    for shape in ((16, 8, 8), (8, 4, 4), (6, 3, 3), (3, 2, 1)):
        x = torch.rand(2, 3, *shape)
        assert torch.equal(middle_of(x.flip(2, 3, 4)), middle_of(x).flip(2, 3, 4))
    x = torch.zeros(1, 1, 8, 4, 4)
    x[0, 0, 3:5, 1:3, 1:3] = 1
    assert middle_of(x).mean() == 1, "all of the middle"
    assert middle_of(x).sum() == x.sum(), "and nothing but it"


def test_the_last_layer_of_a_transfer_network_is_replaced() -> None:
    with torch.device("meta"):
        alexnet, resnet = make_transfer("alexnet"), make_transfer("resnet50")
    assert {last_layer(n).out_features for n in (alexnet, resnet)} == {2}
    assert [last_layer(n).in_features for n in (alexnet, resnet)] == [4096, 2048]


@pytest.mark.parametrize("backbone", ["alexnet", "resnet50"])
def test_a_transfer_network_is_the_one_that_published_weights_are_for(backbone: Backbone) -> None:
    torch.manual_seed(0)
    published = getattr(torchvision.models, backbone)(weights=None, num_classes=3).eval()
    network = make_transfer(backbone, classes=3).eval()
    network.load_state_dict(published.state_dict())
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        assert torch.equal(network(images), published(images))


def test_merging_the_normalisation_changes_no_result() -> None:
    torch.manual_seed(0)
    for network, image in (
        (HeatmapNet(2, 4), torch.rand(2, 2, 4, 16, 16)),
        (YoloNet(2, 0.02, 16), torch.rand(2, 2, 32, 32)),
    ):
        network.train()(image)  # running means that are not 0 and 1
        wanted = network.eval()(image)
        merged = merge_norms(network)
        assert not any(isinstance(m, nn.BatchNorm3d | nn.BatchNorm2d) for m in merged.modules())
        assert torch.allclose(merged(image), wanted, atol=1e-5)


PARAMETERS = heatmap.Parameters(width=4)


def _save(folder: Path, tensors: dict[str, torch.Tensor]) -> Weights:
    path = folder / "w.safetensors"
    save_file(tensors, path)
    return Weights(name="w", file=path, sha256=sha256_of(path))


def test_weights_are_loaded_once_with_their_calibration(tmp_path: Path) -> None:
    tensors = {**heatmap.build(PARAMETERS).state_dict(), CALIBRATION: torch.tensor([1.0, 2.0, 3.0])}
    weights = _save(tmp_path, tensors)
    loaded = load_network(heatmap.build, PARAMETERS, weights, "cpu")
    assert loaded.calibration == (1, 2, 3)
    assert not loaded.network.training
    assert load_network(heatmap.build, PARAMETERS, weights, "cpu") is loaded


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    weights = _save(tmp_path, dict(heatmap.build(heatmap.Parameters(width=8)).state_dict()))
    with pytest.raises(ProfileError, match="do not fit the network of the profile"):
        load_network(heatmap.build, PARAMETERS, weights, "cpu")


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(choose_device("auto")) == "cpu"
    with pytest.raises(ProfileError, match="no CUDA"):
        choose_device("cuda")
