"""What is measured, and of what? The measurement groups of the report.

Totals of all bleeds, of each region and side, of what changed, and of the images themselves (TID 1501); and a group for
each bleed (TID 1411). A new kind of group is one more function in :func:`measurement_groups`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    ContentSequence,
    FindingSite,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    RelationshipTypeValues,
    SourceImageForSegmentation,
    TimePointContext,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.coding import Code

from pipeline.findings import Certainty, Lesion, Origin, Trend

from . import codes, words
from .common import Job, plain
from .segmentation import tracking_identifier

Group = MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations


def measurement_groups(job: Job, segmentation: Dataset | None) -> Iterator[Group]:
    """All groups of the report, the totals first."""
    lesions = job.detection.findings.lesions
    yield _totals(job, lesions, "All microbleeds", [FindingSite(codes.BRAIN)])
    yield from _regions(job, lesions)
    yield from _change(job)
    yield from _quality(job)
    if segmentation is not None:
        for number, lesion in enumerate(lesions, start=1):
            yield _lesion(job, lesion, number, segmentation)


def _algorithm(job: Job) -> AlgorithmIdentification:
    """TID 4019."""
    device = job.device
    return AlgorithmIdentification(
        name=device.algorithm,
        version=plain(device.software),
        parameters=[f"{name}={value}" for name, value in device.parameters.items()],
        family=device.family,
    )


def _summary_group(
    job: Job,
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
        algorithm_id=_algorithm(job),
        measurements=measurements,
    )


def _totals(
    job: Job, lesions: Sequence[Lesion], name: str, sites: Sequence[FindingSite]
) -> MeasurementsAndQualitativeEvaluations:
    """How many, and how many of each certainty."""
    counts = [_count(len(lesions))]
    for certainty, code in codes.CERTAINTY.items():
        number = sum(lesion.certainty == certainty for lesion in lesions)
        counts.append(_count(number, (codes.CERTAINTY_OF_FINDING, code)))
    return _summary_group(job, name, codes.HEMORRHAGE, counts, sites)


def _regions(job: Job, lesions: Sequence[Lesion]) -> Iterator[Group]:
    """The region and side table, row by row."""
    for row in job.detection.findings.summary.by_region_and_side:
        region, _, side = row.place
        if region is not None:
            found = [lesion for lesion in lesions if (lesion.region, lesion.side) == (region, side)]
            sites = [FindingSite(*place) for place in dict.fromkeys(map(codes.site, found))]
            yield _totals(job, found, f"Microbleeds: {region} {side or ''}".strip(), sites)


def _change(job: Job) -> Iterator[Group]:
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


def _time_point(job: Job) -> TimePointContext | None:
    """TID 1502: what the present study is compared with; nothing where it was not."""
    change = job.detection.findings.change
    if change is None or not change.assessed:
        return None
    since = words.date(change.prior_study_date)
    return TimePointContext(time_point=plain(f"Follow-up of {since}" if since else "Follow-up"))


def _quality(job: Job) -> Iterator[Group]:
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
    job: Job, lesion: Lesion, number: int, segmentation: Dataset
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """TID 1411, with tracking identifiers equal to those of segment `number`.

    A bleed that a person added has no probability, and no algorithm that found it.
    """
    detected = lesion.origin is Origin.DETECTED
    measurements = [
        Measurement(name=codes.DIAMETER, value=round(lesion.diameter_mm, 2), unit=codes.MILLIMETRE),
        Measurement(name=codes.VOLUME, value=round(lesion.volume_mm3, 2), unit=codes.CUBIC_MILLIMETRE),
    ]
    if detected:
        probability = round(100 * lesion.probability, 1)
        measurements.append(Measurement(name=codes.PROBABILITY, value=probability, unit=codes.PERCENT))
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=lesion.tracking_uid, identifier=tracking_identifier(lesion)),
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_images=_slices_of(segmentation, number),
        ),
        time_point_context=_time_point(job),
        finding_type=codes.HEMORRHAGE,
        finding_sites=[FindingSite(*codes.site(lesion))],
        algorithm_id=_algorithm(job) if detected else None,
        measurements=measurements,
        qualitative_evaluations=list(_evaluations(job, lesion)),
    )


def _evaluations(job: Job, lesion: Lesion) -> Iterator[QualitativeEvaluation]:
    yield QualitativeEvaluation(name=codes.CERTAINTY_OF_FINDING, value=codes.CERTAINTY[Certainty(lesion.certainty)])
    change = job.detection.findings.change
    if lesion.trend is not None:
        yield QualitativeEvaluation(name=codes.CHANGE, value=codes.TRENDS[lesion.trend])
    elif change is not None and lesion.id in change.undecided:
        yield QualitativeEvaluation(name=codes.CHANGE, value=codes.UNDECIDED)


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
