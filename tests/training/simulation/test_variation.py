"""Domain randomisation: each variation does what it says, and a cohort that does not ask for it stays as it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import Geometry
from training.simulation.anatomy import AnatomyRef
from training.simulation.cohort import load_cohort
from training.simulation.cohort.scan_settings import draw_protocol, draw_scene, head_tasks
from training.simulation.cohort.studies import used_parameters
from training.simulation.filters import filtered_phase, shaped_mask
from training.simulation.head_parameters import HeadParameters, HeadVariation, draw_head
from training.simulation.inclusion import InclusionKind
from training.simulation.kspace import image_geometry, matrix, reconstruct, sample
from training.simulation.lesion_sampling import Clusters, LesionParameters, draw_inclusions
from training.simulation.noise import colour, g_factor, local_bias
from training.simulation.protocol import (
    Apodisation,
    MaskShape,
    NoiseModel,
    PhaseFilter,
    Protocol,
    Sequence,
    SwiFilter,
)
from training.simulation.scene import Scene
from training.simulation.sites import Sites
from training.simulation.study import simulate
from training.simulation.veins.mimics import ends_and_bends
from training.simulation.veins.short import ShortVeins, grow_short_veins

COARSE = Protocol(voxel_mm=(3.0, 3.0, 6.0))
BEFORE = {
    "dense": "1d90a242d3190d7d",
    "high-resolution": "58fd045556ecfe68",
    "low-resolution": "de2e9d23af065806",
    "stress": "ce6d7ded8934fd35",
    "varied": "8df59725acbafd68",
}
"""What the cohorts drew before there was anything of this module."""


def drawn(name: str) -> str:
    """Hash of the cohort's digest and of what is drawn for the first studies of each of its sets."""
    cohort = load_cohort(name)
    digest = hashlib.sha256(cohort.digest.encode())
    for one in cohort.sets:
        task = head_tasks(cohort, one, (AnatomyRef("icbm152"),))[0]
        for study in task.studies:
            protocol = draw_protocol(one.protocol, study, np.random.default_rng([task.study_seed(study), 6]))
            parameters = used_parameters({"scene": draw_scene(task), "protocol": protocol})
            digest.update(json.dumps(parameters, sort_keys=True).encode())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize(("name", "before"), BEFORE.items())
def test_a_cohort_without_variations_draws_what_it_always_drew(name: str, before: str) -> None:
    assert drawn(name) == before


def test_neutral_settings_give_the_images_that_none_give(scene: Scene) -> None:
    neutral = replace(COARSE, filter=SwiFilter(mask=MaskShape.LINEAR), apodisation=Apodisation.TUKEY, slice_fill=1.0)
    plain, same = simulate(scene, COARSE, (), 5).images, simulate(scene, neutral, (), 5).images
    assert (plain.swi == same.swi).all()
    assert (plain.phase == same.phase).all()
    white = simulate(scene, replace(COARSE, noise=NoiseModel()), (), 5).images
    assert np.allclose(white.magnitude, plain.magnitude, atol=1e-4)


@pytest.mark.parametrize("exponent", [-0.5, 0.6])
def test_coloured_noise_has_its_slope_and_the_same_power(exponent: float) -> None:
    rng = np.random.default_rng(1)
    white = (rng.standard_normal((24, 32, 32)) + 1j * rng.standard_normal((24, 32, 32))).astype(np.complex64)
    coloured = colour(white, exponent)
    assert np.mean(np.abs(coloured) ** 2) == pytest.approx(2, rel=0.1)
    f = [scipy.fft.fftfreq(n) for n in white.shape]
    radius = np.sqrt(f[0][:, None, None] ** 2 + f[1][None, :, None] ** 2 + f[2] ** 2)
    low, high = ((radius > a) & (radius < b) for a, b in ((0.1, 0.15), (0.4, 0.5)))
    ratio = np.mean(np.abs(coloured[low]) ** 2) / np.mean(np.abs(coloured[high]) ** 2)
    assert ratio == pytest.approx((0.45 / 0.125) ** (2 * exponent), rel=0.3)


def test_noise_is_amplified_where_the_g_factor_says_and_bias_is_smooth() -> None:
    rng = np.random.default_rng(2)
    amplified = g_factor((8, 40, 32), NoiseModel(g_factor=2.5, acceleration=3), rng)
    assert amplified.shape == (8, 40, 32)
    assert (amplified.min() >= 1, amplified.max()) == (True, pytest.approx(2.5))
    bias = local_bias((8, 40, 32), 0.2, rng)
    assert np.log(bias).std() == pytest.approx(0.2, rel=0.05)
    assert np.abs(np.diff(bias, axis=1)).max() < 0.15


@pytest.mark.parametrize("shape", list(MaskShape))
def test_every_mask_darkens_blood_and_leaves_tissue(shape: MaskShape) -> None:
    mask = shaped_mask(np.linspace(0, np.pi, 9, dtype=np.float32), shape)
    assert mask[0] > 0.97
    assert mask[-1] < 0.03
    assert (np.diff(mask) <= 0).all()
    calcium = shaped_mask(np.array([-2.0], np.float32), shape)[0]
    assert (calcium < 0.5) == (shape is MaskShape.TRIANGLE)


