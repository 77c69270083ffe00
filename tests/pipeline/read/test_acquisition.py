"""What is read together with the SWI, what is made where there is none, and what the reader of the result is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from pipeline.errors import NoSwiError
from pipeline.geometry import Acquisition
from pipeline.read.pairing import SeriesSelection, select_series
from pipeline.read.recognition import SeriesRole, load_rules
from pipeline.read.study import read_studies
from pipeline.read.volume import read_acquisition, read_volume
from tests.dicom_factory import Part, Patient, affine, classic, enhanced, siemens_swi, write

SHAPE = (10, 64, 64)
GE = Patient(vendor="GE MEDICAL SYSTEMS")
SITE = """
[[rule]]
name = "our-scanner"
role = "phase"
phase_sign = {sign}
why = "known here"
all = [{{ is = "phase-image" }}, {{ field = "StationName", has = ["MR2"] }}]
"""


def head(sign: int = 1) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Bright cylinder crossed by dark paramagnetic rods: stored SWI, phase in radians, stored magnitude."""
    rng = np.random.default_rng(7)
    _, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    inside = (x - 32) ** 2 + (y - 32) ** 2 < 28**2
    rods = inside & (x % 8 < 2) & (y % 6 < 4)
    phase = sign * np.where(rods, 1.2, 0.0) + rng.normal(0, 0.05, SHAPE)
    magnitude = np.where(inside, 1000, 20) + rng.normal(0, 10, SHAPE)
    swi = magnitude * (1 - np.clip(sign * phase, 0, np.pi) / np.pi) ** 4
    return swi.clip(0).astype(np.uint16), phase, magnitude.clip(0).astype(np.uint16)


def picked(datasets: list[Dataset], folder: Path, **options: Any) -> SeriesSelection:
    studies, unreadable = read_studies(write(datasets, folder, names="{series}-{n}.dcm"))
    assert not unreadable
    return select_series(studies[0], **options)


def acquired(datasets: list[Dataset], folder: Path) -> Acquisition:
    return read_acquisition(picked(datasets, folder))


# Phase: how it was read is always recorded.


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_the_phase_and_how_it_was_settled_are_recorded(sign: int, tmp_path: Path) -> None:
    record = acquired(siemens_swi(*head(sign)), tmp_path).phase_record
    assert record is not None
    assert (record.sign, record.settled_by, record.scale) == (sign, "veins", "rescale to ±4096 (Siemens)")
    assert record.score is not None
    assert record.score * sign > 4
    assert "measured on the veins" in str(record)


def test_a_site_rule_sets_the_sign_whatever_the_veins_show(tmp_path: Path) -> None:
    swi, phase, magnitude = head(sign=1)
    (tmp_path / "site.toml").write_text(SITE.format(sign=-1))
    tags = {"StationName": "MR2"}
    paths = write(siemens_swi(swi, phase, magnitude, tags=tags), tmp_path / "a", names="{series}-{n}.dcm")
    (study,), _ = read_studies(paths, load_rules(tmp_path / "site.toml"))
    chosen = select_series(study)
    acquisition = read_acquisition(chosen)
    assert acquisition.phase is not None
    assert acquisition.phase_record is not None
    np.testing.assert_allclose(acquisition.phase.array, -phase, atol=0.001)
    assert (acquisition.phase_record.sign, acquisition.phase_record.settled_by) == (-1, "site")
    measured = select_series(read_studies(paths)[0][0])
    assert chosen.key("profile") != measured.key("profile")  # it changes the result


def complex_parts(phase: NDArray[Any], magnitude: NDArray[Any], flipped: bool) -> list[Dataset]:
    """GE's magnitude 0, real 2 and imaginary 3 images in one series, image by image."""
    flips = np.where(np.arange(SHAPE[0]) % 2, -1, 1)[:, None, None] if flipped else 1
    signal = magnitude * np.exp(1j * phase) * flips
    stored = {0: magnitude, 2: signal.real.astype(np.int16), 3: signal.imag.astype(np.int16)}
    images = []
    for kind, array in stored.items():
        tags = {"(0043,102F)": kind, "(0019,109C)": "swan", "SequenceName": None}
        images += classic(
            array, patient=GE, series_number=7, description="Ax SWAN", image_type=["ORIGINAL", "PRIMARY", "OTHER"],
            tags=tags,
        )  # fmt: skip
    for number, ds in enumerate(images, start=1):
        ds.SOPInstanceUID = f"{ds.SeriesInstanceUID[:50]}.{number}"
        ds.InstanceNumber = number
    return images


@pytest.mark.parametrize("flipped", [True, False])
def test_real_and_imaginary_images_become_phase_with_alternate_slices_turned_back(
    flipped: bool, tmp_path: Path
) -> None:
    swi, phase, _ = head(sign=-1)
    acquisition = acquired(complex_parts(phase, swi + 50, flipped), tmp_path)
    assert acquisition.phase is not None
    assert acquisition.phase_record is not None
    inside = swi > 200
    found = -acquisition.phase.array  # GE's paramagnetic is negative; as read it is positive
    np.testing.assert_allclose(found[inside], phase[inside], atol=0.02)
    assert ("alternate slices inverted" in acquisition.phase_record.scale) == flipped
    assert (acquisition.phase_record.sign, acquisition.phase_record.settled_by) == (-1, "veins")


