"""Key objects lead to the slices that hold a bleed, and to no other."""

from __future__ import annotations

import pytest

from pipeline.results import make_results
from pipeline.results.context import ResultContext
from pipeline.results.ko.key_objects import make_key_objects

from .conftest import Make
from .studies import CREATED, KEY


@pytest.mark.parametrize("kind", ["classic", "interleaved"])
def test_each_slice_with_a_bleed_is_named_once(detection_of: Make, kind: str) -> None:
    detection = detection_of(lesions=20, kind=kind)
    document = make_key_objects(ResultContext.of(detection, KEY, CREATED))
    assert document is not None
    named = []
    for item in document.ContentSequence:
        if item.ValueType == "IMAGE":
            assert "ConceptNameCodeSequence" not in item  # TID 2010, row 8
            (reference,) = item.ReferencedSOPSequence
            numbers = reference.get("ReferencedFrameNumber")
            frames = numbers if kind == "interleaved" else [None]
            named += [(reference.ReferencedSOPInstanceUID, frame) for frame in frames]
    swi = detection.acquisition.swi
    wanted = {swi.frames[lesion.voxel_ijk[2]] for lesion in detection.findings.lesions}
    assert sorted(named) == sorted((f.sop_instance_uid, f.frame_number) for f in wanted)
    assert document.Modality == "KO"


def test_they_are_made_only_where_asked_and_where_there_is_a_bleed(detection_of: Make) -> None:
    def kinds(lesions: int, **options: bool) -> list[str]:
        return [r.kind for r in make_results(detection_of(lesions=lesions), key=KEY, created=CREATED, **options)]

    assert kinds(1) == ["seg", "sr", "capture"]
    assert kinds(1, key_objects=True) == ["seg", "sr", "capture", "ko"]
    assert kinds(0, key_objects=True) == ["sr", "capture"]