@pytest.mark.parametrize("kind", [PhaseFilter.GAUSSIAN, PhaseFilter.BUTTERWORTH])
def test_a_filter_takes_out_the_slow_phase_and_keeps_a_small_spot(kind: PhaseFilter) -> None:
    y, x = np.mgrid[:256, :256]
    spot = np.hypot(y - 40, x - 50) < 2.5
    image = np.exp(1j * (0.01 * x + 1.2 * spot))[None].astype(np.complex64)
    phase = filtered_phase(
        image, np.abs(image), np.angle(image), SwiFilter(kind=kind, width=48, sigma_mm=4.0), (0.5, 0.5, 2.0)
    )[0]
    inner = phase[16:-16, 16:-16]
    assert np.abs(np.median(inner)) < 0.05
    assert phase[40, 50] > 0.7


def test_power_none_leaves_the_magnitude(scene: Scene) -> None:
    images = simulate(scene, replace(COARSE, filter=SwiFilter(power=0)), (), 5).images
    assert (images.swi == images.magnitude).all()


def test_slices_can_be_interpolated_overlap_and_fade_at_the_ends_of_the_slab(scene: Scene) -> None:
    filled = replace(COARSE, slice_fill=2.0)
    grid = scene.head.geometry
    plain, twice = image_geometry(grid, COARSE), image_geometry(grid, filled)
    assert twice.shape == (2 * plain.shape[0], *plain.shape[1:])
    assert twice.spacing[2] == pytest.approx(plain.spacing[2] / 2)
    flat = simulate(scene, COARSE, (), 5).images.magnitude
    faded = simulate(scene, replace(COARSE, slab_edge=0.1), (), 5).images.magnitude
    assert faded[0].mean() < 0.8 * flat[0].mean()
    assert faded[11].mean() == pytest.approx(flat[11].mean(), rel=0.05)
    thick = replace(COARSE, sequence=Sequence.T2STAR_2D, slice_width=1.4)
    assert simulate(scene, thick, (), 5).images.magnitude.shape == flat.shape


@given(
    samples=st.tuples(st.integers(16, 31), st.integers(18, 35), st.integers(6, 11)),
    zero_fill=st.sampled_from([1.0, 1.3, 1.5, 2.0]),
    slice_fill=st.sampled_from([None, 1.0, 1.5, 2.0]),
)
def test_an_image_has_the_shape_that_its_protocol_plans(
    samples: tuple[int, int, int], zero_fill: float, slice_fill: float | None
) -> None:
    grid = Geometry((22, 35, 31), np.diag([3.0, 3.0, 3.0, 1.0]))
    x, y, z = (3.0 * fine / n for fine, n in zip((31, 35, 22), samples, strict=True))
    protocol = replace(COARSE, voxel_mm=(x, y, z), zero_fill=zero_fill, slice_fill=slice_fill)
    kspace = sample(np.ones(grid.shape, np.complex64), grid, protocol)
    planned = matrix(grid, protocol)
    assert kspace.shape == planned.acquired
    assert reconstruct(kspace, grid, protocol).shape == planned.image
    assert all(i >= a for i, a in zip(planned.image, planned.acquired, strict=True))


def test_short_veins_lie_in_tissue_and_many_run_across_the_slices(scene: Scene) -> None:
    ground, normal = scene.ground, scene.head.geometry.direction[:, 2]
    short = grow_short_veins(ground, normal, ShortVeins((60, 60), end_on_share=1.0), np.random.default_rng(3))
    assert len(short.centre) == 60
    voxel = np.round(ground.geometry.to_ijk(short.centre)[:, ::-1]).astype(int)
    assert np.mean(ground.inside[tuple(voxel.T)]) > 0.95
    run = short.tree.end - short.tree.start
    assert np.median(np.abs(run @ normal) / np.linalg.norm(run, axis=1)) > 0.8
    assert short.tree.radius.max() <= ShortVeins().radius_mm[1]


def test_ends_and_bends_of_veins_are_known(scene: Scene) -> None:
    short = grow_short_veins(
        scene.ground, scene.head.geometry.direction[:, 2], ShortVeins((30, 30), radius_mm=(0.4, 0.5)),
        np.random.default_rng(4),
    )  # fmt: skip
    places = ends_and_bends(replace(scene, tree=short.tree))
    starts = np.array([place.centre for place in places if place.form == "end"])
    assert len(starts) > 10
    apart = np.linalg.norm(starts[:, None] - starts[None], axis=2)[np.triu_indices(len(starts), 1)]
    assert apart.min() >= 6


def test_a_cluster_puts_microbleeds_close_together(sites: Sites) -> None:
    none = LesionParameters(free_share=1.0, calcifications=0, cavernomas=0, iron=0, nulls=0)
    clusters = Clusters(share=1.0, clusters=(1, 1), members=(8, 8), spread_mm=(5.0, 5.0))
    made = draw_inclusions(sites, none, np.random.default_rng(1), clusters)
    assert 4 <= len(made) <= 8
    assert {i.kind for i in made} == {InclusionKind.BLEED}
    at = np.array([i.spheres[0].centre_lps_mm for i in made])
    apart = np.linalg.norm(at[:, None] - at[None], axis=2)[np.triu_indices(len(at), 1)]
    assert clusters.separation_mm <= apart.min() < 7, "nearer than microbleeds that are drawn one by one"
    assert apart.max() < 40


def test_heads_of_a_set_can_vary_farther() -> None:
    rng = np.random.default_rng(1)
    variation = HeadVariation(scale=(0.8, 0.82), bend_mm=(4.0, 4.0), mirror=True)
    varied = [variation.vary(draw_head(rng), rng) for _ in range(5)]
    assert all(head.mirror and head.bend_mm == 4.0 and np.mean(head.scale) < 0.87 for head in varied)
    assert HeadParameters().bend_mm is None
