"""What was found, in words and numbers a machine can read?

A Comprehensive 3D SR by TID 1500 (PS3.16) that follows IHE AI Results: the measurement groups
(:mod:`pipeline.results.sr.measurement_groups`), evaluations and remarks in words, and the images that were analysed.
It is the root of the result: its content names every other object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import highdicom as hd
from highdicom.sr import (
    CodeContentItem,
    CompositeContentItem,
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

from pipeline.findings import Verification, wording
from pipeline.geometry import Volume
from pipeline.results import codes
from pipeline.results.context import MANUFACTURER, MODEL, ResultContext, plain
from pipeline.uids import derive_uid

from .measurement_groups import algorithm, derived_groups, lesion_groups

SERIES_NUMBER: Final = 9001

_CONTAINS: Final = RelationshipTypeValues.CONTAINS
_ACQUISITION: Final = RelationshipTypeValues.HAS_ACQ_CONTEXT
_NAME_LENGTH: Final = 64


@dataclass(frozen=True)
class Companions:
    """The other objects of a result, as far as there are any."""

    segmentation: Dataset | None = None
    capture: Dataset | None = None
    key_objects: Dataset | None = None

    @property
    def all(self) -> list[Dataset]:
        """Those that there are."""
        return [ds for ds in (self.segmentation, self.capture, self.key_objects) if ds is not None]


def make_report(job: ResultContext, companions: Companions) -> Dataset:
    """Make the report.

    Parameters
    ----------
    job : ResultContext
        The detection and its context. If its findings are verified, so is the report.
    companions : Companions
        The other objects of the result, which the report names.
    """
    verification = job.detection.findings.verification
    report = Comprehensive3DSR(
        evidence=[*job.source.instances(), *companions.all],
        content=_document(job, companions),
        is_complete=True,
        is_final=verification is not None,
        is_verified=verification is not None,
        verifying_observer_name=None if verification is None else _name(job, verification),
        verifying_organization=None if verification is None else _organisation(job, verification),
        previous_versions=None if job.replaces is None else [_document_reference(job, job.replaces.key)],
        **job.general("sr", SERIES_NUMBER, "CMB report"),
    )
    if verification is not None:  # highdicom writes the present time
        report.VerifyingObserverSequence[0].VerificationDateTime = DT(
            verification.at.astimezone(job.created.tzinfo).replace(microsecond=0)
        )
    _name_prior(report, job)
    report.add_new("CodingSchemeIdentificationSequence", "SQ", [_private_scheme()])
    return job.finish(report)


def _name(job: ResultContext, verification: Verification) -> str:
    """The observer as PN; a name without carets becomes the family name."""
    name = job.text(" ".join(verification.observer.split()), _NAME_LENGTH)
    return name if "^" in name else f"{name}^"


def _organisation(job: ResultContext, verification: Verification) -> str:
    return job.text(" ".join(verification.organisation.split()), _NAME_LENGTH) or "unknown"


def _document_reference(job: ResultContext, key: str) -> Dataset:
    reference = job.source.blank()
    reference.SOPClassUID = Comprehensive3DSRStorage
    reference.SeriesInstanceUID = derive_uid(key, "sr", "series")
    reference.SOPInstanceUID = derive_uid(key, "sr", "instance")
    return reference


def _name_prior(report: Dataset, job: ResultContext) -> None:
    """Reference the report of the prior study as pertinent evidence (PS3.3 C.17.2.3)."""
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
    """SOP Common (C.12.1): the meaning of the private coding scheme designator."""
    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = codes.PRIVATE_SCHEME, codes.PRIVATE_SCHEME_NAME
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return item


def _document(job: ResultContext, companions: Companions) -> MeasurementReport:
    """TID 1500. highdicom lacks rows 5 (for enhanced images), 6b, 10 and 12; they are added here.

    The template is extensible: the last container, of the objects of this result, is no row of it.
    """
    derived = list(derived_groups(job))
    document = MeasurementReport(
        observation_context=_observers(job),
        procedure_reported=codes.PROCEDURE_REPORTED,
        imaging_measurements=derived,  # highdicom requires some; replaced below
    )
    content = document[0].ContentSequence
    content.pop()
    content.append(_image_library(job))
    content.append(
        _measurements(codes.IMAGING_MEASUREMENTS, list(lesion_groups(job, companions.segmentation)) or [algorithm(job)])
    )
    content.append(_measurements(codes.DERIVED_MEASUREMENTS, derived))
    content.append(_evaluations(job))
    if companions.all:
        content.append(_objects(companions))
    return document


def _measurements(name: Code, parts: Sequence[ContentSequence]) -> ContainerContentItem:
    """TID 1500, row 6 or 10. Viewers expect row 6 even if there is no microbleed; it then names the algorithm alone."""
    container = ContainerContentItem(name=name, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence([item for part in parts for item in part])
    return container


def _observers(job: ResultContext) -> hd.sr.ObservationContext:
    """TID 1001: the detector (TID 1004), and the reader who verified its result (TID 1003)."""
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


def _image_library(job: ResultContext) -> ContainerContentItem:
    """TID 1600: every image analysed, one group per series, with its common properties (TID 1602)."""
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


def _evaluations(job: ResultContext) -> ContainerContentItem:
    """TID 1500, rows 12 to 14: the result in words and codes, then remarks."""
    findings = job.detection.findings
    container = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(
        [
            _text(codes.SUMMARY, plain(wording.impression(findings))),
            *_coded(job),
            *(_text(codes.COMMENT, job.text(" ".join(f"{text}.".split()))) for text in wording.remarks(findings)),
        ]
    )
    return container


def _objects(companions: Companions) -> ContainerContentItem:
    """The other objects of the result: what displays images shows the images, and opens the document."""
    items: list[ContentItem] = []
    for name, image in ((codes.SEGMENTATION, companions.segmentation), (codes.PICTURE, companions.capture)):
        if image is not None:
            items.append(ImageContentItem(name, image.SOPClassUID, image.SOPInstanceUID, relationship_type=_CONTAINS))
    if (document := companions.key_objects) is not None:
        reference = document.SOPClassUID, document.SOPInstanceUID
        items.append(CompositeContentItem(codes.KEY_IMAGES, *reference, relationship_type=_CONTAINS))
    container = ContainerContentItem(name=codes.RESULT_OBJECTS, relationship_type=_CONTAINS)
    container.ContentSequence = ContentSequence(items)
    return container


def _coded(job: ResultContext) -> list[CodeContentItem]:
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
