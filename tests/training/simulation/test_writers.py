"""What the writers write, the pipeline must read back as the same volume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless

from pipeline.read.study import find_files, read_studies, select_series
from pipeline.read.volume import read_acquisition
from training.simulation.inclusion import Inclusion, InclusionKind, Sphere
from training.simulation.protocol import Protocol, Sequence, Vendor
from training.simulation.scene import Scene
from training.simulation.study import SimulatedStudy, simulate
from training.simulation.writers.arrays import PHASE_UNIT, write_arrays
from training.simulation.writers.identity import StudyIdentity
from training.simulation.writers.nifti import write_nifti
from training.simulation.writers.truth_objects import write_truth_objects
from training.simulation.writers.vendors import Packing, write_dicom

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(scene: Scene) -> SimulatedStudy:
    at = scene.head.to_mni.inverse(np.array([[25.0, 40.0, 25.0]]))[0]
    bleed = Inclusion(
        InclusionKind.BLEED,
        (Sphere((float(at[0]), float(at[1]), float(at[2])), 1.8, 1.2),),
        "lobar",
        "parietal",
        "left",
    )
    return simulate(scene, Protocol(voxel_mm=(1.5, 1.5, 4.0)), (bleed,), 4)


def _as(study: SimulatedStudy, vendor: Vendor) -> SimulatedStudy:
    return replace(study, protocol=replace(study.protocol, vendor=vendor))


@pytest.mark.parametrize("vendor", list(Vendor))
def test_the_pipeline_reads_back_what_each_vendor_would_write(
    study: SimulatedStudy, vendor: Vendor, tmp_path: Path
) -> None:
    identity = StudyIdentity(f"test/{vendor}")
    write_dicom(_as(study, vendor), identity, tmp_path, Packing(JPEGLSLossless))
    studies, unreadable = read_studies(find_files(tmp_path))
    assert not unreadable
    chosen = select_series(studies[0])
    assert chosen.swi is not None
    assert chosen.mip is not None
    assert not chosen.swi.needs_confirmation
    acquisition = read_acquisition(chosen)
    assert acquisition.swi.geometry.matches(study.images.geometry)
    assert acquisition.echo_time_ms == study.protocol.echo_time_ms
    assert np.corrcoef(acquisition.swi.array.ravel(), study.images.swi.ravel())[0, 1] > 0.999
    assert acquisition.phase is not None
    turned = np.angle(np.exp(1j * (acquisition.phase.array - study.images.phase)))
    assert np.abs(turned).max() < 0.01  # the sign is found again, too
    assert (acquisition.magnitude is None) == (vendor is Vendor.GE)


@pytest.mark.parametrize("vendor", list(Vendor))
def test_a_2d_t2star_is_not_taken_for_swi(study: SimulatedStudy, vendor: Vendor, tmp_path: Path) -> None:
    flat = replace(study, protocol=replace(study.protocol, vendor=vendor, sequence=Sequence.T2STAR_2D))
    write_dicom(flat, StudyIdentity(f"flat/{vendor}"), tmp_path)
    studies, _ = read_studies(find_files(tmp_path))
    assert select_series(studies[0]).swi is None


def test_every_object_says_that_it_is_simulated(study: SimulatedStudy, tmp_path: Path) -> None:
    for path in write_dicom(study, StudyIdentity("said"), tmp_path):
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert "SIMULATED" in ds.ImageComments
        assert "Simulated" in str(ds.PatientName)


@pytest.mark.parametrize("vendor", [Vendor.SIEMENS, Vendor.PHILIPS])
def test_the_truth_is_written_as_segmentation_and_report(study: SimulatedStudy, vendor: Vendor, tmp_path: Path) -> None:
    identity = StudyIdentity(f"truth/{vendor}")
    files = write_dicom(_as(study, vendor), identity, tmp_path / "dicom")
    made = write_truth_objects(_as(study, vendor), identity, files, tmp_path / "truth")
    seg, sr = pydicom.dcmread(made["seg"]), pydicom.dcmread(made["sr"])
    assert len(seg.SegmentSequence) == 1
    assert seg.StudyInstanceUID == sr.StudyInstanceUID == identity.uid("study")
    assert int(np.asarray(seg.pixel_array).sum()) == int((study.truth.labels == 1).sum())
    assert sr.SOPClassUID.name == "Comprehensive 3D SR Storage"


def test_a_study_without_bleeds_has_a_report_and_no_segmentation(scene: Scene, tmp_path: Path) -> None:
    empty = simulate(scene, Protocol(voxel_mm=(1.5, 1.5, 6.0)), (), 4)
    identity = StudyIdentity("empty")
    files = write_dicom(empty, identity, tmp_path / "dicom")
    assert set(write_truth_objects(empty, identity, files, tmp_path / "truth")) == {"sr"}


def test_nifti_has_the_same_place_in_ras(study: SimulatedStudy, tmp_path: Path) -> None:
    write_nifti(study, tmp_path)
    image = nib.load(tmp_path / "truth.nii.gz")
    ijk = np.argwhere(np.asarray(image.dataobj) == 1).mean(axis=0)
    x, y, z = nib.affines.apply_affine(image.affine, ijk)
    assert np.linalg.norm(np.array([-x, -y, z]) - np.array(study.truth.entries[0].inclusion.centre_lps_mm)) < 2.0


def test_arrays_keep_phase_and_labels(study: SimulatedStudy, tmp_path: Path) -> None:
    with np.load(write_arrays(study, tmp_path / "arrays.npz")) as arrays:
        assert np.abs(arrays["phase"] * PHASE_UNIT - study.images.phase).max() < 1e-4
        assert np.array_equal(arrays["labels"], study.truth.labels)
        assert np.array_equal(arrays["affine"], study.images.geometry.affine)


def test_the_truth_of_an_inclusion_is_plain_json(study: SimulatedStudy) -> None:
    entry = json.loads(json.dumps(study.truth.entries[0].to_json()))
    assert {
        "centre_lps_mm",
        "radius_mm",
        "chi_ppm",
        "region",
        "side",
        "visible",
        "contrast",
        "apparent_diameter_mm",
    } <= set(entry)
    assert entry["kind"] == "bleed"
