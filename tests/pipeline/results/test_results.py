"""A result belongs to its study, is the same every time, and is written whole."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from pipeline.errors import InputError
from pipeline.read.study import find_files, read_studies, select_series
from pipeline.read.volume import read_acquisition
from pipeline.results import ResultObject, make_results, write_results
from pipeline.results.context import plain
from pipeline.results.source import read_source
from tests import dicom_factory
from tests.dicom_factory import Patient, classic, write

from .conftest import Make
from .studies import CREATED, KEY, Detection, evaluations_in, head, simulate

pytestmark = pytest.mark.slow

NAMES = [
    ("ISO_IR 100", "Müller^Jürgen"),
    ("ISO_IR 192", "山田^太郎"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ("ISO_IR 144", "Люкceмбypг"),
    (None, "Test^Brain"),
]


def results_of(detection: Detection, created: datetime = CREATED, key: str = KEY) -> tuple[ResultObject, ...]:
    return make_results(detection, key=key, created=created)


def encoded(result: ResultObject) -> bytes:
    file = BytesIO()
    result.dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def read_back(result: ResultObject) -> Dataset:
    return pydicom.dcmread(BytesIO(encoded(result)))


def uids_in(dataset: Dataset) -> set[str]:
    """UIDs that say what `dataset` is, not what it refers to."""
    own = {dataset.SOPInstanceUID, dataset.SeriesInstanceUID}
    return own | {item.DimensionOrganizationUID for item in dataset.get("DimensionOrganizationSequence", [])}


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_the_same_job_gives_the_same_bytes(detection_of: Make, kind: str) -> None:
    detection = detection_of(kind=kind)
    first = [encoded(r) for r in results_of(detection)]
    time.sleep(1.1)  # highdicom stamps whole seconds
    assert [encoded(r) for r in results_of(detection)] == first


def test_another_job_shares_no_uid_with_this_one_or_with_the_images(detection_of: Make) -> None:
    detection = detection_of()
    mine = set().union(*(uids_in(r.dataset) for r in results_of(detection)))
    other = set().union(*(uids_in(r.dataset) for r in results_of(detection, key="other")))
    images = {f.sop_instance_uid for f in detection.acquisition.swi.frames} | {
        detection.acquisition.swi.series_instance_uid
    }
    assert len(mine) == 7  # three series, three instances, one dimension organization
    assert not mine & other
    assert not mine & images


def test_the_objects_are_new_series_of_the_same_study(detection_of: Make) -> None:
    detection = detection_of()
    objects = {r.kind: r.dataset for r in results_of(detection)}
    assert [(kind, ds.Modality) for kind, ds in objects.items()] == [("seg", "SEG"), ("sr", "SR"), ("capture", "OT")]
    for ds in objects.values():
        assert ds.StudyInstanceUID == detection.findings.study_instance_uid
        assert ds.ContentQualification == "RESEARCH"
        assert "research use only" in ds.SeriesDescription
    assert len({ds.SeriesNumber for ds in objects.values()}) == 3


def test_a_study_without_lesions_gets_no_segmentation(detection_of: Make) -> None:
    assert [r.kind for r in results_of(detection_of(lesions=0))] == ["sr", "capture"]


@pytest.mark.parametrize(("character_set", "name"), NAMES)
def test_a_name_survives_in_its_character_set(tmp_path: Path, character_set: Any, name: str) -> None:
    detection = simulate(
        tmp_path, 1, phase=False, patient=Patient(name=name), tags={"SpecificCharacterSet": character_set}
    )
    original = pydicom.dcmread(detection.acquisition.swi.frames[0].path)
    for result in results_of(detection):
        copy = read_back(result)
        assert str(copy.PatientName) == name
        assert copy.get("SpecificCharacterSet") == original.get("SpecificCharacterSet")


def test_a_warning_in_any_language_can_be_written_under_any_character_set(tmp_path: Path) -> None:
    detection = simulate(tmp_path, 1, warnings=("Größe 3 × 5 mm³ — 日本",), tags={"SpecificCharacterSet": None})
    report = next(read_back(r) for r in results_of(detection) if r.kind == "sr")
    assert any("Grosse 3 x 5 mm3 - ??" in i.get("TextValue", "") for i in evaluations_in(report))


@given(st.text(), st.none() | st.integers(1, 64))
def test_plain_text_is_printable_ascii(text: str, limit: int | None) -> None:
    result = plain(text, limit)
    assert result.isascii()
    assert limit is None or len(result) <= limit


OPTIONAL = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
    "StudyDescription",
    "SpecificCharacterSet",
]


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_missing_patient_attributes_are_left_empty(tmp_path: Path, kind: str) -> None:
    for result in results_of(simulate(tmp_path, 1, kind=kind, tags=dict.fromkeys(OPTIONAL))):
        ds = read_back(result)
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"):
            assert keyword in ds
            assert ds[keyword].is_empty


def test_unusual_values_are_copied_as_they_are(tmp_path: Path) -> None:
    tags = {"PatientSex": "U", "PatientAge": "076Y", "PatientComments": "n/a"}
    for result in results_of(simulate(tmp_path, 1, tags=tags)):
        assert {keyword: result.dataset[keyword].value for keyword in tags} == tags


def test_times_are_written_in_the_zone_of_the_images(tmp_path: Path) -> None:
    detection = simulate(tmp_path, 1, tags={"TimezoneOffsetFromUTC": "+0900"})
    for result in results_of(detection, datetime(2026, 1, 1, 20, 30, tzinfo=UTC)):
        ds = result.dataset
        assert ds.TimezoneOffsetFromUTC == "+0900"
        assert (str(ds.ContentDate), str(ds.ContentTime)) == ("20260102", "053000")
        assert (str(ds.InstanceCreationDate), str(ds.SeriesTime)) == ("20260102", "053000")
        assert str(ds.ContributingEquipmentSequence[0].ContributionDateTime) == "20260102053000+0900"


def test_without_a_zone_in_the_images_the_caller_chooses_it(detection_of: Make) -> None:
    local = datetime(2026, 1, 1, 12, 0, 0, 999, tzinfo=timezone(-timedelta(hours=3, minutes=30)))
    for result in results_of(detection_of(), local):
        assert "TimezoneOffsetFromUTC" not in result.dataset  # it would speak for the study time, too
        assert str(result.dataset.ContentTime) == "120000"
        contribution = result.dataset.ContributingEquipmentSequence[0].ContributionDateTime
        assert str(contribution) == "20260101120000-0330"


def test_a_time_without_zone_is_refused(detection_of: Make) -> None:
    with pytest.raises(ValueError, match="time zone"):
        results_of(detection_of(), datetime(2026, 1, 1))


def test_an_image_that_is_gone_is_named(tmp_path: Path) -> None:
    detection = simulate(tmp_path, 1)
    lost = Path(detection.acquisition.swi.frames[3].path)
    lost.unlink()
    with pytest.raises(InputError, match=lost.name):
        results_of(detection)


def test_an_image_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    detection = simulate(tmp_path, 1)
    first, second = (Path(f.path) for f in detection.acquisition.swi.frames[:2])
    second.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match=r"is not instance 2\.25"):
        results_of(detection)


def test_files_are_written_whole_and_twice_is_once(detection_of: Make, tmp_path: Path) -> None:
    results = results_of(detection_of())
    paths = write_results(results, tmp_path / "outbox")
    before = {kind: path.read_bytes() for kind, path in paths.items()}
    assert write_results(results, tmp_path / "outbox") == paths
    assert {kind: path.read_bytes() for kind, path in paths.items()} == before
    assert sorted(p.name for p in (tmp_path / "outbox").iterdir()) == ["capture.dcm", "seg.dcm", "sr.dcm"]
    assert all(pydicom.dcmread(path).SOPInstanceUID for path in paths.values())


def test_a_failed_write_leaves_the_old_file_alone(detection_of: Make, tmp_path: Path) -> None:
    results = results_of(detection_of())
    paths = write_results(results, tmp_path)
    before = paths["sr"].read_bytes()
    broken = Dataset(next(r.dataset for r in results if r.kind == "sr"))
    with pytest.raises((AttributeError, ValueError)):
        write_results([ResultObject("sr", broken)], tmp_path)  # no file meta information
    assert paths["sr"].read_bytes() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ["series", "enhanced", "no derived SWI"])
def test_what_the_reader_reads_becomes_results(tmp_path: Path, kind: str) -> None:
    """The frames that `pipeline.read.volume` reports are those that the results point at."""
    image, labels = head((12, 64, 64), 3, dicom_factory.affine())
    stored, phase = image.astype(np.uint16), np.where(labels > 0, 1.0, 0.0)
    if kind == "enhanced":
        kinds = ("DERIVED", "PRIMARY", "SWI", "NONE")
        part = dicom_factory.Part(stored, kinds)
        dicom_factory.write(dicom_factory.enhanced([part], description="SWI", image_type=kinds), tmp_path)
    elif kind == "series":
        dicom_factory.write(dicom_factory.siemens_swi(stored, phase, stored), tmp_path)
    else:
        made = [ds for ds in dicom_factory.siemens_swi(stored, phase, stored) if ds.SeriesNumber in (8, 9)]
        dicom_factory.write(made, tmp_path)
    (study,), unreadable = read_studies(find_files(tmp_path))
    assert not unreadable
    acquisition = read_acquisition(select_series(study))
    simulated = simulate(tmp_path / "other", 3, shape=(12, 64, 64))
    detection = Detection(simulated.findings, simulated.labels, acquisition)
    objects = {r.kind: r.dataset for r in results_of(detection)}
    for groups in objects["seg"].PerFrameFunctionalGroupsSequence:
        k = round(acquisition.swi.geometry.to_ijk(groups.PlanePositionSequence[0].ImagePositionPatient)[2])
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        frame = acquisition.swi.frames[k]
        named = (source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber"))
        assert named == (frame.sop_instance_uid, frame.frame_number)
        assert groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber in simulated.labels[k]
    library = next(i for i in objects["sr"].ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "111028")
    assert len(library.ContentSequence) == {"series": 3, "enhanced": 1, "no derived SWI": 2}[kind]


@pytest.mark.parametrize(
    ("tag", "malformed"),
    [
        (b"\x20\x00\x13\x00IS", b"nan "),  # InstanceNumber
        (b"\x20\x00\x13\x00IS", b"1.5 "),
        (b"\x18\x00\x50\x00DS", b"\xff.0 "),  # SliceThickness
        (b"\x18\x00\x88\x00DS", b"thin"),  # SpacingBetweenSlices
    ],
)
def test_a_malformed_number_of_a_slice_costs_no_result(tmp_path: Path, tag: bytes, malformed: bytes) -> None:
    tags = {"SliceThickness": 2.0, "SpacingBetweenSlices": 2.0}
    paths = write(classic(np.full((4, 8, 8), 300, dtype=np.uint16), tags=tags), tmp_path)
    data = paths[1].read_bytes()
    at = data.index(tag) + len(tag)
    length = int.from_bytes(data[at : at + 2], "little")
    paths[1].write_bytes(data[:at] + len(malformed).to_bytes(2, "little") + malformed + data[at + 2 + length :])
    studies, unreadable = read_studies(paths)
    source = read_source(read_acquisition(select_series(studies[0])))
    assert unreadable == []
    assert len(source.planes) == 4


@pytest.mark.parametrize("value", [b"nan ", b"inf ", b"garbage!", b"\xff\xfe\xfd\x80", b"1\\2\\x "])
@pytest.mark.parametrize(
    "keyword", ["InstanceNumber", "SliceThickness", "SpacingBetweenSlices", "PatientWeight", "FrameOfReferenceUID"]
)
def test_a_header_value_that_is_not_a_number_costs_no_result(tmp_path: Path, keyword: str, value: bytes) -> None:
    detection = simulate(tmp_path, 2, shape=(12, 64, 64), phase=False)
    tag = Tag(keyword)
    for frame in detection.acquisition.swi.frames:
        dataset = pydicom.dcmread(frame.path)
        dataset._dict[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
        dataset.save_as(frame.path)
    assert write_results(results_of(detection), tmp_path / "results")
