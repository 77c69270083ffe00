"""The report holds the findings in TID 1500, and agrees with the segmentation."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import highdicom as hd
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes as terms

from pipeline.identity import derive_uid
from pipeline.results import codes
from pipeline.results.common import Job
from pipeline.results.report import make_report
from pipeline.results.segmentation import make_segmentation
from tests.pipeline.results.conftest import Make
from tests.pipeline.results.studies import CREATED, KEY, Detection


def report_of(detection: Detection, predecessor: str | None = None) -> hd.sr.Comprehensive3DSR:
    """As somebody else reads it from a file."""
    job = Job.of(detection, KEY, CREATED)
    file = BytesIO()
    make_report(job, make_segmentation(job), predecessor).save_as(file, enforce_file_format=True)
    file.seek(0)
    report = hd.sr.srread(file)
    assert isinstance(report, hd.sr.Comprehensive3DSR)
    return report


def counts_in(group: Dataset) -> dict[str, float]:
    """Number of lesions by the certainty that modifies it."""
    found = {}
    for item in group.get_measurements(codes.NUMBER_OF_LESIONS):
        modifier = item[0].get("ContentSequence")
        name = modifier[0].ConceptCodeSequence[0].CodeMeaning.lower() if modifier else "total"
        found[name] = item.value
    return found


def remarks_in(report: Dataset) -> list[str]:
    container = report.ContentSequence[-1]
    assert container.ConceptNameCodeSequence[0].CodeMeaning == "Qualitative Evaluations"
    return [item.TextValue for item in container.ContentSequence if item.ValueType == "TEXT"]


def test_each_lesion_has_a_group_with_its_numbers(detection_of: Make) -> None:
    detection = detection_of()
    content = report_of(detection).content
    groups = content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(detection.findings.lesions)
    for lesion, group in zip(detection.findings.lesions, groups, strict=True):
        assert group.tracking_uid == lesion.tracking_uid
        assert group.finding_type == codes.HEMORRHAGE
        assert group.finding_sites[0].value == codes.BRAIN
        values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
        assert values["Diameter"] == (pytest.approx(lesion.diameter_mm, abs=0.005), "mm")
        assert values["Volume"] == (pytest.approx(lesion.volume_mm3, abs=0.005), "mm3")
        assert values["Probability"] == (pytest.approx(100 * lesion.probability, abs=0.05), "%")
        (certainty,) = group.get_qualitative_evaluations(codes.CERTAINTY_OF_FINDING)
        assert certainty.value == codes.CERTAINTY[lesion.certainty]


@pytest.mark.parametrize("kind", ["classic", "enhanced", "interleaved"])
def test_each_group_points_at_the_segment_that_is_tracked_by_the_same_uid(detection_of: Make, kind: str) -> None:
    detection = detection_of(kind=kind)
    job = Job.of(detection, KEY, CREATED)
    seg = make_segmentation(job)
    assert seg is not None
    frames = {(f.sop_instance_uid, f.frame_number): k for k, f in enumerate(detection.acquisition.swi.frames)}
    for group in report_of(detection).content.get_volumetric_roi_measurement_groups():
        reference = group.referenced_segment
        segment = seg.SegmentSequence[reference.referenced_segment_numbers[0] - 1]
        assert reference.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert (segment.TrackingUID, segment.TrackingID) == (group.tracking_uid, group.tracking_identifier)
        lesion = next(x for x in detection.findings.lesions if x.tracking_uid == group.tracking_uid)
        named = set()
        for image in reference.source_images_for_segmentation:
            numbers = image.referenced_frame_numbers or [None]
            named |= {frames[image.referenced_sop_instance_uid, number] for number in numbers}
        assert named == set(detection.labels.nonzero()[0][detection.labels[detection.labels > 0] == lesion.id])


def test_totals_stand_in_a_group_of_their_own(detection_of: Make) -> None:
    detection = detection_of()
    (totals,) = report_of(detection).content.get_image_measurement_groups()
    assert counts_in(totals) == detection.findings.counts
    assert totals.tracking_identifier == "All microbleeds"


def test_a_study_without_lesions_gets_a_report_that_counts_none(detection_of: Make) -> None:
    report = report_of(detection_of(lesions=0))
    assert report.content.get_volumetric_roi_measurement_groups() == []
    (totals,) = report.content.get_image_measurement_groups()
    assert counts_in(totals) == {"total": 0, "definite": 0, "possible": 0}
    assert remarks_in(report)[0].startswith("0 cerebral microbleeds")


@pytest.mark.parametrize("kind", ["classic", "enhanced", "interleaved"])
def test_every_image_analysed_is_in_the_image_library_and_the_evidence(detection_of: Make, kind: str) -> None:
    detection = detection_of(lesions=0, kind=kind)
    used = {f.sop_instance_uid for v in (detection.acquisition.swi, detection.acquisition.phase) for f in v.frames}
    report = report_of(detection)
    library = next(i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeMeaning == "Image Library")
    listed = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for group in library.ContentSequence
        for item in group.ContentSequence
        if item.ValueType == "IMAGE"
    ]
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    evidence = [i.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for i in s.ReferencedSOPSequence]
    assert set(listed) == set(evidence) == used
    assert len(evidence) == len(used)
    assert study.StudyInstanceUID == detection.findings.study_instance_uid


def test_it_says_what_it_is_and_is_not(detection_of: Make) -> None:
    report = report_of(detection_of(warnings=("Slices are 5 mm thick — small bleeds may be missed",)))
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.ContentQualification == "RESEARCH"
    remarks = " ".join(remarks_in(report))
    for text in ("RESEARCH USE ONLY", "Not assessed: superficial siderosis, macrobleeds, location", "Not verified"):
        assert text in remarks
    assert "Slices are 5 mm thick — small bleeds may be missed" in remarks
    assert report.content[0].ContentSequence.find(terms.DCM.ProcedureReported)[0].value.value == "25056-3"


def test_region_and_side_are_counted_when_the_lesions_carry_them(detection_of: Make) -> None:
    detection = detection_of(lesions=20, regions=True)
    report = report_of(detection)
    groups = {g.tracking_identifier: g for g in report.content.get_image_measurement_groups()}
    for region, side in (("lobar", "left"), ("deep", "right"), ("infratentorial", "midline")):
        expected = [x for x in detection.findings.lesions if (x.region, x.side) == (region, side)]
        assert counts_in(groups[f"Microbleeds: {region} {side}"])["total"] == len(expected) > 0
    site = groups["Microbleeds: deep left"].finding_sites[0]
    assert (site.value.meaning, site.laterality.meaning) == ("Thalamus", "Left")
    assert not any("location of the microbleeds" in text for text in remarks_in(report))
    assert sum(counts_in(g)["total"] for name, g in groups.items() if name != "All microbleeds") == 20


def test_another_model_is_another_device(detection_of: Make) -> None:
    detection = detection_of()
    models = [{}, {"cnn": "a" * 64}, {"cnn": "b" * 64}]
    reports = [
        report_of(Detection(replace(detection.findings, weights=m), detection.labels, detection.acquisition))
        for m in models
    ]
    uids = []
    for report in reports:
        (context,) = report.content.get_observer_contexts()
        (equipment,) = report.ContributingEquipmentSequence
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Equipment"
        assert equipment.DeviceUID == context.observer_identifying_attributes.uid
        uids.append(equipment.DeviceUID)
    assert len(set(uids)) == 3
    algorithm = [
        {i.ConceptNameCodeSequence[0].CodeMeaning: i for i in g[0].ContentSequence}["Algorithm Family"].value.meaning
        for g in (r.content.get_volumetric_roi_measurement_groups()[0] for r in reports[:2])
    ]
    assert algorithm == ["Neighborhood Analysis", "Artificial Intelligence"]


def test_a_new_result_names_the_report_it_replaces(detection_of: Make) -> None:
    (study,) = report_of(detection_of(), predecessor="earlier").PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == derive_uid("earlier", "sr", "instance")
    assert "PredecessorDocumentsSequence" not in report_of(detection_of())
