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
from tests.pipeline.results.studies import CREATED, KEY, Detection, follow_up, verified


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


def coded_in(report: Dataset) -> dict[str, str]:
    items = report.ContentSequence[-1].ContentSequence
    return {
        item.ConceptNameCodeSequence[0].CodeValue: item.ConceptCodeSequence[0].CodeMeaning
        for item in items
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
    groups = {g.tracking_identifier: g for g in report.content.get_image_measurement_groups()}
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
    for text in ("since 2025-03-02: 2 new, 4 stable, 1 no longer seen", "No longer seen: left frontal, 3.1 mm", "mild"):
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
    assert "Microbleeds: change over time" not in {
        g.tracking_identifier for g in report.content.get_image_measurement_groups()
    }
    assert "not assessed: the scans do not overlap" in remarks_in(report)[0]


def test_the_measures_of_the_images_have_a_group(detection_of: Make) -> None:
    report = report_of(follow_up(detection_of(lesions=0)))
    group = next(g for g in report.content.get_image_measurement_groups() if g.tracking_identifier == "Image quality")
    values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
    assert values["Signal to Noise Ratio"] == (17.3, "1")
    assert values["Share of the brain inside the slices"] == (98.0, "%")
    assert values["Spacing between slices"] == (2.0, "mm")
    assert values["Energy of ghosts over background"] == (1.03, "1")


def test_a_verified_report_says_by_whom_and_when(detection_of: Make) -> None:
    latin = {"SpecificCharacterSet": "ISO_IR 100", "TimezoneOffsetFromUTC": "+0100"}
    report = report_of(verified(detection_of(tags=latin)), predecessor="earlier")
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
    assert text.endswith("not counted: microbleed 9 (right thalamus, 2.2 mm).")
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