def test_both_parts_of_a_complex_image_count_for_the_key_of_the_analysis(tmp_path: Path) -> None:
    swi, phase, _ = head()
    images = complex_parts(phase, swi, flipped=True)
    chosen = picked(images, tmp_path / "a")
    assert chosen.phase is not None
    assert [part.component for part in chosen.phase.parts] == ["real", "imaginary"]
    images[-1].SOPInstanceUID += ".9"
    assert picked(images, tmp_path / "b").key("x") != chosen.key("x")


def test_without_phase_the_reason_is_told(tmp_path: Path) -> None:
    swi, phase, magnitude = head()
    alone = acquired(classic(swi), tmp_path / "alone")
    assert alone.phase_record is None
    assert any("analysed without phase (no phase in the study)" in warning for warning in alone.warnings)
    images = siemens_swi(swi, phase, magnitude)
    lost = next(ds for ds in images if ds.SeriesNumber == 9)
    shorter = acquired([ds for ds in images if ds is not lost], tmp_path / "shorter")
    assert any("series 9 (Pha_Images): 9 slices, not 10" in warning for warning in shorter.warnings)


# Without SWI.


def test_a_t2star_series_is_read_only_where_it_is_accepted(tmp_path: Path) -> None:
    swi, *_ = head()
    images = classic(
        swi, series_number=5, description="Ax T2* GRE", image_type=["ORIGINAL", "PRIMARY", "M", "NORM"],
        tags={"SequenceName": "*fl2d1", "MRAcquisitionType": "2D"},
    )  # fmt: skip
    refused = picked(images, tmp_path)
    assert not refused.analysable
    assert "T2*-weighted gradient echo, which only some profiles accept" in refused.why
    with pytest.raises(NoSwiError, match="only some profiles"):
        read_acquisition(refused)
    accepted = select_series(read_studies(sorted(tmp_path.iterdir()))[0][0], t2star=True)
    assert accepted.swi is not None
    assert accepted.swi.role == SeriesRole.T2STAR
    acquisition = read_acquisition(accepted)
    np.testing.assert_array_equal(acquisition.swi.array, swi)
    assert any("T2*-weighted gradient echo was analysed" in warning for warning in acquisition.warnings)


def test_an_swi_goes_before_a_t2star_series(tmp_path: Path) -> None:
    swi, *_ = head()
    t2star = classic(
        swi, series_number=5, description="T2* axial", image_type=["ORIGINAL", "PRIMARY", "M"],
        tags={"SequenceName": "*fl2d1"}, matrix=affine(spacing=(0.9, 0.9, 2.0)),
    )  # fmt: skip
    chosen = picked([*classic(swi, series_number=11), *t2star], tmp_path, t2star=True)
    assert chosen.swi is not None
    assert (chosen.swi.series_number, chosen.t2star is not None) == (11, True)


# What is odd about the slices is told.


def warned(datasets: list[Dataset], folder: Path) -> str:
    return "; ".join(acquired(datasets, folder).warnings)


def test_a_series_thinned_at_regular_places_is_told(tmp_path: Path) -> None:
    swi, *_ = head()
    every_other = classic(swi, tags={"SpacingBetweenSlices": 2.0})[::2]
    assert "4.00 mm apart, but Spacing Between Slices is 2.00 mm" in warned(every_other, tmp_path / "said")
    unsaid = classic(swi)[::2]
    assert "4.00 mm apart, but are 2.00 mm thick" in warned(unsaid, tmp_path / "unsaid")
    third = enhanced([Part(swi[::3], ("ORIGINAL", "PRIMARY", "SWI", "NONE"))], matrix=affine(spacing=(0.5, 0.5, 6.0)))
    for groups in third.PerFrameFunctionalGroupsSequence:
        groups.PixelMeasuresSequence[0].SpacingBetweenSlices = 2.0
    assert "6.00 mm apart" in warned([third], tmp_path / "enhanced")


@pytest.mark.parametrize(
    "tags",
    [
        {"SpacingBetweenSlices": 2.0},
        {"SpacingBetweenSlices": 2.0, "SliceThickness": 4.0},  # overlapping
        {"SpacingBetweenSlices": 0.5, "SliceThickness": 1.5, "MRAcquisitionType": "2D"},  # the gap, not the distance
        {"SpacingBetweenSlices": -2.0},
        {"SliceThickness": 1.5, "MRAcquisitionType": "2D"},
        {"SliceThickness": 1.0, "MRAcquisitionType": "2D"},
        {"SliceThickness": None},
    ],
)
def test_whole_series_are_not_suspected(tags: dict[str, Any], tmp_path: Path) -> None:
    swi, *_ = head()
    assert "slices seem to be missing" not in warned(classic(swi, tags=tags), tmp_path)


def test_slices_that_name_several_frames_of_reference_are_told(tmp_path: Path) -> None:
    swi, *_ = head()
    images = classic(swi)
    usual = images[0].FrameOfReferenceUID
    images[3].FrameOfReferenceUID = "1.2.3"
    acquisition = acquired(images, tmp_path)
    assert acquisition.swi.geometry.frame_of_reference_uid == usual
    assert any("name 2 frames of reference" in warning for warning in acquisition.warnings)


def test_a_slice_that_is_there_twice_is_told(tmp_path: Path) -> None:
    swi, *_ = head()
    again = classic(swi)[1]
    again.SOPInstanceUID += ".1"
    again.InstanceNumber = 99
    assert "the same slices twice" in warned([*classic(swi), again], tmp_path)


def test_a_part_of_a_mixed_series_is_read_but_not_the_whole(tmp_path: Path) -> None:
    swi, phase, _ = head()
    chosen = picked(complex_parts(phase, swi, flipped=False), tmp_path)
    assert chosen.swi is not None
    assert read_volume(chosen.swi).array.shape == SHAPE
