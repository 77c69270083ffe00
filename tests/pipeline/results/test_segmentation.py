"""The segmentation says where each lesion is, on the grid of the images."""

from __future__ import annotations

from dataclasses import replace

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset

from pipeline.errors import CmbError
from pipeline.findings import Certainty, Trend
from pipeline.results.context import ResultContext
from pipeline.results.seg.segmentation import make_segmentation
from tests.dicom_factory import Patient

from .conftest import Make
from .studies import CREATED, KEY, Detection, follow_up, verified

KINDS = ["classic", "enhanced", "interleaved"]


def segmentation_of(detection: Detection) -> hd.seg.Segmentation:
    dataset = make_segmentation(ResultContext.of(detection, KEY, CREATED))
    assert dataset is not None
    return hd.seg.Segmentation.from_dataset(dataset)


def source_of(frame: Dataset) -> Dataset:
    return frame.DerivationImageSequence[0].SourceImageSequence[0]


def test_there_is_one_segment_for_each_lesion_under_its_tracking_uid(detection_of: Make) -> None:
    detection = detection_of()
    seg = segmentation_of(detection)
    assert seg.number_of_segments == len(detection.findings.lesions)
    for lesion, segment in zip(detection.findings.lesions, seg.SegmentSequence, strict=True):
        assert segment.TrackingUID == lesion.tracking_uid
        assert segment.TrackingID == f"Microbleed {lesion.id}"
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Hemorrhage"
        assert segment.SegmentAlgorithmType == "AUTOMATIC"


@pytest.mark.parametrize("kind", KINDS)
def test_the_voxels_come_back_where_they_were(detection_of: Make, kind: str) -> None:
    detection = detection_of(kind=kind)
    seg = segmentation_of(detection)
    affine = detection.acquisition.swi.geometry.affine
    back = np.zeros_like(detection.labels)
    for frame, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        k = np.linalg.inv(affine) @ [*position, 1]
        np.testing.assert_allclose(k[:2], 0, atol=1e-4)
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        back[round(k[2])][frame > 0] = detection.findings.lesions[number - 1].id
    np.testing.assert_array_equal(back, detection.labels)


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_names_the_image_it_was_drawn_on(detection_of: Make, kind: str) -> None:
    detection = detection_of(kind=kind)
    seg = segmentation_of(detection)
    planes = detection.acquisition.swi.geometry.to_ijk(
        [g.PlanePositionSequence[0].ImagePositionPatient for g in seg.PerFrameFunctionalGroupsSequence]
    )
    for plane, groups in zip(planes, seg.PerFrameFunctionalGroupsSequence, strict=True):
        frame = detection.acquisition.swi.frames[round(plane[2])]
        source = source_of(groups)
        assert source.ReferencedSOPInstanceUID == frame.sop_instance_uid
        assert source.ReferencedSOPClassUID == frame.sop_class_uid
        assert source.get("ReferencedFrameNumber") == frame.frame_number
        assert source.SpatialLocationsPreserved == "YES"
    used = {source_of(g).ReferencedSOPInstanceUID for g in seg.PerFrameFunctionalGroupsSequence}
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == detection.acquisition.swi.series_instance_uid
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == used


def test_no_frame_is_empty(detection_of: Make) -> None:
    seg = segmentation_of(detection_of(lesions=60))
    assert seg.pixel_array.any(axis=(1, 2)).all()
    assert seg.NumberOfFrames < 400


def test_the_grid_is_that_of_the_images(detection_of: Make) -> None:
    detection = detection_of()
    geometry = detection.acquisition.swi.geometry
    seg = segmentation_of(detection)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (seg.Rows, seg.Columns) == geometry.shape[1:]
    assert [float(v) for v in measures.PixelSpacing] == pytest.approx([geometry.spacing[1], geometry.spacing[0]])
    assert float(measures.SpacingBetweenSlices) == pytest.approx(geometry.spacing[2])
    orientation = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    np.testing.assert_allclose(orientation, geometry.direction[:, :2].T.ravel(), atol=1e-6)
    assert seg.FrameOfReferenceUID == geometry.frame_of_reference_uid


