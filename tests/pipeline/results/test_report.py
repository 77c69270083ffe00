"""The report holds the findings in TID 1500, and agrees with the segmentation."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes as terms

from pipeline.results import ReplacedResult, codes, make_results
from pipeline.results.context import ResultContext
from pipeline.results.seg.segmentation import make_segmentation
from pipeline.results.sr.report import Companions, make_report
from pipeline.uids import derive_uid
from tests.dicom_factory import Patient

from .conftest import Make
from .studies import CREATED, KEY, Detection, evaluations_in, follow_up, verified

pytestmark = pytest.mark.slow


def report_of(detection: Detection, replaces: ReplacedResult | None = None) -> hd.sr.Comprehensive3DSR:
    """As somebody else reads it from a file."""
    job = ResultContext.of(detection, KEY, CREATED, replaces)
    file = BytesIO()
    make_report(job, Companions(make_segmentation(job))).save_as(file, enforce_file_format=True)
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


def derived_in(report: Dataset) -> dict[str, hd.sr.MeasurementsAndQualitativeEvaluations]:
    """The groups of *Derived Imaging Measurements* by their tracking identifiers."""
    (container,) = report.content[0].ContentSequence.find(codes.DERIVED_MEASUREMENTS)
    groups = [hd.sr.MeasurementsAndQualitativeEvaluations.from_sequence([item]) for item in container.ContentSequence]
    return {str(group.tracking_identifier): group for group in groups}


def remarks_in(report: Dataset) -> list[str]:
    return [item.TextValue for item in evaluations_in(report) if item.ValueType == "TEXT"]


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
        assert values["Probability"] == (pytest.approx(100 * lesion.probability, abs=0.1), "%")
        (certainty,) = group.get_qualitative_evaluations(codes.CERTAINTY_OF_FINDING)
        assert certainty.value == codes.CERTAINTY[lesion.certainty]


@pytest.mark.parametrize("kind", ["classic", "enhanced", "interleaved"])
def test_each_group_points_at_the_segment_that_is_tracked_by_the_same_uid(detection_of: Make, kind: str) -> None:
    detection = detection_of(kind=kind)
    job = ResultContext.of(detection, KEY, CREATED)
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


@pytest.mark.parametrize("options", [{}, {"kind": "interleaved"}, {"patient": Patient(frame_of_reference=False)}])
def test_each_group_has_the_centre_as_a_point(detection_of: Make, options: dict[str, Any]) -> None:
    detection = detection_of(**options)
    swi = detection.acquisition.swi
    slices = {(frame.sop_instance_uid, frame.frame_number): k for k, frame in enumerate(swi.frames)}
    groups = report_of(detection).content.get_volumetric_roi_measurement_groups()
    for lesion, group in zip(detection.findings.lesions, groups, strict=True):
        on_slice, *in_space = group[0].ContentSequence.find(codes.CENTRE)  # OHIF takes the first
        assert on_slice.graphic_type.value == "POINT"
        (image,) = on_slice.ContentSequence[0].ReferencedSOPSequence
        k = slices[image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")]
        assert k == lesion.voxel_ijk[2]
        i, j = on_slice.value[0] - 0.5
        np.testing.assert_allclose((i, j), swi.geometry.to_ijk(lesion.centroid_lps_mm)[:2], atol=1e-4)
        assert len(in_space) == ("patient" not in options)
        for point in in_space:
            assert point.graphic_type.value == "POINT"
            assert point.frame_of_reference_uid == swi.geometry.frame_of_reference_uid
            np.testing.assert_allclose(point.value[0], lesion.centroid_lps_mm, atol=1e-4)


def test_imaging_measurements_has_no_group_without_coordinates(detection_of: Make) -> None:
    for detection in (detection_of(), verified(follow_up(detection_of(lesions=7, regions=True)))):
        (container,) = report_of(detection).content[0].ContentSequence.find(codes.IMAGING_MEASUREMENTS)
        assert len(container.ContentSequence) == len(detection.findings.lesions)
        for group in container.ContentSequence:
            assert {"SCOORD", "SCOORD3D"} <= {item.ValueType for item in group.ContentSequence}


def test_totals_stand_in_a_group_of_their_own(detection_of: Make) -> None:
    detection = detection_of()
    report = report_of(detection)
    assert report.content.get_image_measurement_groups() == []
    ((name, totals),) = derived_in(report).items()
    assert counts_in(totals) == detection.findings.counts
    assert name == "All microbleeds"


def test_a_study_without_lesions_gets_a_report_that_counts_none(detection_of: Make) -> None:
    report = report_of(detection_of(lesions=0))
    assert report.content.get_volumetric_roi_measurement_groups() == []
    (container,) = report.content[0].ContentSequence.find(codes.IMAGING_MEASUREMENTS)
    assert {item.name.meaning for item in container.ContentSequence} >= {"Algorithm Name", "Algorithm Version"}
    (totals,) = derived_in(report).values()
    assert counts_in(totals) == {"total": 0, "definite": 0, "possible": 0}
    assert remarks_in(report)[0].startswith("No cerebral microbleeds found")


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
    assert report.content[0].ContentSequence.find(terms.DCM.ProcedureReported)[0].value == codes.PROCEDURE_REPORTED


def test_region_and_side_are_counted_when_the_lesions_carry_them(detection_of: Make) -> None:
    detection = detection_of(lesions=20, regions=True)
    report = report_of(detection)
    groups = derived_in(report)
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
    (study,) = report_of(detection_of(), ReplacedResult("earlier")).PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == derive_uid("earlier", "sr", "instance")
    assert "PredecessorDocumentsSequence" not in report_of(detection_of())


def test_the_other_objects_of_the_result_are_in_the_evidence(detection_of: Make) -> None:
    made = {one.kind: one.dataset for one in make_results(detection_of(), key=KEY, created=CREATED, key_objects=True)}
    report = made.pop("sr")
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    named = {
        (i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID, s.SeriesInstanceUID)
        for s in study.ReferencedSeriesSequence
        for i in s.ReferencedSOPSequence
    }
    assert {(ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID) for ds in made.values()} <= named
    assert set(made) == {"seg", "capture", "ko"}


def test_a_series_list_tells_the_revisions_apart(detection_of: Make) -> None:
    def listed(detection: Detection, replaces: ReplacedResult | None = None) -> list[tuple[int, str]]:
        made = make_results(detection, key=KEY, created=CREATED, replaces=replaces)
        return [(int(one.dataset.SeriesNumber), str(one.dataset.SeriesDescription)) for one in made]

    first = [(9002, "CMB segmentation"), (9001, "CMB report"), (9003, "CMB montage")]
    assert listed(detection_of()) == [(number, f"{title} (research use only)") for number, title in first]
    third = listed(verified(detection_of()), ReplacedResult("earlier", 2))
    assert third == [(number + 200, f"{title}, verified, revision 3 (research use only)") for number, title in first]
    assert all(len(description) <= 64 for _, description in third)  # LO


def coded_in(report: Dataset) -> dict[str, str]:
    return {
        item.ConceptNameCodeSequence[0].CodeValue: item.ConceptCodeSequence[0].CodeMeaning
        for item in evaluations_in(report)
        if item.ValueType == "CODE"
    }


def test_pattern_burden_and_grade_are_coded(detection_of: Make) -> None:
    assert coded_in(report_of(detection_of(lesions=0))) == {"BURDEN": "0", "PATTERN": "No microbleed"}
    assert coded_in(report_of(detection_of())) == {"BURDEN": "5 to 9"}  # location not assessed
    report = report_of(follow_up(detection_of(lesions=20, regions=True)))
    pattern = "Lobar and deep or infratentorial"
    assert coded_in(report) == {"BURDEN": "10 or more", "PATTERN": pattern, "ARIA_H": "Mild"}
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == codes.PRIVATE_SCHEME


def test_change_is_counted_and_each_bleed_has_its_trend(detection_of: Make) -> None:
    detection = follow_up(detection_of(lesions=7, regions=True))
    report = report_of(detection)
    groups = derived_in(report)
    counts = counts_in(groups["Microbleeds: change over time"])
    assert counts == {"new": 2, "stable": 4, "no longer seen": 1, "change not decided": 1}
    trends = []
    for group in report.content.get_volumetric_roi_measurement_groups():
        (evaluation,) = group.get_qualitative_evaluations(codes.CHANGE)
        trends.append(evaluation.value.meaning)
        texts = [item.TextValue for item in group[0].ContentSequence if item.ValueType == "TEXT"]
        assert "Follow-up of 2025-03-02" in texts
    assert trends == ["Stable", "Stable", "New", "Stable", "Stable", "New", "Change not decided"]
    remarks = " ".join(remarks_in(report))
    for text in (
        "since 2025-03-02: 2 new, 4 stable, 1 no longer seen",
        "No longer seen: left frontal (lobar), 3.1 mm",
        "mild",
    ):
        assert text in remarks
    assert "the earlier scan is T2*-GRE" in remarks.replace("The", "the")


def test_the_earlier_report_is_named_as_evidence_of_another_study(detection_of: Make) -> None:
    (study,) = report_of(follow_up(detection_of())).PertinentOtherEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == ("2.25.72", "2.25.74")
    assert instance.ReferencedSOPInstanceUID == "2.25.73"


def test_a_comparison_that_was_not_made_counts_nothing_and_says_why(detection_of: Make) -> None:
    compared = follow_up(detection_of())
    change = replace(compared.findings.change, assessed=False, why="the scans do not overlap", aria_h=None)
    lesions = tuple(replace(x, trend=None) for x in compared.findings.lesions)
    findings = replace(compared.findings, change=change, lesions=lesions)
    report = report_of(replace(compared, findings=findings))
    assert "Microbleeds: change over time" not in derived_in(report)
    assert "not assessed: the scans do not overlap" in remarks_in(report)[0]


def test_the_measures_of_the_images_have_a_group(detection_of: Make) -> None:
    report = report_of(follow_up(detection_of(lesions=0)))
    group = derived_in(report)["Image quality"]
    values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
    assert values["Signal to Noise Ratio"] == (17.3, "1")
    assert values["Share of the brain inside the slices"] == (98.0, "%")
    assert values["Spacing between slices"] == (2.0, "mm")
    assert values["Energy of ghosts over background"] == (1.03, "1")


def test_a_verified_report_says_by_whom_and_when(detection_of: Make) -> None:
    latin = {"SpecificCharacterSet": "ISO_IR 100", "TimezoneOffsetFromUTC": "+0100"}
    report = report_of(verified(detection_of(tags=latin)), ReplacedResult("earlier"))
    assert (report.VerificationFlag, report.CompletionFlag, report.PreliminaryFlag) == ("VERIFIED", "COMPLETE", "FINAL")
    (observer,) = report.VerifyingObserverSequence
    assert str(observer.VerifyingObserverName) == "Müller^Jürgen"
    assert observer.VerifyingOrganization == "Klinikum Köln"
    assert str(observer.VerificationDateTime) == "20260304103000+0100"
    assert "PredecessorDocumentsSequence" in report
    types = {c.observer_type.meaning for c in report.content.get_observer_contexts()}
    assert types == {"Person", "Device"}
    assert any("Verified by Jürgen Müller, Klinikum Köln" in text for text in remarks_in(report))


def test_a_name_that_the_character_set_cannot_hold_is_written_in_latin_letters(detection_of: Make) -> None:
    report = report_of(verified(detection_of(tags={"SpecificCharacterSet": None}), "Müller^Jürgen"))
    assert str(report.VerifyingObserverSequence[0].VerifyingObserverName) == "Muller^Jurgen"


def test_rejected_bleeds_are_named_and_not_measured(detection_of: Make) -> None:
    report = report_of(verified(detection_of()))
    (text,) = [text for text in remarks_in(report) if text.startswith("Rejected")]
    assert text.endswith("not counted: microbleed 9, right thalamus (deep), 2.2 mm.")
    uids = {g.tracking_uid for g in report.content.get_volumetric_roi_measurement_groups()}
    assert "2.25.75" not in uids
    assert len(uids) == 5


def test_an_added_bleed_has_no_probability_and_no_algorithm(detection_of: Make) -> None:
    *found, added = report_of(verified(detection_of())).content.get_volumetric_roi_measurement_groups()

    def names(group: Dataset) -> set[str]:
        return {item.ConceptNameCodeSequence[0].CodeMeaning for item in group[0].ContentSequence}

    assert {"Probability", "Algorithm Name"} <= names(found[0])
    assert not {"Probability", "Algorithm Name"} & names(added)
    assert {"Diameter", "Volume"} <= names(added)
