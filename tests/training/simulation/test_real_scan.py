"""Insertion into a user's own scan: what is there stays, what is inserted is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from training.cli import main
from training.datasets.mark_kinds import BLEED
from training.datasets.simulated import list_simulated
from training.simulation.inclusion import Inclusion, InclusionKind, Sphere
from training.simulation.lesion_sampling import LesionParameters
from training.simulation.protocol import Protocol
from training.simulation.real_scan import insert_into, insert_random, read_dicom_scan, read_nifti_scan
from training.simulation.scene import Scene
from training.simulation.study import SimulatedStudy, simulate
from training.simulation.writers.identity import StudyIdentity
from training.simulation.writers.nifti import save_nifti
from training.simulation.writers.vendors import write_dicom

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def healthy(scene: Scene) -> SimulatedStudy:
    return simulate(scene, Protocol(voxel_mm=(1.5, 1.5, 3.0), snr=30), (), 9)


@pytest.fixture(scope="module")
def bleed(scene: Scene) -> Inclusion:
    at = scene.head.to_mni.inverse(np.array([[25.0, 40.0, 25.0]]))[0]
    return Inclusion(InclusionKind.BLEED, (Sphere((float(at[0]), float(at[1]), float(at[2])), 1.8, 1.4),))


@pytest.fixture
def pair(healthy: SimulatedStudy, tmp_path: Path) -> tuple[Path, Path]:
    images = healthy.images
    return (
        save_nifti(images.magnitude, images.geometry, tmp_path / "m.nii.gz"),
        save_nifti(images.raw_phase, images.geometry, tmp_path / "p.nii.gz"),
    )


def test_a_bleed_is_seen_where_it_was_put_and_nothing_else_changes(pair, bleed: Inclusion) -> None:
    scan = read_nifti_scan(*pair, field_strength_t=3.0, echo_time_ms=20.0)
    with_, without = insert_into(scan, (bleed,), 1), insert_into(scan, (), 1)
    assert with_.truth.entries[0].seen.visible
    far = np.ones(scan.geometry.shape, dtype=bool)
    k, j, i = np.round(scan.geometry.to_ijk(bleed.centre_lps_mm)[::-1]).astype(int)
    far[k - 12 : k + 13, j - 24 : j + 25, i - 24 : i + 25] = False
    assert np.allclose(with_.images.magnitude[far], without.images.magnitude[far], rtol=1e-3)


def test_the_scanners_own_swi_is_kept_where_nothing_is_inserted(healthy, bleed: Inclusion, tmp_path: Path) -> None:
    write_dicom(healthy, StudyIdentity("healthy"), tmp_path)
    scan = read_dicom_scan(tmp_path)
    assert scan.physics.echo_time_ms == 20.0
    same = insert_into(scan, (), 1)
    assert scan.swi is not None
    scale = same.images.swi.max() / scan.swi.max()
    assert np.allclose(same.images.swi, scan.swi * scale, rtol=1e-3, atol=1e-3)
    assert insert_into(scan, (bleed,), 1).truth.entries[0].seen.visible


def test_the_same_seed_inserts_the_same(pair) -> None:
    scan = read_nifti_scan(*pair, field_strength_t=3.0, echo_time_ms=20.0)
    p = LesionParameters(free_share=0.0)
    one, two = (insert_random(scan, p, 3) for _ in range(2))
    assert one.truth.entries == two.truth.entries
    assert np.array_equal(one.images.swi, two.images.swi)


@pytest.mark.parametrize("phase", [True, False])
def test_what_the_command_writes_can_be_trained_on(pair, phase: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["--magnitude", str(pair[0]), *(["--phase", str(pair[1])] if phase else [])]
    assert main(["insert", *given, "--out", str(out)]) == 0
    (record,) = list_simulated(out)
    study = record.read()
    assert (study.acquisition.phase is not None, study.acquisition.magnitude is not None) == (phase, phase)
    assert any(mark.kind == BLEED for mark in study.marks)
    assert not record.mimics_known  # what else a real scan shows, nobody said
    assert (record.split, record.anatomy) == (None, "m")


def test_without_phase_a_bleed_is_a_loss_of_signal_and_nothing_else_changes(pair, bleed: Inclusion) -> None:
    scan = read_nifti_scan(pair[0], None, field_strength_t=3.0, echo_time_ms=20.0)
    with_, without = insert_into(scan, (bleed,), 1), insert_into(scan, (), 1)
    assert with_.truth.entries[0].seen.visible
    k, j, i = np.round(scan.geometry.to_ijk(bleed.centre_lps_mm)[::-1]).astype(int)
    assert with_.images.swi[k, j, i] < 0.5 * without.images.swi[k, j, i]
    assert not with_.images.phase.any()
    far = np.ones(scan.geometry.shape, dtype=bool)
    far[k - 12 : k + 13, j - 24 : j + 25, i - 24 : i + 25] = False
    assert np.allclose(with_.images.swi[far], without.images.swi[far], rtol=1e-3)


def test_phase_in_other_units_is_refused_until_its_scale_is_told(healthy, pair, tmp_path: Path) -> None:
    stored = save_nifti(healthy.images.raw_phase / np.pi * 4096, healthy.images.geometry, tmp_path / "s.nii.gz")
    with pytest.raises(InputError, match="not in radians"):
        read_nifti_scan(pair[0], stored, field_strength_t=3.0, echo_time_ms=20.0)
    scan = read_nifti_scan(pair[0], stored, field_strength_t=3.0, echo_time_ms=20.0, phase_scale=np.pi / 4096)
    assert np.allclose(scan.phase, healthy.images.raw_phase, atol=1e-4)


def test_images_on_different_grids_are_refused(healthy, pair, tmp_path: Path) -> None:
    grid = replace(healthy.images.geometry, affine=healthy.images.geometry.affine + np.eye(4)[:, [3]] * 0 + 0)
    moved = grid.affine.copy()
    moved[0, 3] += 5
    other = save_nifti(healthy.images.raw_phase, replace(grid, affine=moved), tmp_path / "moved.nii.gz")
    with pytest.raises(InputError, match="not on the same grid"):
        read_nifti_scan(pair[0], other, field_strength_t=3.0, echo_time_ms=20.0)


@pytest.mark.parametrize("arguments", [[], ["--magnitude", "nowhere.nii"], ["--dicom", "/no/such/folder"]])
def test_nothing_to_insert_into_ends_with_status_2(arguments: list[str], tmp_path: Path, capsys) -> None:
    assert main(["insert", "--out", str(tmp_path / "o"), *arguments]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
