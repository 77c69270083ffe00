"""Skull removal: how much of the brain is kept, in which images, and what it says when it cannot."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.brain import extract_brain, implausible
from pipeline.errors import InputError
from pipeline.geometry import Volume
from pipeline.parameters import BrainParameters

from . import phantom

pytestmark = pytest.mark.slow


def test_the_brain_of_a_shaded_noisy_head_is_found() -> None:
    image, truth = phantom.head(noise=0.05, shading=0.5)
    assert phantom.dice(extract_brain(phantom.volume(image)), truth) > 0.93


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 4.0), (1.0, 1.0, 1.5), (1.0, 1.0, 5.0)])
def test_the_voxel_size_does_not_matter(spacing: tuple[float, float, float]) -> None:
    extent = np.multiply(phantom.SHAPE, phantom.SPACING[::-1])
    k, j, i = (round(e / s) for e, s in zip(extent, spacing[::-1], strict=True))
    image, truth = phantom.head(shape=(k, j, i), spacing=spacing)
    assert phantom.dice(extract_brain(phantom.volume(image, spacing)), truth) > 0.93


def test_a_slab_through_the_brain_is_enough() -> None:
    image, truth = phantom.head()
    slab = phantom.volume(image[20:34])
    mask = extract_brain(slab)
    assert phantom.dice(mask, truth[20:34]) > 0.93
    assert implausible(mask, slab) is None


@pytest.mark.parametrize("scale", [1e-4, 1e3])
def test_the_unit_of_the_image_does_not_matter(scale: float) -> None:
    image, truth = phantom.head()
    scaled = phantom.volume(image * np.float32(scale))
    assert phantom.dice(extract_brain(scaled, BrainParameters(grid_mm=2.0)), truth) > 0.93


def test_swi_and_magnitude_of_the_demo_study_give_the_same_brain_with_every_bleed_in_it() -> None:
    demo = phantom.demo()
    assert demo.magnitude is not None
    by_magnitude, by_swi = extract_brain(demo.magnitude), extract_brain(demo.swi)
    assert phantom.dice(by_magnitude, by_swi) > 0.95
    assert implausible(by_magnitude, demo.swi) is None
    for lesion in json.loads((phantom.DEMO / "truth.json").read_text())["lesions"]:
        i, j, k = demo.swi.geometry.to_ijk(lesion["centre_lps_mm"]).round().astype(int)
        assert by_magnitude[k, j, i]


def test_a_mask_that_is_no_brain_is_called_implausible() -> None:
    volume = phantom.acquisition().swi
    speck, all_of_it = np.zeros(volume.array.shape, bool), np.ones(volume.array.shape, bool)
    speck[20:25, 50:70, 50:70] = True
    assert "5 ml" in (implausible(speck, volume) or "")
    assert "implausible" in (implausible(all_of_it, volume) or "")


def _nan(image: np.ndarray) -> np.ndarray:
    image[3, 40, 40] = np.nan
    return image


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((20, 64, 64), np.float32), "every voxel of the image is 0"),
        (np.full((20, 64, 64), 7, np.float32), "every voxel of the image is 7"),
        (_nan(np.ones((20, 64, 64), np.float32)), "not numbers"),
        (phantom.head()[0][:1], "1 slice"),
        (phantom.head()[0][:, :20, :20], "only 20×20"),
        (np.random.default_rng(1).normal(0, 1, (20, 64, 64)).astype(np.float32), "no brain"),
    ],
    ids=["zero", "constant", "nan", "one slice", "tiny", "noise"],
)
def test_an_image_without_a_brain_is_refused_in_one_line(array: np.ndarray, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        extract_brain(phantom.volume(array))
    assert "\n" not in str(caught.value)
    assert "series 1.2.3" in str(caught.value)


def test_an_array_that_is_not_a_volume_is_refused() -> None:
    good = phantom.acquisition().swi
    flat: Volume = replace(good, array=good.array[0])
    with pytest.raises(InputError, match="not \\(slices, rows, columns\\)"):
        extract_brain(flat)
