"""Noise, ghosts and coverage are measured as they are, and said in short sentences."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.findings import ImageQuality
from pipeline.geometry import Acquisition, Geometry, Volume
from pipeline.parameters import QualityParameters
from pipeline.profile import load_profile
from pipeline.quality import assess, cut_off, measure_noise, outside, remarks
from training.simulation.kspace import move

SHAPE = (24, 128, 112)
SPACING = (1.8, 1.8, 3.0)
LEVEL = 600.0
LIMITS = QualityParameters()


@cache
def head() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A head with some structure, in the middle of much air; and its brain."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    radius = np.sqrt((i / 0.6) ** 2 + (j / 0.65) ** 2 + (k / 1.2) ** 2)
    texture = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal(SHAPE), (1, 3, 3))
    image = np.where(radius < 0.85, LEVEL * (1 + 2 * texture), np.where((radius > 0.92) & (radius < 1), 500, 0))
    return image.astype(np.float32), radius < 0.84


def volume(array: NDArray[np.floating]) -> Volume:
    return Volume(array.astype(np.float32), Geometry(SHAPE, np.diag([*SPACING, 1.0])), (), "1")


def scan(snr: float, motion_mm: float = 0.0, axis: int = 1) -> NDArray[np.complex64]:
    """The head as a scanner gives it, complex; phase-encoding along `axis`."""
    rng = np.random.default_rng(11)
    spectrum = scipy.fft.fftn(head()[0].astype(np.complex64))
    turned = np.ascontiguousarray(np.swapaxes(spectrum, 1, axis))
    moved = np.swapaxes(move(turned, SPACING, motion_mm, rng), 1, axis)
    noise = rng.standard_normal((2, *SHAPE)) * LEVEL / snr
    return np.asarray(scipy.fft.ifftn(moved) + noise[0] + 1j * noise[1], np.complex64)


def masked(image: NDArray[np.complex64]) -> NDArray[np.float32]:
    """An SWI of it: the magnitude times the fourth power of the negative phase mask (Haacke 2004)."""
    mask = np.clip(1 + np.angle(image) / np.pi, 0, 1)
    return np.asarray(np.abs(image) * mask**4, np.float32)


def magnitude_only(image: NDArray[np.floating]) -> Acquisition:
    return Acquisition(volume(image), sequence="t2star")


@pytest.mark.parametrize("snr", [8, 16, 32])
def test_noise_is_measured_in_air(snr: float) -> None:
    image, brain = scan(snr), head()[1]
    both = measure_noise(Acquisition(volume(masked(image)), magnitude=volume(np.abs(image))), brain)
    alone = measure_noise(Acquisition(volume(masked(image))), brain)
    assert both is not None
    assert alone is not None
    assert both.where == alone.where == "air"
    assert both.snr == pytest.approx(snr, rel=0.1)
    assert alone.snr == pytest.approx(snr, rel=0.15)


@pytest.mark.parametrize("factor", [0.01, 1, 1000])
def test_the_unit_of_the_images_does_not_matter(factor: float) -> None:
    image, brain = np.abs(scan(15)) * factor, head()[1]
    noise = measure_noise(magnitude_only(image), brain)
    assert noise is not None
    assert noise.snr == pytest.approx(15, rel=0.06)


@pytest.mark.parametrize("snr", [8, 16])
def test_noise_is_measured_in_the_brain_where_the_air_was_blanked(snr: float) -> None:
    image, brain = np.abs(scan(snr)), head()[1]
    image[head()[0] == 0] = 0
    noise = measure_noise(magnitude_only(image), brain)
    assert noise is not None
    assert (noise.where, noise.unequal) == ("brain", None)
    assert noise.snr == pytest.approx(snr, rel=0.15)


@pytest.mark.parametrize("axis", [1, 2])
def test_motion_shows_as_ghosts_in_either_phase_encoding_direction(axis: int) -> None:
    brain = head()[1]
    still, moved = (measure_noise(magnitude_only(np.abs(scan(20, mm, axis))), brain) for mm in (0, 4))
    assert still is not None
    assert moved is not None
    assert still.unequal is not None
    assert moved.unequal is not None
    assert still.unequal < 1.1 < LIMITS.most_motion < moved.unequal


def test_motion_is_not_measured_where_no_air_is_in_view() -> None:
    image, brain = np.abs(scan(20)), head()[1]
    cut = (slice(4, -4), slice(32, -32), slice(28, -28))
    tight = Volume(image[cut], Geometry(image[cut].shape, np.diag([*SPACING, 1.0])), (), "1")
    noise = measure_noise(Acquisition(tight, sequence="t2star"), brain[cut])
    assert noise is not None
    assert (noise.where, noise.unequal) == ("brain", None)


def test_nothing_is_claimed_of_images_without_a_brain() -> None:
    quality, _ = assess(magnitude_only(np.abs(scan(20))), np.zeros(SHAPE, bool), load_profile("frst"))
    assert (quality.snr, quality.snr_from, quality.motion) == (None, None, None)


def test_good_images_are_not_remarked_on() -> None:
    profile = load_profile("frst").model_copy(update={"suits": load_profile("frst").suits.model_copy(
        update={"in_plane_mm": (0.3, 2.0)})})  # fmt: skip
    quality, said = assess(magnitude_only(np.abs(scan(20))), head()[1], profile, coverage=0.99)
    assert said == []
    assert (quality.in_plane_mm, quality.slice_mm, quality.coverage, quality.snr_from) == (1.8, 3.0, 0.99, "air")


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        ({"coverage": 0.72}, "cover 72 % of the brain"),
        ({"snr": 6.2}, "noisy (SNR 6)"),
        ({"motion": 2.4}, "signs of motion"),
    ],
)
def test_what_is_beyond_a_limit_is_said(worse: dict[str, float], words: str) -> None:
    good = ImageQuality(in_plane_mm=0.5, slice_mm=2, coverage=0.98, snr=18, snr_from="air", motion=1.02)
    assert remarks(good, LIMITS) == []
    (sentence,) = remarks(replace(good, **worse), LIMITS)
    assert words in sentence
    assert len(sentence) < 100


def test_slices_that_end_inside_the_brain_are_named_by_their_end() -> None:
    brain = head()[1]
    upright, turned = (Geometry(SHAPE, np.diag([1.8, 1.8, step, 1])) for step in (3.0, -3.0))
    assert cut_off(brain, upright, LIMITS) == []
    (top,) = cut_off(brain[:12], upright, LIMITS)
    (bottom,) = cut_off(brain[:12], turned, LIMITS)
    assert "its top" in top
    assert "its bottom" in bottom


def test_what_a_profile_was_not_trained_on_is_said() -> None:
    profile = load_profile("frst")
    suits = profile.suits.model_copy(update={"field_strength_t": (2.5, 3.5), "echo_time_ms": (15.0, 25.0)})
    profile = profile.model_copy(update={"suits": suits})
    image = volume(head()[0])
    said = outside(Acquisition(image, echo_time_ms=40.0, field_strength_t=1.5), profile)
    assert [sentence.split(" is outside")[0] for sentence in said] == [
        "voxel size 1.80 mm",
        "field strength 1.50 T",
        "echo time 40.00 ms",
    ]


@pytest.mark.parametrize(("field_strength_t", "warns"), [(1.5, False), (3.0, False), (7.0, True), (0.55, True)])
def test_the_default_profile_is_meant_for_1_5_and_3_t(field_strength_t: float, warns: bool) -> None:
    image = Volume(np.zeros((2, 2, 2), np.float32), Geometry((2, 2, 2), np.diag([0.8, 0.8, 2.0, 1.0])), ())
    said = outside(Acquisition(image, echo_time_ms=20.0, field_strength_t=field_strength_t), load_profile("default"))
    assert ["field strength" in sentence for sentence in said] == [True] * warns
