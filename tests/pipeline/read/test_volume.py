"""Slices become a volume in patient coordinates, or an error that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from scipy.spatial.transform import Rotation

from pipeline.errors import GeometryError, InputError, NoSwiError
from pipeline.geometry import Volume
from pipeline.read.study import Series, read_studies, select_series
from pipeline.read.volume import read_acquisition, read_volume
from tests.dicom_factory import TRANSFER_SYNTAXES, Part, affine, classic, enhanced, siemens_swi, write

pytestmark = pytest.mark.slow

SHAPE = (4, 12, 10)
RANDOM = np.random.default_rng(7)
STORED = RANDOM.integers(0, 4000, SHAPE).astype(np.uint16)


def series_of(paths: list[Path]) -> Series:
    studies, unreadable = read_studies(paths)
    assert not unreadable
    (series,) = studies[0].series
    return series


def read(datasets: Any, folder: Path, transfer_syntax: str = "explicit") -> Volume:
    return read_volume(series_of(write(datasets, folder, transfer_syntax)))


@pytest.mark.usefixtures("kept_decoders")
@pytest.mark.parametrize("form", ["classic", "enhanced", "legacy"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("transfer_syntax", TRANSFER_SYNTAXES)
def test_every_form_and_transfer_syntax_gives_the_same_volume(
    transfer_syntax: str, dtype: Any, form: str, tmp_path: Path
) -> None:
    stored = (STORED.astype(int) - (2000 if dtype is np.int16 else 0)).astype(dtype)
    swi = ("ORIGINAL", "PRIMARY", "SWI", "NONE")
    if form == "classic":
        datasets: Any = classic(stored, slope=2.0, intercept=-100.0)
    else:
        datasets = enhanced([Part(stored, swi, slope=2.0, intercept=-100.0)], legacy=form == "legacy")
    volume = read(datasets, tmp_path, transfer_syntax)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, stored.astype(np.float32) * 2 - 100)
    np.testing.assert_allclose(volume.geometry.affine, affine(), atol=1e-6)
    assert [frame.frame_number for frame in volume.frames] == ([None] * 4 if form == "classic" else [1, 2, 3, 4])


@st.composite
def layouts(draw: st.DrawFn) -> tuple[NDArray[np.float64], list[int], tuple[int, int, int]]:
    """Any orientation (left-handed ones too), spacing, origin and order of slices, and a voxel (i, j, k)."""
    angle = st.floats(-180, 180)
    rotation = Rotation.from_euler("xyz", [draw(angle) for _ in range(3)], degrees=True).as_matrix()
    rotation = rotation @ np.eye(3)[:, draw(st.permutations([0, 1, 2]))]
    rotation = rotation * [draw(st.sampled_from([-1, 1])) for _ in range(3)]
    spacing = [draw(st.floats(0.3, 1.5)), draw(st.floats(0.3, 1.5)), draw(st.floats(0.8, 4))]
    origin = [draw(st.floats(-200, 200)) for _ in range(3)]
    k, j, i = (draw(st.integers(0, n - 1)) for n in SHAPE)
    return affine(spacing, origin, rotation), list(draw(st.permutations(range(SHAPE[0])))), (i, j, k)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=layouts(), multi_frame=st.booleans())
def test_a_bright_voxel_is_found_where_it_was_planted(
    layout: tuple[NDArray[np.float64], list[int], tuple[int, int, int]],
    multi_frame: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    matrix, order, (i, j, k) = layout
    stored = np.zeros(SHAPE, dtype=np.uint16)
    stored[k, j, i] = 1000
    planted = matrix[:3, :3] @ [i, j, k] + matrix[:3, 3]
    if multi_frame:
        datasets: Any = enhanced([Part(stored, ("ORIGINAL", "PRIMARY", "SWI", "NONE"))], matrix=matrix, order=order)
    else:
        datasets = classic(stored, matrix=matrix, order=order)
    volume = read(datasets, tmp_path_factory.mktemp("series"))
    found = np.unravel_index(np.argmax(volume.array), volume.array.shape)
    np.testing.assert_allclose(volume.geometry.to_lps(found[::-1]), planted, atol=1e-4)
    np.testing.assert_allclose(volume.geometry.spacing, np.linalg.norm(matrix[:3, :3], axis=0), rtol=1e-4)
    normal = np.cross(volume.geometry.direction[:, 0], volume.geometry.direction[:, 1])
    assert normal @ volume.geometry.direction[:, 2] > 0.99


def test_each_slice_knows_the_file_it_came_from(tmp_path: Path) -> None:
    datasets = classic(STORED, order=[2, 0, 3, 1])
    volume = read(datasets, tmp_path)
    for k, frame in enumerate(volume.frames):
        source = next(ds for ds in datasets if ds.SOPInstanceUID == frame.sop_instance_uid)
        assert source.PixelData == STORED[k].tobytes()


def errors(datasets: list[Dataset], folder: Path) -> str:
    series = series_of(write(datasets, folder))
    with pytest.raises(GeometryError) as caught:
        read_volume(series)
    message = str(caught.value)
    assert "\n" not in message
    assert "series 1 (SWI_Images)" in message
    return message


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    datasets = classic(np.zeros((9, 8, 8), dtype=np.uint16))
    del datasets[4]
    message = errors(datasets, tmp_path)
    assert "1 slice is missing between instance 4 at" in message
    assert "and instance 6 at" in message


def test_an_uneven_slice_is_named(tmp_path: Path) -> None:
    datasets = classic(np.zeros((9, 8, 8), dtype=np.uint16))
    datasets[5].ImagePositionPatient[2] += 0.7
    message = errors(datasets, tmp_path)
    assert "unevenly spaced" in message
    assert "instance 6" in message


def test_a_slice_of_another_orientation_or_size_is_named(tmp_path: Path) -> None:
    turned = classic(STORED)
    turned[1].ImageOrientationPatient = [0, 1, 0, 0, 0, 1]
    assert "mixed orientations: instance 2" in errors(turned, tmp_path / "turned")
    smaller = classic(STORED)
    smaller[2].Rows = 6
    assert "mixed sizes: instance 3" in errors(smaller, tmp_path / "smaller")
    finer = classic(STORED)
    finer[3].PixelSpacing = [0.25, 0.25]
    assert "mixed pixel spacings: instance 4" in errors(finer, tmp_path / "finer")


def test_a_slice_shifted_sideways_is_named(tmp_path: Path) -> None:
    datasets = classic(np.zeros((5, 8, 8), dtype=np.uint16))
    datasets[2].ImagePositionPatient[0] += 3
    assert "shifted sideways: instance 3" in errors(datasets, tmp_path)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_missing_geometry_is_named(keyword: str, tmp_path: Path) -> None:
    datasets = classic(STORED)
    del datasets[1][keyword]
    assert "instance 2" in errors(datasets, tmp_path)


def test_a_skewed_orientation_and_a_lone_slice_are_errors(tmp_path: Path) -> None:
    assert "perpendicular" in errors(
        classic(STORED, tags={"ImageOrientationPatient": [1, 0, 0, 0.7, 0.7, 0]}), tmp_path / "skewed"
    )
    assert "only one slice" in errors(classic(STORED[:1]), tmp_path / "one")


def test_a_slice_sent_again_with_the_same_pixels_is_passed_over(tmp_path: Path) -> None:
    again = classic(STORED)[1]
    again.SOPInstanceUID += ".1"
    again.InstanceNumber = 99
    volume = read([*classic(STORED), again], tmp_path)
    np.testing.assert_array_equal(volume.array, STORED)


def test_two_different_images_at_one_place_are_named(tmp_path: Path) -> None:
    other = classic(STORED + 1)[1]
    other.SOPInstanceUID += ".1"
    other.InstanceNumber = 99
    message = errors([*classic(STORED), other], tmp_path)
    assert "different images at the same position: instance 2" in message
    assert "instance 99" in message


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_monochrome1_is_turned_so_that_dark_is_low(dtype: Any, tmp_path: Path) -> None:
    stored = np.asarray(STORED // 2, dtype=dtype)
    volume = read(classic(stored, photometric="MONOCHROME1", bits_stored=12), tmp_path)
    top = 4095 if dtype is np.uint16 else -1
    np.testing.assert_array_equal(volume.array, top - stored.astype(np.float32))


def test_each_slice_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    datasets = classic(STORED)
    for k, ds in enumerate(datasets):
        ds.RescaleSlope, ds.RescaleIntercept = k + 1, k
    expected = np.stack([STORED[k] * np.float32(k + 1) + k for k in range(len(STORED))])
    np.testing.assert_array_equal(read(datasets, tmp_path).array, expected)


def test_bits_above_bits_stored_are_ignored(tmp_path: Path) -> None:
    datasets = classic(STORED | 0x8000, bits_stored=12)
    np.testing.assert_array_equal(read(datasets, tmp_path).array, STORED & 0x0FFF)


def test_eight_bit_images_are_read(tmp_path: Path) -> None:
    stored = (STORED % 256).astype(np.uint8)
    np.testing.assert_array_equal(read(classic(stored), tmp_path).array, stored)


@pytest.mark.parametrize("transfer_syntax", ["explicit", "jpeg-ls", "jpeg-2000", "rle", "jpeg-lossless"])
def test_broken_pixel_data_names_the_file(transfer_syntax: str, tmp_path: Path) -> None:
    paths = write(classic(STORED), tmp_path, transfer_syntax)
    series = series_of(paths)
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[:-120] if transfer_syntax == "explicit" else data[:-120] + b"\0" * 120)
    with pytest.raises(InputError, match=paths[2].name) as caught:
        read_volume(series)
    assert "\n" not in str(caught.value)


def test_a_codestream_larger_than_its_header_is_refused(tmp_path: Path) -> None:
    big = classic(np.zeros((2, 64, 64), dtype=np.uint16))
    for transfer_syntax in ("jpeg-ls", "jpeg-2000", "jpeg-lossless"):
        paths = write(big, tmp_path / transfer_syntax, transfer_syntax)
        for path in paths:
            data = path.read_bytes()
            rows = b"\x28\x00\x10\x00US\x02\x00"
            assert rows in data
            path.write_bytes(data.replace(rows + b"\x40\x00", rows + b"\x20\x00"))
        with pytest.raises(InputError, match="declares another size"):
            read_volume(series_of(paths))


def test_sizes_are_bounded_before_anything_is_decoded(tmp_path: Path) -> None:
    datasets = classic(STORED)
    for ds in datasets:
        ds.Rows = ds.Columns = 65535
    series = series_of(write(datasets, tmp_path))
    with pytest.raises(InputError, match=r"too large|not read"):
        read_volume(series)


def test_an_image_without_pixel_data_is_an_input_error(tmp_path: Path) -> None:
    datasets = classic(STORED)
    del datasets[0].PixelData
    with pytest.raises(InputError, match="no pixel data"):
        read(datasets, tmp_path)


def head(shape: tuple[int, int, int] = (10, 64, 64), sign: int = 1) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Bright ellipsoid with dark paramagnetic rods across it: stored SWI, phase in radians, stored magnitude."""
    _, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    inside = (x - 32) ** 2 + (y - 32) ** 2 < 28**2
    veins = inside & (x % 8 < 2) & (y % 6 < 4)
    phase = sign * np.where(veins, 1.2, 0.0) + RANDOM.normal(0, 0.05, shape)
    magnitude = np.where(inside, 1000, 20) + RANDOM.normal(0, 10, shape)
    swi = magnitude * (1 - np.clip(sign * phase, 0, np.pi) / np.pi) ** 4
    return swi.clip(0).astype(np.uint16), phase, magnitude.clip(0).astype(np.uint16)


