"""An SWI from magnitude and phase: slow phase removed, paramagnetic darkened."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.read.swi import SwiParameters, hann_window, high_pass_phase, phase_mask, susceptibility_weighted


@given(st.integers(4, 70), st.integers(4, 70), st.integers(2, 64))
def test_the_window_is_one_at_rest_and_ends_at_half_its_width(rows: int, columns: int, width: int) -> None:
    window = hann_window((rows, columns), width)
    assert window[0, 0] == 1
    assert window.min() >= 0
    assert window.max() == 1
    beyond = np.abs(np.fft.fftfreq(rows, 1 / rows)) >= width / 2
    assert not window[beyond].any()


def test_slow_phase_goes_and_small_structures_stay() -> None:
    y, x = np.mgrid[:128, :128]
    slow = 6 * np.sin(2 * np.pi * x / 128) + 4 * np.cos(2 * np.pi * y / 128)
    spot = np.where((x - 64) ** 2 + (y - 64) ** 2 < 2, 1.0, 0.0)
    wrapped = np.angle(np.exp(1j * (slow + spot)))[None]
    filtered = high_pass_phase(wrapped, hann_width=32)[0]
    assert filtered.dtype == np.float32
    assert np.abs(filtered[spot == 0]).mean() < 0.05
    assert filtered[64, 64] == pytest.approx(1.0, abs=0.2)


@given(st.floats(-3.14, 3.14))
def test_the_mask_darkens_one_sign_only(phase: float) -> None:
    assert phase_mask(np.array([phase]))[0] == pytest.approx(1 - max(phase, 0) / np.pi, abs=1e-6)
    assert phase_mask(np.array([phase]), -1)[0] == pytest.approx(1 - max(-phase, 0) / np.pi, abs=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_paramagnetic_spot_is_darkened_by_the_power_of_the_mask(sign: int) -> None:
    _, y, x = np.mgrid[:2, :128, :128]
    spot = (x - 64) ** 2 + (y - 64) ** 2 < 2
    magnitude = np.full(spot.shape, 100.0)
    dark = susceptibility_weighted(magnitude, sign * 1.5 * spot, SwiParameters(32, 4, sign))
    assert dark[0, 64, 64] == pytest.approx(100 * (1 - 1.5 / np.pi) ** 4, rel=0.25)
    assert np.median(dark) == pytest.approx(100, rel=0.02)
    bright = susceptibility_weighted(magnitude, -sign * 1.5 * spot, SwiParameters(32, 4, sign))
    assert bright[0, 64, 64] == pytest.approx(100, rel=0.02)
