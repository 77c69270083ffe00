"""What was found, in words and numbers a machine can read?

A Comprehensive 3D SR by TID 1500 (PS3.16), in the manner of IHE AI Results: the measurement groups
(:mod:`pipeline.results.groups`), evaluations and remarks in words, and the images it all rests on.
"""

from __future__ import annotations

from typing import Final

import highdicom as hd
from highdicom.sr import (
    CodeContentItem,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    MeasurementReport,
    NumContentItem,
    RelationshipTypeValues,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes as terms
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage
from pydicom.valuerep import DT

from pipeline.findings import Verification
from pipeline.geometry import Volume
from pipeline.identity import derive_uid

from . import codes, words
from .common import MANUFACTURER, MODEL, RESEARCH_ONLY, Job, plain
from .groups import measurement_groups

SERIES_NUMBER: Final = 9001

_CONTAINS: Final = RelationshipTypeValues.CONTAINS
_ACQUISITION: Final = RelationshipTypeValues.HAS_ACQ_CONTEXT
_NAME_LENGTH: Final = 64


def make_report(job: Job, segmentation: Dataset | None, predecessor: str | None = None) -> Dataset:
    """Make the report.

    Parameters
    ----------
    job : Job
        The detection and its context. If its findings were verified, the report is, by whom and when they say.
    segmentation : Dataset or None
        From :func:`pipeline.results.segmentation.make_segmentation`.
    predecessor : str, optional
        Key of the job whose report this one replaces (its UIDs derive from that key).
    """
    verification = job.detection.findings.verification
    report = Comprehensive3DSR(
        evidence=list(job.source.instances()) + ([segmentation] if segmentation is not None else []),
        content=_document(job, segmentation),
        is_complete=True,
        is_final=verification is not None,
        is_verified=verification is not None,
        verifying_observer_name=None if verification is None else _name(job, verification),
        verifying_organization=None if verification is None else _organisation(job, verification),
        previous_versions=None if predecessor is None else [_document_reference(job, predecessor)],
        **job.general("sr", SERIES_NUMBER, f"CMB report ({RESEARCH_ONLY.split(' -')[0].lower()})"),
    )
    if verification is not None:  # highdicom says now
        report.VerifyingObserverSequence[0].VerificationDateTime = DT(
            verification.at.astimezone(job.created.tzinfo).replace(microsecond=0)
        )
    _name_prior(report, job)
    report.add_new("CodingSchemeIdentificationSequence", "SQ", [_private_scheme()])
    return job.finish(report)


def _name(job: Job, verification: Verification) -> str:
    """The observer as PN: what is no ``Family^Given`` is all family name."""
    name = job.text(" ".join(verification.observer.split()), _NAME_LENGTH)
    return name if "^" in name else f"{name}^"


def _organisation(job: Job, verification: Verification) -> str:
    return job.text(" ".join(verification.organisation.split()), _NAME_LENGTH) or "unknown"


def _document_reference(job: Job, key: str) -> Dataset:
    reference = job.source.blank()
    reference.SOPClassUID = Comprehensive3DSRStorage
    reference.SeriesInstanceUID = derive_uid(key, "sr", "series")
    reference.SOPInstanceUID = derive_uid(key, "sr", "instance")
    return reference


def _name_prior(report: Dataset, job: Job) -> None:
    """Name the report of the earlier study as pertinent evidence (PS3.3 C.17.2.3): it is of another study."""
    change = job.detection.findings.change
    if change is None or not change.prior_sr_sop_instance_uid or not change.prior_sr_series_instance_uid:
        return
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = Comprehensive3DSRStorage
    instance.ReferencedSOPInstanceUID = change.prior_sr_sop_instance_uid
    series.SeriesInstanceUID, series.ReferencedSOPSequence = change.prior_sr_series_instance_uid, [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = change.prior_study_instance_uid, [series]
    report.PertinentOtherEvidenceSequence = [study]


def _private_scheme() -> Dataset:
    """SOP Common (C.12.1): what the private designator of codes stands for."""
    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = codes.PRIVATE_SCHEME, codes.PRIVATE_SCHEME_NAME
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return item


def _document(job: Job, segmentation: Dataset | None) -> MeasurementReport:
    """TID 1500. highdicom has no rows 5 (for enhanced images) and 12 of it; both are put in here."""
    document = MeasurementReport(
        observation_context=_observers(job),
        procedure_reported=codes.PROCEDURE_REPORTED,
        imaging_measurements=list(measurement_groups(job, segmentation)),
    )
    content = document[0].ContentSequence
    measurements = content.pop()
    content.extend([_image_library(job), measurements, _evaluations(job)])
    return document


def _observers(job: Job) -> hd.sr.ObservationContext:
    """TID 1001: the detector (TID 1004), and whoever verified its result (TID 1003)."""
    device = job.device
    attributes = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=device.uid,
        name=device.algorithm,
        manufacturer_name=MANUFACTURER,
        model_name=MODEL,
        serial_number=device.serial_number,
    )
    verification = job.detection.findings.verification
    person = None
    if verification is not None:
        person = hd.sr.ObserverContext(
            observer_type=terms.DCM.Person,
            observer_identifying_attributes=hd.sr.PersonObserverIdentifyingAttributes(
                name=_name(job, verification),
                organization_name=_organisation(job, verification),
                role_in_procedure=codes.VERIFYING,
            ),
        )
    return hd.sr.ObservationContext(
        observer_person_context=person,
        observer_device_context=hd.sr.ObserverContext(
            observer_type=terms.DCM.Device, observer_identifying_attributes=attributes
        ),
    )


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


def _evaluations(job: Job) -> ContainerContentItem:
    """TID 1500, rows 12 to 14: the result in a few words and codes, then what to know about it."""
    findings = job.detection.findings
    lines = [words.counted(findings), words.patterned(findings)]
    lines += [words.changed(findings.change)] if findings.change is not None else []
    summary = ". ".join(line for line in lines if line)
    container = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(
        [
            _text(codes.SUMMARY, plain(f"{summary}.")),
            *_coded(job),
            *(_text(codes.COMMENT, job.text(" ".join(f"{text}.".split()))) for text in words.comments(findings)),
        ]
    )
    return container


def _coded(job: Job) -> list[CodeContentItem]:
    """Pattern, burden and grade, for machines."""
    findings = job.detection.findings
    summary, change = findings.summary, findings.change
    values = [(codes.BURDEN, codes.BURDENS[summary.burden])]
    if summary.pattern is not None:
        values.append((codes.PATTERN, codes.PATTERNS[summary.pattern]))
    if change is not None and change.aria_h in codes.GRADES:
        values.append((codes.ARIA_H, codes.GRADES[change.aria_h]))
    return [CodeContentItem(name=name, value=value, relationship_type=_CONTAINS) for name, value in values]


def _text(name: Code, value: str) -> TextContentItem:
    return TextContentItem(name=name, value=value, relationship_type=_CONTAINS)
