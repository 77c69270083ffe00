"""Stored phase becomes radians by what the header declares, and its sign is measured on veins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.read.decoding import Encoding
from pipeline.read.phase import paramagnetic_sign, phase_scale, to_radians

SIEMENS = Encoding(12, False, "MONOCHROME2", slope=2, intercept=-4096)
SIEMENS_STORED = Encoding(12, False, "MONOCHROME2")
PHILIPS = Encoding(12, False, "MONOCHROME2", slope=1.53455, intercept=-3142)
PHILIPS_REAL_WORLD = Encoding(12, False, "MONOCHROME2", real_world=(1.53455, -3142, "1"))
PHILIPS_DISAGREEING = Encoding(12, False, "MONOCHROME2", slope=1.0, real_world=(1.53455, -3142, "mrad"))
GE = Encoding(16, True, "MONOCHROME2", largest=3142)
UIH = Encoding(16, True, "MONOCHROME2", smallest=-4096, largest=4096)
HITACHI = Encoding(16, True, "MONOCHROME2")
RADIANS = Encoding(12, False, "MONOCHROME2", slope=2 * np.pi / 4096, intercept=-np.pi)
MILLIRADIANS_BY_NAME = Encoding(16, True, "MONOCHROME2", rescale_type="mrad")


@pytest.mark.parametrize(
    ("encoding", "vendor", "low", "middle", "high"),
    [
        (SIEMENS, "siemens", 0, 2048, 4096),
        (SIEMENS_STORED, "siemens", 0, 2048, 4096),
        (PHILIPS, "philips", 0, 2047.506, 4095),
        (PHILIPS_REAL_WORLD, "philips", 0, 2047.506, 4095),
        (PHILIPS_DISAGREEING, "philips", 0, 2047.506, 4095),
        (GE, "ge", -3142, 0, 3142),
        (UIH, "uih", -4096, 0, 4096),
        (HITACHI, "hitachi", -2048, 0, 2048),
        (RADIANS, "unheard of", 0, 2048, 4096),
        (MILLIRADIANS_BY_NAME, "unheard of", -3141.6, 0, 3141.6),
    ],
)
def test_the_full_circle_of_each_maker(encoding: Encoding, vendor: str, low: float, middle: float, high: float) -> None:
    (scale,) = phase_scale([encoding], vendor)
    for stored, radians in ((low, -np.pi), (middle, 0), (high, np.pi)):
        assert scale.slope * stored + scale.intercept == pytest.approx(radians, abs=2e-3)
    assert scale.rule
    assert not scale.assumed


@given(st.floats(0.01, 1.0))
def test_weak_phase_is_not_stretched(strength: float) -> None:
    radians = np.linspace(-strength, strength, 64).reshape(1, 8, 8) * 3
    stored = np.rint((radians / np.pi * 4096 + 4096) / 2).astype(np.uint16)
    found, scale = to_radians(stored, [SIEMENS], "siemens")
    np.testing.assert_allclose(found, radians, atol=0.001)
    assert not scale.assumed


def test_slices_are_scaled_each_by_its_own_header() -> None:
    stored = np.full((2, 2, 2), 1000, dtype=np.uint16)
    found, _ = to_radians(stored, [SIEMENS, PHILIPS], "philips")
    assert found[0, 0, 0] == pytest.approx((2000 - 4096) / 4096 * np.pi)
    assert found[1, 0, 0] == pytest.approx((1534.55 - 3142) / 1000, abs=1e-5)


def test_a_ge_series_is_scaled_by_the_largest_of_all_its_slices() -> None:
    encodings = [Encoding(16, True, "MONOCHROME2", largest=value) for value in (2900, 3142)]
    slopes = {scale.slope for scale in phase_scale(encodings, "ge")}
    assert slopes == {np.pi / 3142}


def test_an_unknown_makers_scale_is_said_to_be_assumed() -> None:
    stored = np.array([[[0, 2048, 4095]]], dtype=np.uint16)
    found, scale = to_radians(stored, [SIEMENS_STORED], "unheard of")
    np.testing.assert_allclose(found, [[[-np.pi, 0, np.pi]]], atol=0.002)
    assert scale.assumed


def test_a_scale_that_cannot_be_right_is_an_error() -> None:
    stored = np.full((1, 2, 2), 20_000, dtype=np.int16)
    with pytest.raises(InputError, match="cannot be right"):
        to_radians(stored, [HITACHI], "hitachi")


def veins(rng: np.random.Generator, sign: int, depth: float) -> tuple[Any, Any]:
    """Phase (with a strong background) and image of bright tissue crossed by dark vessels."""
    _, y, x = np.mgrid[:8, :96, :96]
    inside = (x - 48) ** 2 + (y - 48) ** 2 < 42**2
    vessels = inside & ((x + y) % 13 < 2)
    background = 4 * np.sin(x / 40) + 3 * np.cos(y / 50)
    phase = np.angle(np.exp(1j * (background + sign * 1.0 * vessels + rng.normal(0, 0.1, x.shape))))
    image = np.where(inside, 1000 * (1 - depth * vessels), 10) + rng.normal(0, 20, x.shape)
    return phase.astype(np.float32), image.clip(0).astype(np.float32)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("vendor", ["siemens", "ge", ""])
def test_the_sign_is_measured_on_dark_vessels_whoever_made_the_scanner(sign: int, vendor: str) -> None:
    phase, image = veins(np.random.default_rng(1), sign, depth=0.5)
    found = paramagnetic_sign(phase, image, (0.5, 0.5, 2.0), vendor)
    assert (found.sign, found.measured) == (sign, True)


@pytest.mark.parametrize(("vendor", "sign"), [("siemens", 1), ("philips", 1), ("ge", -1), ("", 1)])
def test_where_nothing_is_dark_the_makers_usual_sign_is_taken(vendor: str, sign: int) -> None:
    phase, image = veins(np.random.default_rng(2), 1, depth=0.0)
    found = paramagnetic_sign(phase, image, (0.5, 0.5, 2.0), vendor)
    assert (found.sign, found.measured) == (sign, False)


def test_dark_structures_without_phase_decide_nothing() -> None:
    rng = np.random.default_rng(3)
    _, image = veins(rng, 1, depth=0.5)
    found = paramagnetic_sign(rng.normal(0, 0.3, image.shape).astype(np.float32), image, (0.5, 0.5, 2.0), "ge")
    assert (found.sign, found.measured) == (-1, False)


def test_an_empty_image_decides_nothing() -> None:
    blank = np.zeros((3, 16, 16), dtype=np.float32)
    assert not paramagnetic_sign(blank, blank, (1.0, 1.0, 1.0)).measured
