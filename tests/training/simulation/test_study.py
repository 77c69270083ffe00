"""A whole study: determinism, truth, and what the scan may not do to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import InputError
from training.simulation.inclusion import Inclusion, InclusionKind, Sphere
from training.simulation.lesion_sampling import LesionParameters, draw_inclusions
from training.simulation.protocol import PhaseFilter, Protocol, Sequence, SwiFilter
from training.simulation.scene import Scene, make_scene
from training.simulation.sites import Sites
from training.simulation.study import simulate
from training.simulation.visibility import NOT_SEEN

pytestmark = pytest.mark.slow

PROTOCOL = Protocol(voxel_mm=(1.5, 1.5, 3.0), snr=25)


def _inclusion(
    scene: Scene, kind: InclusionKind, chi: float, mni: tuple[float, float, float], radius: float = 1.8
) -> Inclusion:
    at = scene.head.to_mni.inverse(np.array([mni]))[0]
    return Inclusion(kind, (Sphere((float(at[0]), float(at[1]), float(at[2])), radius, chi),))


def test_the_same_seed_gives_the_same_study(scene: Scene) -> None:
    inclusions = (_inclusion(scene, InclusionKind.BLEED, 1.0, (25.0, 40.0, 25.0)),)
    first, again, other = (simulate(scene, replace(PROTOCOL, motion_mm=0.5), inclusions, seed) for seed in (5, 5, 6))
    assert np.array_equal(first.images.swi, again.images.swi)
    assert first.truth.entries == again.truth.entries
    assert not np.array_equal(first.images.swi, other.images.swi)


def test_the_same_seed_builds_the_same_scene(scene: Scene) -> None:
    from training.simulation.anatomy import AnatomyRef, load_anatomy

    again = make_scene(load_anatomy(AnatomyRef("icbm152")), scene.parameters, scene.seed)
    assert np.array_equal(again.field_ppm, scene.field_ppm)
    assert np.array_equal(again.veins.fraction, scene.veins.fraction)


def test_a_large_bleed_is_visible_and_a_null_is_not(scene: Scene) -> None:
    bleed = _inclusion(scene, InclusionKind.BLEED, 1.0, (25.0, 40.0, 25.0))
    null = _inclusion(scene, InclusionKind.NULL, 0.0, (-25.0, 40.0, 25.0))
    truth = simulate(scene, PROTOCOL, (bleed, null), 1).truth
    seen, unseen = truth.entries
    assert seen.seen.visible
    assert seen.label == 1
    assert (truth.labels == 1).sum() > 1
    assert unseen.seen == NOT_SEEN
    assert unseen.label == 0


def test_the_mask_lies_where_the_bleed_is(scene: Scene) -> None:
    bleed = _inclusion(scene, InclusionKind.BLEED, 1.0, (25.0, 40.0, 25.0))
    study = simulate(scene, PROTOCOL, (bleed,), 1)
    k, j, i = np.argwhere(study.truth.labels == 1).mean(axis=0)
    centre = study.images.geometry.to_lps([i, j, k])
    assert np.linalg.norm(centre - np.array(bleed.centre_lps_mm)) < 2.0


def test_null_insertions_leave_the_images_untouched(scene: Scene) -> None:
    null = _inclusion(scene, InclusionKind.NULL, 0.0, (25.0, 40.0, 25.0))
    assert np.array_equal(simulate(scene, PROTOCOL, (null,), 2).images.swi, simulate(scene, PROTOCOL, (), 2).images.swi)


@pytest.mark.parametrize("field_strength", [1.5, 3.0, 7.0])
def test_white_matter_is_about_one_at_every_field_strength(scene: Scene, field_strength: float) -> None:
    protocol = replace(PROTOCOL, field_strength_t=field_strength, shading=0.0)
    images = simulate(scene, protocol, (), 1).images
    white = scene.head.white[::2][: images.swi.shape[0]] > 250
    assert np.median(images.magnitude[white]) == pytest.approx(1.0, abs=0.15)


def test_an_unwrapping_scanner_shows_the_same_bleed(scene: Scene) -> None:
    bleed = _inclusion(scene, InclusionKind.BLEED, 1.0, (25.0, 40.0, 25.0))
    how = SwiFilter(PhaseFilter.UNWRAP, sigma_mm=4.0)
    assert simulate(scene, replace(PROTOCOL, filter=how), (bleed,), 1).truth.entries[0].seen.visible


def test_a_2d_sequence_gives_a_magnitude_with_the_bleed(scene: Scene) -> None:
    bleed = _inclusion(scene, InclusionKind.BLEED, 1.5, (25.0, 40.0, 25.0), 2.3)
    protocol = replace(PROTOCOL, sequence=Sequence.T2STAR_2D, voxel_mm=(1.5, 1.5, 6.0), repetition_time_ms=600)
    study = simulate(scene, protocol, (bleed,), 1)
    assert study.images.geometry.shape[0] == 22
    assert np.array_equal(study.images.swi, study.images.magnitude)
    assert study.truth.entries[0].seen.contrast > 0.25


def test_zero_filling_and_partial_fourier_keep_place_and_level(scene: Scene) -> None:
    bleed = _inclusion(scene, InclusionKind.BLEED, 1.0, (25.0, 40.0, 25.0))
    plain = simulate(scene, PROTOCOL, (bleed,), 1)
    filled = simulate(scene, replace(PROTOCOL, zero_fill=2.0, partial_fourier=(0.75, 0.875)), (bleed,), 1)
    assert filled.images.geometry.shape[1] == 2 * plain.images.geometry.shape[1]
    centres = []
    for study in (plain, filled):
        k, j, i = np.argwhere(study.truth.labels == 1).mean(axis=0)
        centres.append(study.images.geometry.to_lps([i, j, k]))
    assert np.linalg.norm(centres[0] - centres[1]) < 1.5


def test_counts_are_realistic(sites: Sites) -> None:
    rng = np.random.default_rng(0)
    p = LesionParameters(calcifications=0, cavernomas=0, iron=0, nulls=0)
    counts = np.array([len(draw_inclusions(sites, p, rng)) for _ in range(300)])
    assert 0.25 < np.mean(counts == 0) < 0.42
    assert np.median(counts[counts > 0]) <= 5
    assert counts.max() <= 50


def test_bleeds_fall_in_every_region(sites: Sites) -> None:
    rng = np.random.default_rng(0)
    drawn = [i for _ in range(20) for i in draw_inclusions(sites, LesionParameters(free_share=0, median_count=10), rng)]
    assert {i.region for i in drawn if i.kind is InclusionKind.BLEED} == {"lobar", "deep", "infratentorial"}
    assert {i.side for i in drawn} == {"left", "right", "midline"}
    assert {InclusionKind.BLEED, InclusionKind.CALCIFICATION, InclusionKind.NULL} <= {i.kind for i in drawn}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"echo_time_ms": 30.0}, "does not fit in a repetition time"),
        ({"voxel_mm": (20.0, 20.0, 20.0)}, "voxel"),
        ({"field_strength_t": 0.0}, "field strength"),
        ({"flip_angle_deg": 0.0}, "flip angle"),
        ({"snr": 0.0}, "signal-to-noise"),
        ({"partial_fourier": (0.4, 1.0)}, "partial Fourier"),
        ({"window": 2.0}, "window"),
        ({"motion_mm": -1.0}, "motion"),
    ],
)
def test_an_impossible_protocol_is_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        replace(PROTOCOL, **changes)


def test_a_voxel_finer_than_the_physics_is_refused(scene: Scene) -> None:
    with pytest.raises(InputError, match="finer than the simulated"):
        simulate(scene, replace(PROTOCOL, voxel_mm=(0.5, 0.5, 3.0)), (), 1)


def test_a_voxel_as_large_as_the_head_is_refused(scene: Scene) -> None:
    small = replace(scene.head.geometry, shape=(8, 8, 8))
    from training.simulation.kspace import matrix

    with pytest.raises(InputError, match="fewer than four samples"):
        matrix(small, replace(PROTOCOL, voxel_mm=(12.0, 12.0, 12.0)))