def acquisition_of(datasets: list[Dataset], folder: Path) -> Any:
    studies, _ = read_studies(write(datasets, folder))
    return read_acquisition(select_series(studies[0]))


@pytest.mark.parametrize("sign", [1, -1])
def test_phase_comes_in_radians_with_paramagnetic_positive(sign: int, tmp_path: Path) -> None:
    swi, phase, magnitude = head(sign=sign)
    acquisition = acquisition_of(siemens_swi(swi, phase, magnitude), tmp_path)
    assert acquisition.warnings == ()
    np.testing.assert_allclose(acquisition.phase.array, sign * phase, atol=0.001)
    np.testing.assert_array_equal(acquisition.magnitude.array, magnitude)
    np.testing.assert_array_equal(acquisition.swi.array, swi)
    assert (acquisition.echo_time_ms, acquisition.field_strength_t) == (20.0, 3.0)


def test_without_swi_it_is_computed_from_magnitude_and_phase(tmp_path: Path) -> None:
    _, phase, magnitude = head()
    datasets = [ds for ds in siemens_swi(magnitude, phase, magnitude) if ds.SeriesNumber in (8, 9)]
    acquisition = acquisition_of(datasets, tmp_path)
    assert any("computed" in warning for warning in acquisition.warnings)
    assert acquisition.swi.series_instance_uid == acquisition.magnitude.series_instance_uid
    veins = (phase > 1) & (magnitude > 900)
    tissue = (phase < 0.3) & (magnitude > 900)
    assert acquisition.swi.array[veins].mean() < 0.7 * acquisition.swi.array[tissue].mean()


