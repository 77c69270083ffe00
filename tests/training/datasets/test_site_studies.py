"""A site's own DICOM as a data set: the node's results, reports of readers and tables mark what they say."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from pipeline.errors import InputError
from pipeline.results import make_results, write_results
from tests.pipeline.results.studies import CREATED, KEY, simulate
from training.cli import main
from training.datasets.check import check
from training.datasets.layouts import open_dataset
from training.datasets.record import Mark

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[float, ...]]]:
    """A study with the node's own report and segmentation of three bleeds, and where they are."""
    folder = tmp_path_factory.mktemp("site")
    detection: Any = simulate(folder / "images", 3, shape=(12, 72, 64))
    write_results(make_results(detection, key=KEY, created=CREATED), folder / "results")
    return folder, sorted(m.centroid_lps_mm for m in detection.findings.lesions)


def _images_of(site: Path, to: Path) -> Path:
    """Only the images, as files of their own (links to folders are not followed)."""
    for path in (site / "images").rglob("*.dcm"):
        (to / path.name).write_bytes(path.read_bytes())
    return to


def _problems(folder: Path) -> list[str]:
    return [str(problem) for problem in check(open_dataset(folder, "site"))]


def _marks(folder: Path) -> Sequence[Mark]:
    (record,) = open_dataset(folder, "site")
    return record.read().marks


def _near(marks: Sequence[Mark], wanted: Sequence[tuple[float, ...]]) -> None:
    found = sorted(m.centre_lps_mm for m in marks)
    assert len(found) == len(wanted)
    assert np.allclose(found, wanted, atol=0.7)


@pytest.mark.parametrize("names", [("seg.dcm",), ("seg.dcm", "sr.dcm")])
def test_the_nodes_own_results_mark_what_it_found(
    site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path, names: tuple[str, ...]
) -> None:
    folder, wanted = site
    for name in names:
        (tmp_path / name).write_bytes((folder / "results" / name).read_bytes())
    _near(_marks(_images_of(folder, tmp_path)), wanted)
    assert open_dataset(tmp_path)[0].subject == "TEST-1"


def _groups(report: Dataset) -> tuple[Dataset, list[Dataset]]:
    """The container of the measurement groups, and those of lesions."""
    for item in report.ContentSequence:
        if item.ValueType == "CONTAINER" and item.ConceptNameCodeSequence[0].CodeValue == "126010":
            groups = list(item.ContentSequence)
            with_segment = [g for g in groups if "Referenced Segment Number" in str(g)]
            return item, with_segment
    raise AssertionError("no measurements")


def test_the_newest_report_decides_which_segments_are_bleeds(
    site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path
) -> None:
    folder, _ = site
    original = dcmread(folder / "results" / "sr.dcm")
    corrected = deepcopy(original)
    container, lesions = _groups(corrected)
    container.ContentSequence = [g for g in container.ContentSequence if g is not lesions[1]]
    corrected.SOPInstanceUID = corrected.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    corrected.ContentDate = str(int(original.ContentDate) + 1)
    for name, ds in (("seg.dcm", None), ("a.dcm", original), ("b.dcm", corrected)):
        if ds is None:
            (tmp_path / name).write_bytes((folder / "results" / name).read_bytes())
        else:
            ds.save_as(tmp_path / name)
    assert len(_marks(_images_of(folder, tmp_path))) == 2


