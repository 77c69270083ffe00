"""Which voxels are microbleeds? A BINARY DICOM Segmentation (PS3.3 A.51), one segment per lesion, on the SWI grid."""

from __future__ import annotations

from typing import Final

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from pipeline.errors import CmbError
from pipeline.findings import Lesion, LesionOrigin, Trend, wording
from pipeline.results import codes
from pipeline.results.colours import colour
from pipeline.results.context import ResultContext, plain
from pipeline.results.source import SourceImages

SERIES_NUMBER: Final = 9002

_ALGORITHM_TYPES: Final = {
    LesionOrigin.DETECTED: hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
    LesionOrigin.ADDED: hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,  # grown from the point that a reader marked
}


def make_segmentation(job: ResultContext) -> Dataset | None:
    """Make the segmentation, or ``None`` when there is no lesion (an empty SEG would hold every frame).

    Segment *n* is the *n*-th lesion of the findings; frames exist only where a lesion has voxels.

    Raises
    ------
    CmbError
        If a lesion has no voxel in the label array.
    """
    lesions = job.detection.findings.lesions
    if not lesions:
        return None
    segments, slices = _segments(job.detection.labels, lesions)
    seg = hd.seg.Segmentation(
        source_images=[job.source.stand_ins[k] for k in slices],
        pixel_array=segments[slices],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(job, number, lesion) for number, lesion in enumerate(lesions, start=1)],
        content_label="MICROBLEEDS",
        content_description="Cerebral microbleeds, one segment each",
        **job.general("seg", SERIES_NUMBER, "CMB segmentation"),
    )
    _relink(seg, job.source)
    _fix_dimension_uid(seg, job.uid("seg", "dimensions"))
    return job.finish(seg)


def _segments(labels: NDArray[np.uint16], lesions: tuple[Lesion, ...]) -> tuple[NDArray[np.uint16], NDArray[np.intp]]:
    """Renumber lesion ids to segment numbers; also the slices that hold any."""
    table = np.zeros(max(int(labels.max()), *(lesion.id for lesion in lesions)) + 1, dtype=np.uint16)
    table[[lesion.id for lesion in lesions]] = np.arange(1, len(lesions) + 1)
    segments = table[labels]
    missing = set(range(1, len(lesions) + 1)) - set(np.unique(segments).tolist())
    if missing:
        ids = ", ".join(str(lesions[n - 1].id) for n in sorted(missing))
        raise CmbError(f"no voxel is labelled as lesion {ids}", do="report this as a fault of the detector")
    return segments, np.flatnonzero(segments.any(axis=(1, 2)))


def _description(job: ResultContext, number: int, lesion: Lesion) -> hd.seg.SegmentDescription:
    region, side = codes.site(lesion)
    device = job.device
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{wording.name(lesion)} ({', '.join(_remarks(lesion))})",
        segmented_property_category=codes.MORPHOLOGICALLY_ABNORMAL,
        segmented_property_type=codes.HEMORRHAGE,
        algorithm_type=_ALGORITHM_TYPES[lesion.origin],
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=device.algorithm,
            family=device.family,
            version=plain(device.software, 64),
            source="cmb-node",
            parameters=device.parameters,
        ),
        tracking_uid=lesion.tracking_uid,
        tracking_id=wording.name(lesion),
        anatomic_regions=[region],
        display_color=hd.color.CIELabColor.from_rgb(*colour(lesion)),
    )
    if side is not None:
        modifier = hd.sr.CodedConcept.from_code(side)
        description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [modifier]
    return description


def _remarks(lesion: Lesion) -> list[str]:
    new = ["new"] if lesion.trend is Trend.NEW else []
    added = [wording.ADDED] if lesion.origin is LesionOrigin.ADDED else []
    return [lesion.certainty.value, *new, *added]


def _relink(seg: Dataset, source: SourceImages) -> None:
    """Replace every reference to a stand-in by the real frame (frames of one slice share an item)."""
    groups = seg.PerFrameFunctionalGroupsSequence
    items = {id(item): item for g in groups for item in g.DerivationImageSequence[0].SourceImageSequence}
    instances: dict[str, Dataset] = {}
    for item in items.values():
        frame = source.frame(item.ReferencedSOPInstanceUID)
        reference = instances.setdefault(frame.sop_instance_uid, Dataset())
        for ds in (item, reference):
            ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = frame.sop_class_uid, frame.sop_instance_uid
        if frame.frame_number is not None:
            item.ReferencedFrameNumber = frame.frame_number
    series = Dataset()
    series.SeriesInstanceUID = source.series[0].series_instance_uid
    series.ReferencedInstanceSequence = list(instances.values())
    seg.ReferencedSeriesSequence = [series]
    seg.SourceImageSequence = list(instances.values())
    if not source.header.get("FrameOfReferenceUID"):
        del seg.FrameOfReferenceUID, seg.PositionReferenceIndicator


def _fix_dimension_uid(seg: Dataset, uid: str) -> None:
    for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