def test_a_phase_that_cannot_be_read_is_left_out_with_a_warning(tmp_path: Path) -> None:
    swi, phase, magnitude = head()
    datasets = siemens_swi(swi, phase, magnitude)
    broken = next(ds for ds in datasets if ds.SeriesNumber == 9)
    broken.PixelData = broken.PixelData[:-10]
    acquisition = acquisition_of(datasets, tmp_path)
    assert acquisition.phase is None
    assert acquisition.magnitude is not None
    assert any("phase was not used" in warning for warning in acquisition.warnings)


def test_without_phase_the_acquisition_says_so(tmp_path: Path) -> None:
    acquisition = acquisition_of(classic(STORED), tmp_path)
    assert acquisition.phase is None
    assert any("without phase" in warning for warning in acquisition.warnings)


def test_the_parts_of_an_interleaved_enhanced_object_are_read_as_what_they_are(tmp_path: Path) -> None:
    _, phase, magnitude = head()
    stored = np.rint((phase * 1000 + 3142) / 1.53455).astype(np.uint16)
    parts = [
        Part(magnitude, ("ORIGINAL", "PRIMARY", "M_FFE", "M"), "MAGNITUDE"),
        Part(stored, ("ORIGINAL", "PRIMARY", "PHASE MAP", "P"), "PHASE", slope=1.53455, intercept=-3142),
    ]
    order = [n + 10 * part for n in range(10) for part in (0, 1)]
    acquisition = acquisition_of([enhanced(parts, order=order)], tmp_path)
    np.testing.assert_allclose(acquisition.phase.array, phase, atol=0.002)
    np.testing.assert_array_equal(acquisition.magnitude.array, magnitude)


def test_a_study_without_swi_says_why(tmp_path: Path) -> None:
    with pytest.raises(NoSwiError, match="projection"):
        acquisition_of(
            classic(STORED, image_type=["ORIGINAL", "PRIMARY", "MNIP"], tags={"SequenceName": "*swi3d1r"}), tmp_path
        )