def test_a_report_of_an_earlier_release_marks_the_same(
    site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path
) -> None:
    """It has the totals among the microbleeds, and no points."""
    folder, _ = site
    report = dcmread(folder / "results" / "sr.dcm")
    container, lesions = _groups(report)
    (derived,) = [i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126011"]
    for group in lesions:
        group.ContentSequence = [item for item in group.ContentSequence if not item.ValueType.startswith("SCOORD")]
    container.ContentSequence = [*derived.ContentSequence, *lesions]
    report.ContentSequence = [item for item in report.ContentSequence if item is not derived]
    report.save_as(tmp_path / "sr.dcm")
    (tmp_path / "seg.dcm").write_bytes((folder / "results" / "seg.dcm").read_bytes())
    assert _marks(_images_of(folder, tmp_path)) == _marks(folder)


def _verified(report: Dataset, without: int | None) -> Dataset:
    """The report as a reader would leave it a day later, without one of its bleeds."""
    corrected = deepcopy(report)
    container, lesions = _groups(corrected)
    if without is not None:
        container.ContentSequence = [g for g in container.ContentSequence if g is not lesions[without]]
    corrected.SOPInstanceUID = corrected.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    corrected.ContentDate = str(int(report.ContentDate) + 1)
    corrected.VerificationFlag = "VERIFIED"
    return corrected


def test_what_a_reader_rejected_is_marked_as_that_and_a_later_unverified_report_changes_nothing(
    site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path
) -> None:
    folder, _ = site
    original = dcmread(folder / "results" / "sr.dcm")
    (tmp_path / "seg.dcm").write_bytes((folder / "results" / "seg.dcm").read_bytes())
    _verified(original, 1).save_as(tmp_path / "verified.dcm")
    later = deepcopy(original)
    later.SOPInstanceUID = later.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    later.ContentDate = str(int(original.ContentDate) + 7)
    later.save_as(tmp_path / "later.dcm")
    marks = _marks(_images_of(folder, tmp_path))
    assert sorted(m.kind for m in marks) == ["bleed", "bleed", "rejected"]
    assert not any("nobody verified" in problem for problem in _problems(tmp_path))


def test_a_report_that_nobody_verified_is_remarked_on(
    site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path
) -> None:
    folder, _ = site
    for name in ("seg.dcm", "sr.dcm"):
        (tmp_path / name).write_bytes((folder / "results" / name).read_bytes())
    marks = _marks(_images_of(folder, tmp_path))
    assert {m.kind for m in marks} == {"bleed"}
    (record,) = open_dataset(tmp_path, "site")
    notes = [p for p in check([record]) if "nobody verified" in p.what]
    assert [note.error for note in notes] == [False]


@pytest.mark.parametrize(("attribute", "value"), [("Manufacturer", "Other"), ("SegmentedPropertyTypeCode", "4147007")])
def test_segments_of_something_else_are_not_held_against_anybody(
    site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path, attribute: str, value: str
) -> None:
    """A second segmentation, of other software or of a mass, is no list of rejected bleeds."""
    folder, _ = site
    seg = dcmread(folder / "results" / "seg.dcm")
    seg.save_as(tmp_path / "seg.dcm")
    other = deepcopy(seg)
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for item in other.SegmentSequence:
        item.TrackingUID = generate_uid()
        if attribute != "Manufacturer":
            item.SegmentedPropertyTypeCodeSequence[0].CodeValue = value
    if attribute == "Manufacturer":
        other.Manufacturer = value
    other.save_as(tmp_path / "other.dcm")
    report = _verified(dcmread(folder / "results" / "sr.dcm"), None)
    container, lesions = _groups(report)
    container.ContentSequence = [lesions[0]]
    for item in seg.SegmentSequence[1:]:  # not the detector's own, either
        item.SegmentedPropertyTypeCodeSequence[0].CodeValue = value
    seg.save_as(tmp_path / "seg.dcm")
    report.save_as(tmp_path / "sr.dcm")
    assert [m.kind for m in _marks(_images_of(folder, tmp_path))] == ["bleed"]


@pytest.mark.parametrize("kind", ["SCOORD3D", "SCOORD"])
def test_a_report_with_coordinates_marks_points(
    site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path, kind: str
) -> None:
    folder, wanted = site
    report = dcmread(folder / "results" / "sr.dcm")
    _images_of(folder, tmp_path)
    swi = open_dataset(_with_table(tmp_path, folder, ""), "site")[0].read().acquisition.swi
    (tmp_path / "lesions.csv").unlink()
    container, lesions = _groups(report)
    region = Dataset()
    region.ValueType = kind
    if kind == "SCOORD3D":
        region.GraphicType, region.GraphicData = "POINT", list(wanted[0])
    else:
        i, j, k = swi.geometry.to_ijk(wanted[0])
        reference, image = Dataset(), Dataset()
        frame = swi.frames[round(k)]
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (
            frame.sop_class_uid,
            frame.sop_instance_uid,
        )
        image.ValueType, image.ReferencedSOPSequence = "IMAGE", [reference]
        region.GraphicType, region.GraphicData = "CIRCLE", [i + 0.5, j + 0.5, i + 3.5, j + 0.5]
        region.ContentSequence = [image]
    lesions[0].ContentSequence = [region]
    container.ContentSequence = [lesions[0]]
    report.save_as(tmp_path / "sr.dcm")
    (mark,) = _marks(tmp_path)
    assert np.allclose(mark.centre_lps_mm, wanted[0], atol=1.1)


def _with_table(to: Path, folder: Path, lines: str, header: str = "study_instance_uid,x,y,z,diameter_mm,kind") -> Path:
    uid = dcmread(folder / "results" / "sr.dcm").StudyInstanceUID
    text = f"{header}\n" + (lines.replace("UID", uid) or f"{uid},,,,,\n")
    (to / "lesions.csv").write_text(text)
    return to


def test_a_table_of_points_comes_before_everything_else(
    site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path
) -> None:
    folder, _ = site
    (tmp_path / "seg.dcm").write_bytes((folder / "results" / "seg.dcm").read_bytes())
    lines = "UID,-10,-20,0,3.5,\nUID,5,-20,-5,,calcification\n"
    marks = _marks(_with_table(_images_of(folder, tmp_path), folder, lines))
    assert marks == (Mark((-10, -20, 0), "bleed", 3.5), Mark((5, -20, -5), "calcification", None))


def test_a_study_that_nobody_marked_is_an_error(site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path) -> None:
    assert "is not marked" in _problems(_images_of(site[0], tmp_path))[0]


def test_a_report_without_its_segmentation_is_an_error(
    site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path
) -> None:
    (tmp_path / "sr.dcm").write_bytes((site[0] / "results" / "sr.dcm").read_bytes())
    assert "segmentation that is not there" in _problems(_images_of(site[0], tmp_path))[0]


def test_a_table_without_its_columns_is_refused(site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no column z"):
        open_dataset(_with_table(_images_of(site[0], tmp_path), site[0], "", "study_instance_uid,x,y"), "site")


def test_every_line_of_the_table_that_is_not_used_is_named(
    site: tuple[Path, list[tuple[float, ...]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, wanted = site
    _images_of(folder, tmp_path)
    (record,) = open_dataset(_images_of(folder, tmp_path), "site")
    at = [";".join(f"{v:.3f}".replace(".", ",") for v in place) for place in wanted]
    lines = [f"{record.name};{at[0]};", f"{record.name};{at[1]};bled", f"1.2.3;{at[2]};vein"]
    (tmp_path / "lesions.csv").write_text("\n".join(["study_instance_uid;x;y;z;kind", *lines]))
    _near(_marks(tmp_path), wanted[:1])
    assert main(["check", str(tmp_path), "--kind", "site"]) == 2
    said = capsys.readouterr().out
    assert "error: lesions.csv line 3: unknown kind 'bled'; use one of bleed, " in said
    assert "error: lesions.csv line 4: no study 1.2.3 is in the folder" in said
    assert "1 study, 2 errors" in said
