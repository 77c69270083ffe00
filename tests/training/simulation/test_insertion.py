"""The one insertion: exact where it must be exact, and blooming as bleeds do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.geometry import Geometry
from pipeline.read.swi import phase_mask
from training.simulation.inclusion import Inclusion, InclusionKind, Sphere
from training.simulation.insertion import Physics, change, insert


def _bleed(
    radius: float = 1.2, chi: float = 1.0, kind: InclusionKind = InclusionKind.BLEED, density: float = 1.0
) -> Inclusion:
    return Inclusion(kind, (Sphere((0.1, 0.05, -0.1), radius, chi, density),))


def _swi(signal: np.ndarray) -> np.ndarray:
    """SWI of a block whose background phase is zero."""
    return np.abs(signal) * phase_mask(np.angle(signal)) ** 4


def _apparent_volume(signal: np.ndarray, grid: Geometry, level: float = 0.5) -> float:
    return float((_swi(signal) < level).sum()) * grid.voxel_volume


def test_a_null_inclusion_changes_nothing(block) -> None:
    signal, grid = block()
    null = _bleed(chi=0.0, kind=InclusionKind.NULL)
    assert null.is_null
    assert change(signal, grid, null, Physics(3.0, 20.0)) is None
    assert np.array_equal(insert(signal, grid, (null,), Physics(3.0, 20.0)), signal)


def test_a_sphere_outside_the_image_changes_nothing(block) -> None:
    signal, grid = block()
    far = Inclusion(InclusionKind.BLEED, (Sphere((500.0, 0.0, 0.0), 1.0, 1.0),))
    assert change(signal, grid, far, Physics(3.0, 20.0)) is None


def test_the_phase_round_a_sphere_is_that_of_a_dipole(block) -> None:
    signal, grid = block((48, 48, 48))
    physics = Physics(3.0, 10.0)
    sphere = Sphere((0.0, 0.0, 0.0), 2.0, 0.5)
    made = insert(signal, grid, (Inclusion(InclusionKind.BLEED, (sphere,)),), physics)
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    p = grid.to_lps(np.stack([i, j, k], axis=-1))
    r = np.linalg.norm(p, axis=-1)
    theory = physics.radians_per_ppm * 0.5 / 3 * (2.0 / r) ** 3 * (3 * (p[..., 2] / r) ** 2 - 1)
    shell = (r > 5) & (r < 9)
    assert np.abs(np.angle(made)[shell] - theory[shell]).max() < 0.02


def test_a_bleed_and_a_mimic_of_the_same_substance_are_the_same_to_the_insertion(block) -> None:
    signal, grid = block()
    physics = Physics(3.0, 20.0)
    bleed, mimic = (
        change(signal, grid, _bleed(kind=k), physics) for k in (InclusionKind.BLEED, InclusionKind.CALCIFICATION)
    )
    assert bleed is not None
    assert mimic is not None
    assert np.array_equal(bleed.delta, mimic.delta)


def test_the_change_fades_to_nothing_at_the_edge_of_its_box(block) -> None:
    signal, grid = block((80, 80, 80))
    made = change(signal, grid, _bleed(0.8), Physics(3.0, 20.0))
    assert made is not None
    edge = np.abs(made.delta).copy()
    edge[1:-1, 1:-1, 1:-1] = 0
    assert edge.max() < 0.02


def test_calcium_turns_the_phase_the_other_way(block) -> None:
    signal, grid = block()
    physics = Physics(3.0, 8.0)
    plus = insert(signal, grid, (_bleed(chi=0.5),), physics)
    minus = insert(signal, grid, (_bleed(chi=-0.5),), physics)
    far = np.abs(np.angle(plus)) > 0.02
    assert np.mean(np.sign(np.angle(plus))[far] == -np.sign(np.angle(minus))[far]) > 0.99


@pytest.mark.parametrize(("radius", "chi"), [(0.7, 1.6), (1.0, 1.4), (1.25, 1.3)])
def test_a_bleed_blooms_to_about_twice_its_size(block, radius: float, chi: float) -> None:
    # In slices of 0.5 × 0.5 × 2 mm, out to where it darkens the tissue by a quarter.
    signal, grid = block((16, 64, 64), (0.5, 0.5, 2.0))
    swi = _swi(insert(signal, grid, (_bleed(radius, chi),), Physics(3.0, 20.0)))
    area = float((swi < 0.75).sum(axis=(1, 2)).max()) * grid.spacing[0] * grid.spacing[1]
    assert 1.5 <= 2 * np.sqrt(area / np.pi) / (2 * radius) <= 2.5


def test_from_20_to_40_ms_a_bleed_grows_as_measured(block) -> None:
    # Liu 2012: the SWI volume grows 2.3 ± 1.2 times.
    signal, grid = block()
    ratios = []
    for radius, chi in ((0.8, 1.0), (1.0, 0.8), (1.3, 0.9)):
        short, long = (
            _apparent_volume(insert(signal, grid, (_bleed(radius, chi),), Physics(3.0, te)), grid)
            for te in (20.0, 40.0)
        )
        ratios.append(long / short)
    assert 1.1 <= np.mean(ratios) <= 3.5


@settings(max_examples=20)
@given(
    radius=st.floats(0.3, 2.5),
    chi=st.floats(-3, 4),
    density=st.floats(0, 1),
    x=st.floats(-6, 6),
    y=st.floats(-6, 6),
    z=st.floats(-6, 6),
)
def test_no_insertion_makes_signal_out_of_nothing(radius, chi, density, x, y, z) -> None:
    affine = np.diag([0.8, 0.8, 2.0, 1.0])
    affine[:3, 3] = [-10, -10, -8]
    grid = Geometry((9, 26, 26), affine)
    signal = np.full(grid.shape, 2.0 + 1.0j, dtype=np.complex64)
    made = insert(
        signal, grid, (Inclusion(InclusionKind.BLEED, (Sphere((x, y, z), radius, chi, density),)),), Physics(3.0, 20.0)
    )
    assert np.abs(made).max() <= np.abs(signal).max() * 1.0001
    assert np.isfinite(made).all()


@pytest.mark.parametrize("radius", [0.0, -1.0, 31.0])
def test_an_impossible_sphere_is_refused(radius: float) -> None:
    with pytest.raises(InputError, match="radius"):
        Sphere((0.0, 0.0, 0.0), radius, 1.0)
