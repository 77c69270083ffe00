"""Headers of any file: read, or named with a reason; never a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.read.headers import Instance, Unreadable, read_instance, vendor_of
from pipeline.read.study import find_files, read_studies, select_series
from pipeline.read.volume import read_acquisition, read_volume
from tests.dicom_factory import Part, classic, enhanced, write

STORED = np.arange(3 * 8 * 8, dtype=np.uint16).reshape(3, 8, 8)


@pytest.mark.parametrize(
    ("manufacturer", "vendor"),
    [
        ("SIEMENS", "siemens"),
        ("Siemens Healthineers", "siemens"),
        ("GE MEDICAL SYSTEMS", "ge"),
        ("Philips Medical Systems", "philips"),
        ("UIH", "uih"),
        ("CANON_MEC", "canon"),
        ("TOSHIBA", "canon"),
        ("FUJIFILM Healthcare Corporation", "hitachi"),
        ("Gemini Imaging", "gemini imaging"),
        ("", ""),
    ],
)
def test_makers_are_known_by_a_short_name(manufacturer: str, vendor: str) -> None:
    assert vendor_of(manufacturer) == vendor


def test_an_instance_says_where_its_image_lies(tmp_path: Path) -> None:
    found = read_instance(write(classic(STORED), tmp_path)[1])
    assert isinstance(found, Instance)
    assert (found.instance_number, found.rows, found.columns, found.number_of_frames) == (2, 8, 8, 1)
    assert found.position == (-10.0, -12.0, 7.0)
    assert found.spacing == (0.5, 0.5)
    assert found.frames[0].echo_time_ms == 20.0
    assert (found.vendor, found.field_strength_t, found.repetition_time_ms) == ("siemens", 3.0, 28.0)


def test_a_frame_takes_its_values_from_its_own_group_before_the_shared_one(tmp_path: Path) -> None:
    ds = enhanced([Part(STORED, echo_time=11.0), Part(STORED, echo_time=22.0)])
    ds.SharedFunctionalGroupsSequence[0].MREchoSequence = [pydicom.Dataset()]
    ds.SharedFunctionalGroupsSequence[0].MREchoSequence[0].EffectiveEchoTime = 99.0
    del ds.PerFrameFunctionalGroupsSequence[0].MREchoSequence
    found = read_instance(write(ds, tmp_path)[0])
    assert isinstance(found, Instance)
    assert [frame.echo_time_ms for frame in found.frames] == [99.0, 11.0, 11.0, 22.0, 22.0, 22.0]


def test_acquisition_times_a_minute_apart_across_midnight(tmp_path: Path) -> None:
    datasets = classic(STORED[:2])
    datasets[0].AcquisitionDate, datasets[0].AcquisitionTime = "20260102", "235930.5"
    datasets[1].AcquisitionDate, datasets[1].AcquisitionTime = "20260103", "000030.5"
    first, second = (read_instance(path) for path in write(datasets, tmp_path))
    assert isinstance(first, Instance)
    assert isinstance(second, Instance)
    assert (second.acquisition_time or 0) - (first.acquisition_time or 0) == 60


def test_values_that_cannot_be_used_count_as_absent(tmp_path: Path) -> None:
    path = write(classic(STORED[:1]), tmp_path)[0]
    data = path.read_bytes()
    assert b"-10.0\\-12.0\\5.0" in data
    path.write_bytes(data.replace(b"-10.0\\-12.0\\5.0", b"-10.0\\-12.0\\far"))
    found = read_instance(path)
    assert isinstance(found, Instance)
    assert found.position is None


def test_a_claim_of_a_billion_frames_costs_nothing(tmp_path: Path) -> None:
    datasets = classic(STORED, tags={"NumberOfFrames": 2**31 - 1})
    studies, _ = read_studies(write(datasets, tmp_path))
    with pytest.raises(InputError, match="not read"):
        read_volume(studies[0].series[0])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), max_size=30),
    length=st.integers(0, 1600),
    implicit=st.booleans(),
)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_named(
    changes: list[tuple[int, int]], length: int, implicit: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(classic(STORED[:1]), tmp_path_factory.mktemp("damaged"), "implicit" if implicit else "explicit")[0]
    data = bytearray(path.read_bytes()[: 400 + length])
    for at, value in changes:
        if at < len(data):
            data[at] = value
    path.write_bytes(bytes(data))
    found = read_instance(path)
    assert found is None or isinstance(found, Instance) or (isinstance(found, Unreadable) and found.why)


def test_every_file_that_comes_with_pydicom_has_a_defined_outcome() -> None:
    files = [path for path in find_files(Path(pydicom.__file__).parent / "data") if "py" not in path.suffix]
    assert len(files) > 100
    complaints = []
    for path in files:
        studies, unreadable = read_studies([path])
        assert all(bad.path == path and bad.why for bad in unreadable)
        for study in studies:
            with pytest.raises(InputError, match="SWI"):
                read_acquisition(select_series(study))
            for leaf in (leaf for series in study.series for leaf in series.leaves):
                with pytest.raises(InputError) as caught:  # single images and result objects: none is a volume
                    read_volume(leaf)
                complaints.append(str(caught.value))
    assert all(line and "\n" not in line for line in complaints)
    assert len(complaints) > 100
