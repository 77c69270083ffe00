"""What was found, in words and numbers a machine can read?

A Comprehensive 3D SR by TID 1500 (PS3.16), in the manner of IHE AI Results: totals (TID 1501), a group for each lesion
(TID 1411), remarks, and the images it all rests on.

The report is a list of groups: a new kind of group (location, change over time) is one more function in `_groups`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import highdicom as hd
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    FindingSite,
    ImageContentItem,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    UIDRefContentItem,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes as terms
from pydicom.uid import Comprehensive3DSRStorage

from pipeline.findings import Certainty, Lesion
from pipeline.geometry import Volume
from pipeline.identity import derive_uid

from . import codes
from .common import LOCATION_NOT_ASSESSED, MANUFACTURER, MODEL, NOT_ASSESSED, RESEARCH_ONLY, SEQUENCE_CAVEAT, Job, plain
from .segmentation import tracking_identifier

SERIES_NUMBER: Final = 9001

_CONTAINS: Final = RelationshipTypeValues.CONTAINS
_ACQUISITION: Final = RelationshipTypeValues.HAS_ACQ_CONTEXT


def make_report(job: Job, segmentation: Dataset | None, predecessor: str | None = None) -> Dataset:
    """Make the report.

    Parameters
    ----------
    job : Job
        The detection and its context.
    segmentation : Dataset or None
        From :func:`pipeline.results.segmentation.make_segmentation`.
    predecessor : str, optional
        Key of the job whose report this one replaces (its UIDs derive from that key).
    """
    evidence = list(job.source.instances()) + ([segmentation] if segmentation is not None else [])
    report = Comprehensive3DSR(
        evidence=evidence,
        content=_document(job, segmentation),
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=None if predecessor is None else [_document_reference(job, predecessor)],
        **job.general("sr", SERIES_NUMBER, f"CMB report ({RESEARCH_ONLY.split(' -')[0].lower()})"),
    )
    return job.finish(report)


def _document_reference(job: Job, key: str) -> Dataset:
    reference = job.source.blank()
    reference.SOPClassUID = Comprehensive3DSRStorage
    reference.SeriesInstanceUID = derive_uid(key, "sr", "series")
    reference.SOPInstanceUID = derive_uid(key, "sr", "instance")
    return reference


def _document(job: Job, segmentation: Dataset | None) -> MeasurementReport:
    """TID 1500. highdicom has no rows 5 (for enhanced images) and 12 of it; both are put in here."""
    document = MeasurementReport(
        observation_context=_observer(job),
        procedure_reported=codes.PROCEDURE_REPORTED,
        imaging_measurements=list(_groups(job, segmentation)),
    )
    content = document[0].ContentSequence
    measurements = content.pop()
    content.extend([_image_library(job), measurements, _remarks(job)])
    return document


def _groups(
    job: Job, segmentation: Dataset | None
) -> Iterator[MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations]:
    lesions = job.detection.findings.lesions
    yield _totals(job, lesions, "All microbleeds", [FindingSite(codes.BRAIN)])
    by_place: dict[tuple[str, str], list[Lesion]] = defaultdict(list)
    for lesion in lesions:
        if lesion.region is not None:
            by_place[lesion.region, lesion.side or ""].append(lesion)
    for (region, side), found in sorted(by_place.items()):
        sites = [FindingSite(*place) for place in dict.fromkeys(map(codes.site, found))]
        yield _totals(job, tuple(found), f"Microbleeds: {region} {side}".strip(), sites)
    if segmentation is not None:
        for number, lesion in enumerate(lesions, start=1):
            yield _lesion(job, lesion, number, segmentation)


def _observer(job: Job) -> hd.sr.ObservationContext:
    device = job.device
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=device.uid,
        name=device.algorithm,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL,
        serial_number=device.serial_number,
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=terms.DCM.Device, observer_identifying_attributes=attributes
        )
    )


def _algorithm(job: Job) -> AlgorithmIdentification:
    """TID 4019."""
    device = job.device
    return AlgorithmIdentification(
        name=device.algorithm,
        version=plain(device.software),
        parameters=[f"{name}={value}" for name, value in device.parameters.items()],
        family=device.family,
    )


def _totals(
    job: Job, lesions: tuple[Lesion, ...], name: str, sites: list[FindingSite]
) -> MeasurementsAndQualitativeEvaluations:
    """TID 1501: how many, and how many of each certainty."""
    counts = [_count(len(lesions))]
    counts += [_count(sum(lesion.certainty == c for lesion in lesions), c) for c in Certainty]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=job.uid("sr", "totals", name), identifier=name),
        finding_type=codes.HEMORRHAGE,
        finding_sites=sites,
        algorithm_id=_algorithm(job),
        measurements=counts,
    )


def _count(number: int, certainty: Certainty | None = None) -> Measurement:
    """TID 300; the certainty counted, if any, is a modifier of the concept name (row 2)."""
    measurement = Measurement(name=codes.NUMBER_OF_LESIONS, value=number, unit=codes.COUNT)
    measurement[0].MeasuredValueSequence[0].NumericValue = str(number)  # highdicom writes "5.0"
    if certainty is not None:
        modifier = CodeContentItem(
            name=codes.CERTAINTY_OF_FINDING,
            value=codes.CERTAINTY[certainty],
            relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
        measurement[0].ContentSequence = ContentSequence([modifier])
    return measurement


def _lesion(
    job: Job, lesion: Lesion, number: int, segmentation: Dataset
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """TID 1411, with tracking identifiers equal to those of segment `number`."""
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=lesion.tracking_uid, identifier=tracking_identifier(lesion)),
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_images=_slices_of(segmentation, number),
        ),
        finding_type=codes.HEMORRHAGE,
        finding_sites=[FindingSite(*codes.site(lesion))],
        algorithm_id=_algorithm(job),
        measurements=[
            Measurement(name=codes.DIAMETER, value=round(lesion.diameter_mm, 2), unit=codes.MILLIMETRE),
            Measurement(name=codes.VOLUME, value=round(lesion.volume_mm3, 2), unit=codes.CUBIC_MILLIMETRE),
            Measurement(name=codes.PROBABILITY, value=round(100 * lesion.probability, 1), unit=codes.PERCENT),
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(name=codes.CERTAINTY_OF_FINDING, value=codes.CERTAINTY[lesion.certainty])
        ],
    )


def _slices_of(segmentation: Dataset, number: int) -> list[SourceImageForSegmentation]:
    """The source frames that segment `number` was drawn on, as the SEG itself names them; one item an instance."""
    frames: dict[tuple[str, str], list[int]] = {}
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        if _segment_number(segmentation, groups) == number:
            item = groups.DerivationImageSequence[0].SourceImageSequence[0]
            where = frames.setdefault((item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID), [])
            if "ReferencedFrameNumber" in item:
                where.append(int(item.ReferencedFrameNumber))
    return [SourceImageForSegmentation(*uids, sorted(numbers) or None) for uids, numbers in frames.items()]


def _segment_number(segmentation: Dataset, groups: Dataset) -> int:
    """Of one frame; a segmentation with a single segment says it once, for all frames."""
    if "SegmentIdentificationSequence" not in groups:
        groups = segmentation.SharedFunctionalGroupsSequence[0]
    return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _image_library(job: Job) -> ContainerContentItem:
    """TID 1600: every image analysed, one group a series, with what its images have in common (TID 1602)."""
    library = ContainerContentItem(name=terms.DCM.ImageLibrary, relationship_type=_CONTAINS)
    library.ContentSequence = ContentSequence([_library_group(volume) for volume in job.source.series])
    return library


def _library_group(volume: Volume) -> ContainerContentItem:
    items: list[ContentItem] = [
        CodeContentItem(name=terms.DCM.Modality, value=terms.cid29.MagneticResonance, relationship_type=_ACQUISITION)
    ]
    if volume.geometry.frame_of_reference_uid:
        items.append(
            UIDRefContentItem(
                name=terms.DCM.FrameOfReferenceUID,
                value=volume.geometry.frame_of_reference_uid,
                relationship_type=_ACQUISITION,
            )
        )
    _, rows, columns = volume.geometry.shape
    pixels = hd.sr.CodedConcept("{pixels}", "UCUM", "Pixels")
    for name, value in ((terms.DCM.PixelDataRows, rows), (terms.DCM.PixelDataColumns, columns)):
        items.append(NumContentItem(name=name, value=value, unit=pixels, relationship_type=_ACQUISITION))
    for sop_class, uid in dict.fromkeys((f.sop_class_uid, f.sop_instance_uid) for f in volume.frames):
        numbers = [f.frame_number for f in volume.frames if f.sop_instance_uid == uid and f.frame_number is not None]
        items.append(
            ImageContentItem(
                name=codes.SOURCE,
                referenced_sop_class_uid=sop_class,
                referenced_sop_instance_uid=uid,
                referenced_frame_numbers=sorted(numbers) or None,
                relationship_type=_CONTAINS,
            )
        )
    group = ContainerContentItem(name=terms.DCM.ImageLibraryGroup, relationship_type=_CONTAINS)
    group.ContentSequence = ContentSequence(items)
    return group


def _remarks(job: Job) -> ContainerContentItem:
    """TID 1500, rows 12 and 14: the result in one line, then what to know about it."""
    findings = job.detection.findings
    counts = findings.counts
    summary = f"{counts['total']} cerebral microbleeds: {counts['definite']} definite, {counts['possible']} possible"
    comments = [f"{RESEARCH_ONLY}.", f"{NOT_ASSESSED}."]
    if any(lesion.region is None for lesion in findings.lesions):
        comments.append(f"{LOCATION_NOT_ASSESSED}.")
    comments += [f"{SEQUENCE_CAVEAT}.", *([f"{findings.phase}."] if findings.phase else []), *findings.warnings]
    container = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(
        [
            TextContentItem(name=name, value=plain(text), relationship_type=_CONTAINS)
            for name, text in [(codes.SUMMARY, f"{summary}."), *((codes.COMMENT, text) for text in comments)]
        ]
    )
    return container
