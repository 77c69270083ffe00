"""The dipole convolution against the two bodies whose field is known."""

from __future__ import annotations

import numpy as np
import pytest

from training.simulation.field import dipole_field, shim

N = 96
STEP = 1.0


def _grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    at = (np.arange(N) - N / 2) * STEP
    return np.meshgrid(at, at, at, indexing="ij")


def _soft(distance: np.ndarray) -> np.ndarray:
    """Volume fraction of a body from its signed distance."""
    return np.clip(0.5 - distance / STEP, 0, 1)


@pytest.mark.parametrize("b0", [(0.0, 0.0, 1.0), (0.0, np.sin(0.3), np.cos(0.3))])
def test_a_sphere_has_the_field_of_theory(b0: tuple[float, float, float]) -> None:
    z, y, x = _grid()
    r = np.sqrt(x**2 + y**2 + z**2)
    a = 4.0
    field = dipole_field(_soft(r - a).astype(np.float32), (STEP,) * 3, b0, padding=(N, N, N))
    volume = _soft(r - a).sum() * STEP**3
    along = (x * b0[0] + y * b0[1] + z * b0[2]) / np.maximum(r, 1e-9)
    theory = volume / (4 * np.pi) * (3 * along**2 - 1) / np.maximum(r, 1e-9) ** 3
    outside = (r > 1.5 * a) & (r < 40)
    assert np.sqrt(np.mean((field - theory)[outside] ** 2)) < 0.0005
    assert np.abs(field[r < a - 2]).max() < 0.02


def test_a_cylinder_across_the_field_has_the_field_of_theory() -> None:
    z, y = (v[:, :, :8] for v in _grid()[:2])
    rho = np.sqrt(z**2 + y**2)  # endless along x (the grid is periodic), the field along z
    a = 5.0
    inside = _soft(rho - a)
    field = dipole_field(inside.astype(np.float32), (STEP,) * 3, (0.0, 0.0, 1.0), padding=(N, N, 0))
    area = inside[:, :, 0].sum() * STEP**2
    theory = area / (2 * np.pi) * (z**2 - y**2) / np.maximum(rho, 1e-9) ** 4
    outside = (rho > 1.6 * a) & (rho < 30)
    assert np.sqrt(np.mean((field - theory)[outside] ** 2)) < 0.0005
    assert field[rho < a - 2].mean() == pytest.approx(-1 / 6, abs=0.002)


def test_the_shim_takes_out_what_a_second_order_coil_can() -> None:
    z, y, x = (v / N for v in _grid())
    slow = (0.4 + 0.3 * x - 0.2 * y * z + 0.5 * z**2).astype(np.float32)
    rest = (0.05 * np.sin(40 * x)).astype(np.float32)
    shimmed = shim(slow + rest, np.ones(slow.shape, dtype=bool))
    assert np.abs(shimmed - rest).max() < 0.02


def test_a_field_without_any_brain_is_left_alone() -> None:
    field = np.ones((4, 4, 4), dtype=np.float32)
    assert np.array_equal(shim(field.copy(), np.zeros(field.shape, dtype=bool)), field)
