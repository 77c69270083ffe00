"""What do a written report and segmentation say of each microbleed? Read as another system would, without our code."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from pipeline.errors import InputError, type_and_place

from .seg.reader import segment_number

_IMAGING_MEASUREMENTS, _TRACKING_UID, _VOLUME = "126010", "112040", "118565006"
_UNREADABLE = (InvalidDicomError, OSError, AttributeError, KeyError, ValueError, IndexError, TypeError)


def volumes_of_report(path: Path) -> dict[str, float]:
    """Read the volume in mm³ of each microbleed in a Structured Report (TID 1411), by its Tracking UID.

    Raises
    ------
    InputError
        If the file is not such a report.
    """
    try:
        report = dcmread(path)
        parts = [item for item in report.ContentSequence if _code(item) == _IMAGING_MEASUREMENTS]
        groups = [group for part in parts for group in part.get("ContentSequence", ())]
        return {
            str(next(_items(group, _TRACKING_UID)).UID): float(
                next(_items(group, _VOLUME)).MeasuredValueSequence[0].NumericValue
            )
            for group in groups
        }
    except (*_UNREADABLE, StopIteration) as error:
        raise InputError(f"is not a readable report ({type_and_place(error)})", where=path.name) from error


def volumes_of_segmentation(path: Path) -> dict[str, float]:
    """Read the volume in mm³ of each segment of a segmentation, by its Tracking UID: its voxels, counted.

    Raises
    ------
    InputError
        If the file is not a segmentation.
    """
    try:
        seg = dcmread(path)
        measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        voxel_mm3 = prod(measures.PixelSpacing) * measures.get("SpacingBetweenSlices", measures.SliceThickness)
        uids = {int(item.SegmentNumber): str(item.TrackingUID) for item in seg.SegmentSequence}
        counted = dict.fromkeys(uids.values(), 0)
        pixels = seg.pixel_array.reshape(-1, int(seg.Rows), int(seg.Columns))
        for frame, groups in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
            counted[uids[segment_number(seg, groups)]] += int(frame.astype(bool).sum())
    except _UNREADABLE as error:
        raise InputError(f"is not a readable segmentation ({type_and_place(error)})", where=path.name) from error
    return {uid: number * float(voxel_mm3) for uid, number in counted.items()}


def _items(parent: Dataset, code: str) -> Iterator[Dataset]:
    """The content items below `parent` with this concept name."""
    return (item for item in parent.ContentSequence if _code(item) == code)


def _code(item: Dataset) -> str:
    """Code of the concept name of a content item; empty if it has none."""
    named = item.get("ConceptNameCodeSequence")
    return str(named[0].CodeValue) if named else ""
