"""The objects of a result form one tree: the report is its root and names every other one, and its predecessor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydicom import Dataset

from pipeline.results import ReplacedResult, make_results
from pipeline.uids import derive_uid

from .conftest import Make
from .studies import CREATED, KEY

pytestmark = pytest.mark.slow

EARLIER = ReplacedResult("b" * 64, revision=2)


def objects(detection_of: Make, lesions: int = 3, replaces: ReplacedResult | None = None) -> dict[str, Dataset]:
    detection = detection_of(lesions=lesions)
    results = make_results(detection, key=KEY, created=CREATED, key_objects=True, replaces=replaces)
    return {str(result.kind): result.dataset for result in results}


def named(item: Dataset) -> Iterator[tuple[str, str]]:
    """SOP class and instance that the content of a document names."""
    for child in item.get("ContentSequence", ()):
        for reference in child.get("ReferencedSOPSequence", ()):
            yield str(reference.ReferencedSOPClassUID), str(reference.ReferencedSOPInstanceUID)
        yield from named(child)


def listed(document: Dataset) -> set[tuple[str, str]]:
    """Series and instance of what a document lists as evidence of its own study."""
    return {
        (str(series.SeriesInstanceUID), str(reference.ReferencedSOPInstanceUID))
        for study in document.CurrentRequestedProcedureEvidenceSequence
        if study.StudyInstanceUID == document.StudyInstanceUID
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }


@pytest.mark.parametrize(("lesions", "kinds"), [(3, {"seg", "capture", "ko"}), (0, {"capture"})])
def test_every_object_is_reached_from_the_report(detection_of: Make, lesions: int, kinds: set[str]) -> None:
    made = objects(detection_of, lesions)
    report, others = made["sr"], {kind: ds for kind, ds in made.items() if kind != "sr"}
    assert set(others) == kinds
    for ds in others.values():
        assert (ds.SOPClassUID, ds.SOPInstanceUID) in set(named(report))
        assert (ds.SeriesInstanceUID, ds.SOPInstanceUID) in listed(report)
        assert ds.StudyInstanceUID == report.StudyInstanceUID


def test_the_report_is_the_only_root(detection_of: Make) -> None:
    made = objects(detection_of)
    referred = {uid for ds in made.values() for _, uid in named(ds)}
    assert [kind for kind, ds in made.items() if ds.SOPInstanceUID not in referred] == ["sr"]


def test_each_object_is_named_as_what_it_is(detection_of: Make) -> None:
    made = objects(detection_of)
    (container,) = [
        item for item in made["sr"].ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "RESULT_OBJECTS"
    ]
    assert made["sr"].ContentSequence[-1] is container
    named_as = {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID): (
            item.ValueType,
            item.ConceptNameCodeSequence[0].CodeMeaning,
        )
        for item in container.ContentSequence
    }
    assert named_as == {
        made["seg"].SOPInstanceUID: ("IMAGE", "Segmentation"),
        made["capture"].SOPInstanceUID: ("IMAGE", "Picture of the result"),
        made["ko"].SOPInstanceUID: ("COMPOSITE", "Key Images"),
    }


def test_a_version_names_the_one_before_it(detection_of: Make) -> None:
    first, third = objects(detection_of), objects(detection_of, replaces=EARLIER)
    assert "PredecessorDocumentsSequence" not in first["sr"]
    (study,) = third["sr"].PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (reference,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == third["sr"].StudyInstanceUID
    assert series.SeriesInstanceUID == derive_uid(EARLIER.key, "sr", "series")
    assert reference.ReferencedSOPInstanceUID == derive_uid(EARLIER.key, "sr", "instance")
    assert reference.ReferencedSOPClassUID == third["sr"].SOPClassUID
    for kind, ds in third.items():
        assert "revision 3" in ds.SeriesDescription
        assert ds.SeriesNumber == first[kind].SeriesNumber + 200
