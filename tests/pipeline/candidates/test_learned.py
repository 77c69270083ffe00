"""How the output of a detector becomes candidates: peaks and boxes, in the brain, each place once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from pipeline.candidates import heatmap, yolo
from pipeline.candidates.yolo import Box, merge, suppress
from pipeline.geometry import Acquisition
from pipeline.networks.heatmap import KINDS
from pipeline.networks.inputs import Inputs, make_inputs
from pipeline.networks.yolo import ANCHORS, YoloNet
from tests.pipeline.phantom import volume

SHAPE = (16, 60, 50)
PLACES = ((20.0, 30.0, 8.0), (30.0, 40.0, 5.0), (31.0, 12.0, 12.0))
"""Dark dots (i, j, k)."""


class DarkMap(nn.Module):
    """A detector that needs no training: the darker a fold of 2 × 2 pixels, the surer."""

    def forward(self, images: Tensor) -> Tensor:
        """As the heat-map network."""
        dark = 1 - nn.functional.avg_pool3d(images[:, :1], (1, 2, 2))
        return (12 * dark - 6).repeat(1, len(KINDS), 1, 1, 1)


def _inputs(spacing: tuple[float, float, float], *, brain: np.ndarray | None = None) -> Inputs:
    k, j, i = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    image = np.ones(SHAPE, np.float32)
    for x, y, z in PLACES:
        far = np.sqrt(((i - x) * spacing[0]) ** 2 + ((j - y) * spacing[1]) ** 2 + ((k - z) * spacing[2]) ** 2)
        image -= np.exp(-(far**2) / 4).astype(np.float32)
    inside = np.zeros(SHAPE, bool)
    inside[2:-1, 6:-4, 5:-3] = True
    return make_inputs(Acquisition(volume(image, spacing)), inside if brain is None else inside & brain)


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 2.0), (0.8, 0.8, 2.0), (0.7, 0.7, 1.0), (0.6, 0.6, 5.0)])
def test_peaks_are_found_where_they_are_at_any_voxel(spacing: tuple[float, float, float]) -> None:
    parameters = heatmap.Parameters(channels=("swi",), threshold=0.2, slab=8)
    found = heatmap.locate(DarkMap(), _inputs(spacing), parameters, torch.device("cpu"))
    assert len(found) == len(PLACES)
    for place in PLACES:
        miss = min(np.linalg.norm((np.array(c.ijk) - place) * spacing) for c in found)
        assert miss < max(1.0, spacing[2] / 2)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)


class CoarseMap(DarkMap):
    """Knows few heights, as bfloat16 does: tops of the map are flat."""

    def forward(self, images: Tensor) -> Tensor:
        """The map in steps."""
        return (super().forward(images) / 4).round() * 4


def test_a_flat_top_is_one_peak() -> None:
    inputs, parameters = _inputs((0.5, 0.5, 2.0)), heatmap.Parameters(channels=("swi",), threshold=0.2, slab=64)
    heat = heatmap.respond(
        CoarseMap(), inputs.grid(parameters.step_mm, parameters.channels).values, parameters, torch.device("cpu")
    )
    assert (heat == heat.max()).sum() > len(PLACES), "the tops are flat"
    found = heatmap.locate(CoarseMap(), inputs, parameters, torch.device("cpu"))
    assert len(found) == len(PLACES)


def test_slabs_make_no_difference() -> None:
    inputs = _inputs((0.5, 0.5, 2.0))
    whole, cut = (
        heatmap.locate(DarkMap(), inputs, heatmap.Parameters(channels=("swi",), slab=s, mirror=m), torch.device("cpu"))
        for s, m in ((64, False), (4, True))
    )
    assert np.allclose([c.ijk for c in whole], [c.ijk for c in cut], atol=1e-4)


def test_peaks_outside_the_brain_and_beyond_the_number_are_left_out() -> None:
    brain = np.ones(SHAPE, bool)
    brain[:, :, 28:] = False
    parameters = heatmap.Parameters(channels=("swi",), threshold=0.2)
    (only,) = heatmap.locate(DarkMap(), _inputs((0.5, 0.5, 2.0), brain=brain), parameters, torch.device("cpu"))
    assert np.allclose(only.ijk, PLACES[0], atol=1)
    one = parameters.model_copy(update={"max_candidates": 1})
    assert len(heatmap.locate(DarkMap(), _inputs((0.5, 0.5, 2.0)), one, torch.device("cpu"))) == 1


def test_a_bleed_that_bites_a_piece_out_of_the_brain_mask_is_proposed() -> None:
    brain = np.ones(SHAPE, bool)
    brain[:, :, 27:] = False  # two of the dots are about 2 mm outside
    inputs = _inputs((0.5, 0.5, 2.0), brain=brain)
    for margin, places in ((0.0, 1), (0.5, 1), (3.0, 3)):
        parameters = heatmap.Parameters(channels=("swi",), threshold=0.2, margin_mm=margin)
        assert len(heatmap.locate(DarkMap(), inputs, parameters, torch.device("cpu"))) == places


class DarkBoxes(YoloNet):
    """A detector that puts a box of 8 pixels on the darkest pixel of each cell."""

    def forward(self, images: Tensor) -> Tensor:
        """As YOLO."""
        n, _, rows, columns = images.shape
        cells = nn.functional.unfold(images[:, :1], self.stride, stride=self.stride)
        dark, at = cells.min(1)
        shape = (n, rows // self.stride, columns // self.stride)
        y, x = ((v.reshape(shape) + 0.5) / self.stride for v in (at // self.stride, at % self.stride))
        raw = torch.full((n, ANCHORS, 5, *shape[1:]), -9.0)
        raw[:, 0, 0], raw[:, 0, 1] = x.logit(), y.logit()
        raw[:, 0, 2:4] = 0
        raw[:, 0, 4] = 12 - 30 * dark.reshape(shape)
        return raw


def test_boxes_of_neighbouring_slices_become_one_candidate() -> None:
    network = DarkBoxes(2, 0.02, 16)
    network.set_anchors([(8.0, 8.0)] * ANCHORS)
    inputs = _inputs((0.5, 0.5, 1.0))
    parameters = yolo.Parameters(threshold=0.9, batch=3)
    boxes = yolo.find_boxes(network, inputs, parameters, torch.device("cpu"))
    assert len(boxes) > len(PLACES), "a bleed is in several slices"
    found = yolo.locate(network, inputs, parameters, torch.device("cpu"))
    assert len(found) == len(PLACES)
    for place in PLACES:
        assert min(np.linalg.norm(np.array(c.ijk) - place) for c in found) < 0.6


def test_merging_takes_neighbouring_slices_however_thick_and_keeps_others_apart() -> None:
    parameters = yolo.Parameters(merge_mm=4.0)
    boxes = [Box(10, 10, 5, 0.9), Box(10.5, 10, 6, 0.3), Box(10, 10, 9, 0.8), Box(30, 10, 5, 0.7)]
    for thickness in (2.0, 5.0):
        found = merge(boxes, (0.5, 0.5, thickness), parameters)
        assert [c.score for c in found] == [0.9, 0.8, 0.7]
        assert found[0].ijk == pytest.approx((10.125, 10, 5.25))
    assert merge([], (1, 1, 1), parameters) == []


@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.7])
def test_of_overlapping_boxes_of_an_image_the_surest_is_kept(overlap: float) -> None:
    random = torch.Generator().manual_seed(1)
    corners = torch.rand(600, 2, generator=random) * 60
    boxes = torch.cat([corners, corners + 2 + torch.rand(600, 2, generator=random) * 10], 1)
    confidence = torch.rand(600, generator=random)
    image = torch.randint(4, (600,), generator=random)
    kept = suppress(boxes, confidence, image, overlap)
    assert 4 < len(kept) < 600
    assert kept.tolist() == batched_nms(boxes, confidence, image, overlap).tolist()


def test_of_no_boxes_none_is_kept() -> None:
    assert suppress(torch.empty(0, 4), torch.empty(0), torch.empty(0, dtype=torch.int64), 0.3).tolist() == []
