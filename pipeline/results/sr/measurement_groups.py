"""What is measured, and of what? The measurement groups of the report.

*Imaging Measurements* has one group for each microbleed (TID 1411), with its centre as a point, and no other: OHIF
reads the coordinates of every group there and fails at one without. Totals of all microbleeds, of each region and side
and of changes, and the measures of the images (TID 1501) are in *Derived Imaging Measurements*. TID 1500 has
measurements derived from several regions there (TID 1420) and is extensible. TID 1420 itself would need references to
the content items of the groups, which many readers (highdicom among them) do not support, and a study without
microbleeds has no such group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    ContentSequence,
    CoordinatesForMeasurement,
    FindingSite,
    GraphicTypeValues,
    GraphicTypeValues3D,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    Scoord3DContentItem,
    ScoordContentItem,
    SourceImageForRegion,
    SourceImageForSegmentation,
    TimePointContext,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.coding import Code

from pipeline.findings import Certainty, Lesion, LesionOrigin, Trend, wording
from pipeline.results import codes
from pipeline.results.context import ResultContext, plain
from pipeline.results.seg.reader import segment_number

Group = MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations


def lesion_groups(job: ResultContext, segmentation: Dataset | None) -> Iterator[Group]:
    """The groups of *Imaging Measurements*: one for each microbleed, in the order of the segments."""
    if segmentation is not None:
        for number, lesion in enumerate(job.detection.findings.lesions, start=1):
            yield _lesion(job, lesion, number, segmentation)


def derived_groups(job: ResultContext) -> Iterator[Group]:
    """The groups of *Derived Imaging Measurements*: totals, change since the prior study and image quality."""
    lesions = job.detection.findings.lesions
    yield _totals(job, lesions, "All microbleeds", [FindingSite(codes.BRAIN)])
    yield from _regions(job, lesions)
    yield from _change(job)
    yield from _quality(job)


def algorithm(job: ResultContext) -> AlgorithmIdentification:
    """TID 4019."""
    device = job.device
    return AlgorithmIdentification(
        name=device.algorithm,
        version=plain(device.software),
        parameters=[f"{name}={value}" for name, value in device.parameters.items()],
        family=device.family,
    )


def _summary_group(
    job: ResultContext,
    name: str,
    finding: Code,
    measurements: Sequence[Measurement],
    sites: Sequence[FindingSite] | None = None,
    time_point: TimePointContext | None = None,
) -> MeasurementsAndQualitativeEvaluations:
    """TID 1501."""
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=job.uid("sr", "totals", name), identifier=name),
        time_point_context=time_point,
        finding_type=finding,
        finding_sites=sites,
        algorithm_id=algorithm(job),
        measurements=measurements,
    )


def _totals(
    job: ResultContext, lesions: Sequence[Lesion], name: str, sites: Sequence[FindingSite]
) -> MeasurementsAndQualitativeEvaluations:
    """How many, and how many of each certainty."""
    counts = [_count(len(lesions))]
    for certainty, code in codes.CERTAINTY.items():
        number = sum(lesion.certainty == certainty for lesion in lesions)
        counts.append(_count(number, (codes.CERTAINTY_OF_FINDING, code)))
    return _summary_group(job, name, codes.HEMORRHAGE, counts, sites)


def _regions(job: ResultContext, lesions: Sequence[Lesion]) -> Iterator[Group]:
    """The region and side table, row by row."""
    for row in job.detection.findings.summary.by_region_and_side:
        region, _, side = row.place
        if region is not None:
            found = [lesion for lesion in lesions if (lesion.region, lesion.side) == (region, side)]
            sites = [FindingSite(*place) for place in dict.fromkeys(map(codes.site, found))]
            yield _totals(job, found, f"Microbleeds: {region} {side or ''}".strip(), sites)


def _change(job: ResultContext) -> Iterator[Group]:
    """How many are new, stable and no longer seen."""
    change = job.detection.findings.change
    if change is None or not change.assessed:
        return
    counts = [(change.new, codes.TRENDS[Trend.NEW]), (change.stable, codes.TRENDS[Trend.STABLE])]
    counts += [(len(change.no_longer_seen), codes.NO_LONGER_SEEN), (len(change.undecided), codes.UNDECIDED)]
    yield _summary_group(
        job,
        "Microbleeds: change over time",
        codes.HEMORRHAGE,
        [_count(number, (codes.CHANGE, code)) for number, code in counts],
        [FindingSite(codes.BRAIN)],
        _time_point(job),
    )


def _time_point(job: ResultContext) -> TimePointContext | None:
    """TID 1502: the study that the present one is compared with; ``None`` without a comparison."""
    change = job.detection.findings.change
    if change is None or not change.assessed:
        return None
    since = wording.date(change.prior_study_date)
    return TimePointContext(time_point=plain(f"Follow-up of {since}" if since else "Follow-up"))


def _quality(job: ResultContext) -> Iterator[Group]:
    """What was measured of the images."""
    quality = job.detection.findings.image_quality
    if quality is None:
        return
    share = None if quality.coverage is None else round(100 * quality.coverage, 1)
    measured = [
        (codes.IN_PLANE, quality.in_plane_mm, codes.MILLIMETRE),
        (codes.SLICE_STEP, quality.slice_mm, codes.MILLIMETRE),
        (codes.COVERAGE, share, codes.PERCENT),
        (codes.SIGNAL_TO_NOISE, quality.snr, codes.COUNT),
        (codes.GHOSTS, quality.motion, codes.COUNT),
    ]
    values = [Measurement(name=name, value=value, unit=unit) for name, value, unit in measured if value is not None]
    if values:
        yield _summary_group(job, "Image quality", codes.IMAGE_QUALITY, values)


def _count(number: int, kind: tuple[Code, Code] | None = None) -> Measurement:
    """TID 300; what kind is counted, if any, is a modifier of the concept name (row 2): its name and value."""
    measurement = Measurement(name=codes.NUMBER_OF_LESIONS, value=number, unit=codes.COUNT)
    measurement[0].MeasuredValueSequence[0].NumericValue = str(number)  # highdicom writes "5.0"
    if kind is not None:
        name, value = kind
        modifier = CodeContentItem(name=name, value=value, relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD)
        measurement[0].ContentSequence = ContentSequence([modifier])
    return measurement


def _lesion(
    job: ResultContext, lesion: Lesion, number: int, segmentation: Dataset
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """TID 1411, with tracking identifiers equal to those of segment `number`.

    A microbleed that a reader added has neither a probability nor an algorithm that found it.
    """
    detected = lesion.origin is LesionOrigin.DETECTED
    measurements = [
        Measurement(name=codes.DIAMETER, value=round(lesion.diameter_mm, 2), unit=codes.MILLIMETRE),
        Measurement(name=codes.VOLUME, value=round(lesion.volume_mm3, 2), unit=codes.CUBIC_MILLIMETRE),
    ]
    if detected:
        probability = round(100 * wording.stated_probability(lesion), 1)
        measurements.append(Measurement(name=codes.PROBABILITY, value=probability, unit=codes.PERCENT))
    group = VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=lesion.tracking_uid, identifier=wording.name(lesion)),
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_images=_slices_of(segmentation, number),
        ),
        time_point_context=_time_point(job),
        finding_type=codes.HEMORRHAGE,
        finding_sites=[FindingSite(*codes.site(lesion))],
        algorithm_id=algorithm(job) if detected else None,
        measurements=measurements,
        qualitative_evaluations=list(_evaluations(job, lesion)),
    )
    measurements[0][0].ContentSequence = ContentSequence(
        [_point_on_slice(job, lesion)]
    )  # Cornerstone's adapters look here
    group[0].ContentSequence.extend(_centre(job, lesion))
    return group


def _centre(job: ResultContext, lesion: Lesion) -> Iterator[ScoordContentItem | Scoord3DContentItem]:
    """The centre as a point on its slice and, if the images have a frame of reference, in patient coordinates.

    The point on the slice comes first: OHIF uses only the first, and with patient coordinates it may show another
    series of the same frame of reference, and not the slice.
    """
    on_slice = _point_on_slice(job, lesion)
    on_slice.RelationshipType = RelationshipTypeValues.CONTAINS.value
    yield on_slice
    geometry = job.detection.acquisition.swi.geometry
    if geometry.frame_of_reference_uid:
        yield Scoord3DContentItem(
            name=codes.CENTRE,
            graphic_type=GraphicTypeValues3D.POINT,
            graphic_data=np.array([lesion.centroid_lps_mm]),
            frame_of_reference_uid=geometry.frame_of_reference_uid,
            relationship_type=RelationshipTypeValues.CONTAINS,
        )


def _point_on_slice(job: ResultContext, lesion: Lesion) -> CoordinatesForMeasurement:
    """The centre in image coordinates, which count from the corner of the first pixel (PS3.3 C.18.6.1.1)."""
    swi = job.detection.acquisition.swi
    frame = swi.frames[lesion.voxel_ijk[2]]
    i, j, _ = swi.geometry.to_ijk(lesion.centroid_lps_mm)
    return CoordinatesForMeasurement(
        graphic_type=GraphicTypeValues.POINT,
        graphic_data=np.array([[i + 0.5, j + 0.5]]),
        source_image=SourceImageForRegion(
            frame.sop_class_uid, frame.sop_instance_uid, None if frame.frame_number is None else [frame.frame_number]
        ),
        purpose=codes.CENTRE,
    )


def _evaluations(job: ResultContext, lesion: Lesion) -> Iterator[QualitativeEvaluation]:
    yield QualitativeEvaluation(name=codes.CERTAINTY_OF_FINDING, value=codes.CERTAINTY[Certainty(lesion.certainty)])
    change = job.detection.findings.change
    if lesion.trend is not None:
        yield QualitativeEvaluation(name=codes.CHANGE, value=codes.TRENDS[lesion.trend])
    elif change is not None and lesion.id in change.undecided:
        yield QualitativeEvaluation(name=codes.CHANGE, value=codes.UNDECIDED)


def _slices_of(segmentation: Dataset, number: int) -> list[SourceImageForSegmentation]:
    """The source frames of segment `number`, as the SEG references them; one item per instance."""
    frames: dict[tuple[str, str], list[int]] = {}
    for groups in segmentation.PerFrameFunctionalGroupsSequence:
        if segment_number(segmentation, groups) == number:
            item = groups.DerivationImageSequence[0].SourceImageSequence[0]
            where = frames.setdefault((item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID), [])
            if "ReferencedFrameNumber" in item:
                where.append(int(item.ReferencedFrameNumber))
    return [SourceImageForSegmentation(*uids, sorted(numbers) or None) for uids, numbers in frames.items()]
