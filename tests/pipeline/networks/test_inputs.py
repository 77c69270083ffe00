"""What the networks see: the same physical picture whatever the voxel, and done once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.geometry import Acquisition
from pipeline.networks.inputs import CHANNELS, MISSING, Inputs, cut_patches, make_inputs, prepare
from tests.pipeline.phantom import volume
from tests.training.tiny import labelled

STEPS = st.sampled_from([0.4, 0.5, 0.8, 1.0, 2.0, 3.0, 5.0])


def _inputs(**changes: object) -> Inputs:
    images, brain = labelled(1)
    return make_inputs(replace(images.acquisition, **changes), brain)


def test_the_brain_has_a_median_of_one() -> None:
    inputs = _inputs()
    assert np.median(inputs.swi[inputs.brain]) == pytest.approx(1, abs=1e-3)


def test_beyond_the_brain_and_its_rim_there_is_nothing() -> None:
    """So that an image whose skull was removed looks the same as one with it."""
    images, brain = labelled(1)
    stripped = replace(images.acquisition.swi, array=np.where(brain, images.acquisition.swi.array, 0))
    whole, bare = (make_inputs(replace(images.acquisition, swi=v), brain) for v in (images.acquisition.swi, stripped))
    far = ~ndimage.binary_dilation(whole.brain, iterations=10)
    assert far.any()
    assert (whole.swi[far] == 0).all()
    assert np.array_equal(whole.swi[whole.brain], bare.swi[bare.brain])


def test_a_study_is_prepared_once() -> None:
    images, brain = labelled(1)
    first = prepare(images.acquisition, brain)
    assert prepare(images.acquisition, brain) is first
    assert prepare(images.acquisition, brain.copy()) is not first
    grid = first.grid((0.5, 0.5, 2.0), ("swi",))
    assert first.grid((0.5, 0.5, 2.0), ("swi",)) is grid


def test_an_empty_brain_is_refused() -> None:
    images, brain = labelled(1)
    with pytest.raises(ValueError, match="empty"):
        make_inputs(images.acquisition, np.zeros_like(brain))


def test_every_channel_can_be_had_without_phase_and_magnitude() -> None:
    inputs = _inputs(phase=None, magnitude=None)
    for name in CHANNELS:
        channel = inputs.channel(name)
        assert channel.shape == inputs.swi.shape
        if name in MISSING:
            assert (channel == MISSING[name]).all()


def test_a_bleed_is_dark_in_the_complemented_phase_and_a_calcification_bright() -> None:
    images, brain = labelled(1)
    inputs = make_inputs(images.acquisition, brain)
    complement = inputs.channel("complement")
    assert complement.min() >= 0
    assert complement.max() <= 1
    for mark in images.marks:
        i, j, k = np.rint(inputs.to_crop(images.acquisition.swi.geometry.to_ijk(mark.centre_lps_mm))).astype(int)
        assert (complement[k, j, i] < 0.5) == (mark.kind == "bleed")


def test_the_adjacent_mean_is_of_three_slices() -> None:
    inputs = _inputs()
    unit = inputs.channel("unit")
    assert np.allclose(inputs.channel("adjacent")[4], unit[3:6].mean(0), atol=1e-6)


@settings(max_examples=20)
@given(x=STEPS, y=STEPS, z=STEPS, wanted=st.tuples(STEPS, STEPS, STEPS))
def test_a_grid_keeps_places(x: float, y: float, z: float, wanted: tuple[float, float, float]) -> None:
    """A ramp along each axis has the same value at the same place on any grid."""
    shape = (8, 12, 10)
    ramp = np.fromfunction(lambda k, j, i: 1 + i / 40 + j / 50 + k / 60, shape).astype(np.float32)
    image = replace(volume(ramp, (x, y, z)))
    inputs = make_inputs(Acquisition(image), np.ones(shape, bool))
    grid = inputs.grid(wanted, ("swi",))
    k, j, i = (n // 2 for n in grid.values.shape[1:])
    at = grid.to_crop(np.array([i, j, k], float))
    assert np.allclose(grid.from_crop(at), (i, j, k))
    inside = ((at >= 1) & (at <= np.array(shape[::-1]) - 2)).all() and min(grid.values.shape[1:]) > 4
    if inside:
        here = (1 + at[0] / 40 + at[1] / 50 + at[2] / 60) / np.median(ramp)
        assert float(grid.values[0, k, j, i]) == pytest.approx(here, abs=0.02)


def test_a_voxel_close_to_the_step_is_not_resampled() -> None:
    inputs = _inputs()
    grid = inputs.grid((1.05, None, 2.0), ("swi",))
    assert torch.equal(grid.values[0], torch.from_numpy(inputs.swi))


def test_a_patch_at_a_voxel_shows_that_voxel_in_its_middle() -> None:
    images, brain = labelled(1)
    inputs = make_inputs(images.acquisition, brain)
    at = np.array([[30.0, 25.0, 7.0], [33.0, 40.0, 9.0]])
    patches = cut_patches(inputs, at, (3, 5, 5), (1.0, 1.0, 2.0), ("swi", "brain"))
    assert patches.shape == (2, 2, 3, 5, 5)
    for patch, (i, j, k) in zip(patches, inputs.to_crop(at).astype(int), strict=True):
        assert torch.allclose(
            patch[0], torch.from_numpy(inputs.swi[k - 1 : k + 2, j - 2 : j + 3, i - 2 : i + 3]), atol=1e-4
        )


def test_a_patch_has_the_same_size_in_mm_for_any_slice_thickness() -> None:
    """The same ball in voxels of 1 mm and of 2 mm slices gives nearly the same patch."""
    seen = []
    for step, slices in ((1.0, 41), (2.0, 21)):
        k, j, i = np.meshgrid(np.arange(slices) * step - 20, np.arange(41) - 20.0, np.arange(41) - 20.0, indexing="ij")
        ball = (1 - 0.8 * np.exp(-(k**2 + j**2 + i**2) / 18)).astype(np.float32)
        inputs = make_inputs(Acquisition(volume(ball, (1.0, 1.0, step))), np.ones(ball.shape, bool))
        seen.append(cut_patches(inputs, np.array([[20.0, 20.0, 20 / step]]), (7, 9, 9), (1.0, 1.0, 2.0), ("swi",)))
    assert torch.allclose(seen[0], seen[1], atol=0.02)
