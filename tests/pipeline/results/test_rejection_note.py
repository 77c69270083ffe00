"""A rejection note names every object of the result that is replaced, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset

from pipeline.results import RejectionReason, ReplacedObject, ReplacedResult, ResultObject, make_results, write_results
from pipeline.uids import derive_uid
from tests.validators import dciodvfy

from .conftest import Make
from .studies import CREATED, KEY


def _replaced(objects: tuple[ResultObject, ...]) -> ReplacedResult:
    named = [ReplacedObject(o.kind, str(o.dataset.SOPClassUID), str(o.dataset.SOPInstanceUID)) for o in objects]
    return ReplacedResult(KEY, 1, tuple(named))


@pytest.mark.integration  # dicom3tools
@pytest.mark.parametrize("reason", RejectionReason)
def test_it_rejects_each_object_of_the_replaced_result(
    detection_of: Make, reason: RejectionReason, tmp_path: Path
) -> None:
    first = make_results(detection_of(), key=KEY, created=CREATED, key_objects=True)
    second = make_results(detection_of(), key="next", created=CREATED, replaces=_replaced(first), rejection=reason)
    note = second[-1]
    assert note.kind == "rejection"  # it leaves last, when the new result is there
    (title,) = note.dataset.ConceptNameCodeSequence
    assert title.CodeMeaning.casefold() == reason.value
    rejected = {
        (
            i.ValueType,
            i.ReferencedSOPSequence[0].ReferencedSOPClassUID,
            i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
        )
        for i in note.dataset.ContentSequence
        if "ReferencedSOPSequence" in i
    }
    types = {"seg": "IMAGE", "capture": "IMAGE", "sr": "COMPOSITE", "ko": "COMPOSITE"}
    assert rejected == {(types[o.kind], o.dataset.SOPClassUID, o.dataset.SOPInstanceUID) for o in first}
    assert _evidence(note.dataset) == {(o.dataset.SeriesInstanceUID, o.dataset.SOPInstanceUID) for o in first}
    (path,) = write_results([note], tmp_path).values()
    assert dciodvfy(path) == []


def _evidence(document: Dataset) -> set[tuple[str, str]]:
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    return {
        (series.SeriesInstanceUID, item.ReferencedSOPInstanceUID)
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def test_there_is_none_unless_asked_for_and_without_something_to_reject(detection_of: Make) -> None:
    first = make_results(detection_of(), key=KEY, created=CREATED, rejection=RejectionReason.EXPIRED)
    again = make_results(detection_of(), key="next", created=CREATED, replaces=_replaced(first))
    assert "rejection" not in {one.kind for one in (*first, *again)}
    assert first[0].dataset.SeriesInstanceUID == derive_uid(KEY, first[0].kind, "series")