def test_without_a_lesion_there_is_no_segmentation(detection_of: Make) -> None:
    assert make_segmentation(ResultContext.of(detection_of(lesions=0), KEY, CREATED)) is None


def test_images_without_a_frame_of_reference_give_a_segmentation_without_one(detection_of: Make) -> None:
    seg = make_segmentation(ResultContext.of(detection_of(patient=Patient(frame_of_reference=False)), KEY, CREATED))
    assert seg is not None
    assert "FrameOfReferenceUID" not in seg
    assert source_of(seg.PerFrameFunctionalGroupsSequence[0]).ReferencedSOPInstanceUID.startswith("2.25.")


def test_certainty_has_a_colour(detection_of: Make) -> None:
    detection = detection_of()
    colours: dict[Certainty, set[tuple[int, ...]]] = {certainty: set() for certainty in Certainty}
    for lesion, segment in zip(detection.findings.lesions, segmentation_of(detection).SegmentSequence, strict=True):
        colours[lesion.certainty].add(tuple(segment.RecommendedDisplayCIELabValue))
    assert [len(found) for found in colours.values()] == [1, 1]
    assert colours[Certainty.DEFINITE] != colours[Certainty.POSSIBLE]


def test_lesion_ids_need_not_be_consecutive(detection_of: Make) -> None:
    whole = detection_of()
    kept = tuple(lesion for lesion in whole.findings.lesions if lesion.id in (2, 5))
    seg = segmentation_of(Detection(replace(whole.findings, lesions=kept), whole.labels, whole.acquisition))
    assert [s.TrackingID for s in seg.SegmentSequence] == ["Microbleed 2", "Microbleed 5"]
    assert seg.pixel_array.sum() == np.isin(whole.labels, (2, 5)).sum()


def test_a_lesion_without_voxels_is_an_error_that_names_it(detection_of: Make) -> None:
    whole = detection_of()
    labels = np.where(whole.labels == 3, 0, whole.labels).astype(np.uint16)
    with pytest.raises(CmbError, match="labelled as lesion 3"):
        make_segmentation(ResultContext.of(Detection(whole.findings, labels, whole.acquisition), KEY, CREATED))


def test_a_located_lesion_carries_its_place_and_side(detection_of: Make) -> None:
    detection = detection_of(regions=True)
    seg = segmentation_of(detection)
    places = {s.TrackingID: s.AnatomicRegionSequence[0] for s in seg.SegmentSequence}
    by_location = {lesion.location: places[f"Microbleed {lesion.id}"] for lesion in detection.findings.lesions}
    assert by_location["thalamus"].CodeMeaning == "Thalamus"
    assert by_location["thalamus"].AnatomicRegionModifierSequence[0].CodeMeaning == "Left"
    assert "AnatomicRegionModifierSequence" not in by_location["brainstem"]


def test_new_bleeds_are_told_apart_by_colour_and_name(detection_of: Make) -> None:
    detection = follow_up(detection_of(lesions=20))
    colours: dict[bool, set[tuple[int, ...]]] = {True: set(), False: set()}
    for lesion, segment in zip(detection.findings.lesions, segmentation_of(detection).SegmentSequence, strict=True):
        new = lesion.trend is Trend.NEW
        assert ("new" in segment.SegmentLabel) == new
        colours[new].add(tuple(segment.RecommendedDisplayCIELabValue))
    assert len(colours[True]) == len(colours[False]) == 2
    assert not colours[True] & colours[False]


def test_a_bleed_that_a_person_added_is_semiautomatic(detection_of: Make) -> None:
    *found, added = segmentation_of(verified(detection_of())).SegmentSequence
    assert {segment.SegmentAlgorithmType for segment in found} == {"AUTOMATIC"}
    assert added.SegmentAlgorithmType == "SEMIAUTOMATIC"
