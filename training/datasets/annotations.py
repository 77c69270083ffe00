"""Where are the microbleeds that a DICOM segmentation or report marks? As points in patient coordinates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from pipeline.errors import InputError
from pipeline.geometry import Geometry, Volume

from .mark_kinds import REJECTED
from .record import Mark, marks_of_labels

MEASUREMENT_GROUP = "125007"
DIAMETER = "81827009"
TRACKING_UID = "112040"
HEMORRHAGE = "50960005"
SAME_PLACE_MM = 3.0
"""What lies nearer to a microbleed than this is not held against it."""

Points = NDArray[np.float64]


def segment_points(segmentation: Dataset) -> dict[int, Points]:
    """Patient coordinates ``(n, 3)`` of the voxels of each segment of a SEG."""
    pixels = np.asarray(segmentation.pixel_array)
    frames = pixels if pixels.ndim == 3 else pixels[None]
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    labelmap = segmentation.get("SegmentationType") == "LABELMAP"
    found: dict[int, list[Points]] = {}
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        for number in np.unique(frame[frame > 0]).tolist() if labelmap else [_segment(groups, shared)]:
            rows, columns = np.nonzero(frame == number if labelmap else frame)
            if rows.size:
                found.setdefault(int(number), []).append(_to_lps(rows, columns, groups, shared))
    return {number: np.concatenate(points) for number, points in found.items()}


def _group(name: str, *places: Dataset) -> Dataset:
    for place in places:
        if name in place:
            item: Dataset = place[name].value[0]
            return item
    raise InputError(f"the segmentation has no {name}")


def _segment(groups: Dataset, shared: Dataset) -> int:
    return int(_group("SegmentIdentificationSequence", groups, shared).ReferencedSegmentNumber)


def _to_lps(rows: NDArray[np.intp], columns: NDArray[np.intp], groups: Dataset, shared: Dataset) -> Points:
    origin = np.array(_group("PlanePositionSequence", groups, shared).ImagePositionPatient, np.float64)
    axes = np.array(_group("PlaneOrientationSequence", groups, shared).ImageOrientationPatient, np.float64)
    down, across = (float(v) for v in _group("PixelMeasuresSequence", groups, shared).PixelSpacing)
    return np.asarray(origin + np.outer(columns * across, axes[:3]) + np.outer(rows * down, axes[3:]))


def marks_of_points(segments: Sequence[Points], geometry: Geometry) -> tuple[Mark, ...]:
    """Microbleeds of segments given by their voxels: what hangs together is one."""
    labels = np.zeros(geometry.shape, np.uint16)
    for number, points in enumerate(segments, start=1):
        voxels = np.rint(geometry.to_ijk(points)[:, ::-1]).astype(int)
        inside = ((voxels >= 0) & (voxels < geometry.shape)).all(1)
        labels[tuple(voxels[inside].T)] = number
    return marks_of_labels(labels, geometry)


def marks_of_segmentations(segmentations: Sequence[Dataset], geometry: Geometry) -> tuple[Mark, ...]:
    """Microbleeds of all segments of some segmentations."""
    return marks_of_points([p for s in segmentations for p in segment_points(s).values()], geometry)


def marks_of_report(report: Dataset, segmentations: Sequence[Dataset], swi: Volume) -> tuple[Mark, ...]:
    """Microbleeds that the measurement groups of a TID 1500 report point at: a segment, or spatial coordinates.

    Groups with neither (totals) are passed over.

    Raises
    ------
    InputError
        When a group names a segmentation or an image that is not there.
    """
    segments: dict[str, dict[int, Points]] = {}
    named: list[Points] = []
    marks: list[Mark] = []
    for group in _groups(report):
        reference = _referenced_segment(group)
        if reference is not None:
            uid, number = reference
            if uid not in segments:
                segments[uid] = segment_points(_by_uid(uid, segmentations))
            if number in segments[uid]:
                named.append(segments[uid][number])
            continue
        size = _diameter(group)
        marks += [Mark(point, diameter_mm=size) for point in _coordinates(group, swi)]
    return (*marks_of_points(named, swi.geometry), *marks)


def rejected_marks(
    report: Dataset, segmentations: Sequence[Dataset], bleeds: Sequence[Mark], geometry: Geometry
) -> tuple[Mark, ...]:
    """What the detector took for a microbleed and the reader who verified `report` did not.

    These are segments of hemorrhage, made by the same software in the same study, that the report does not name, where
    it has no microbleed either.
    """
    if report.get("VerificationFlag") != "VERIFIED":
        return ()
    named = {str(i.UID) for g in _groups(report) for i in _walk(g) if _code(i) == TRACKING_UID and "UID" in i}
    points: dict[str, Points] = {}
    for segmentation in segmentations:
        if segmentation.get("Manufacturer") != report.get("Manufacturer"):
            continue
        voxels = segment_points(segmentation)
        for item in segmentation.SegmentSequence:
            uid, number = str(item.get("TrackingUID", "")), int(item.SegmentNumber)
            kind = item.SegmentedPropertyTypeCodeSequence[0].get("CodeValue")
            if uid and uid not in named and kind == HEMORRHAGE and number in voxels:
                points[uid] = voxels[number]
    marks = marks_of_points(list(points.values()), geometry)
    return tuple(replace(mark, kind=REJECTED) for mark in marks if not _at_a_bleed(mark, bleeds))


def _at_a_bleed(mark: Mark, bleeds: Sequence[Mark]) -> bool:
    return any(
        np.linalg.norm(np.subtract(mark.centre_lps_mm, bleed.centre_lps_mm)) <= max(SAME_PLACE_MM, bleed.size_mm / 2)
        for bleed in bleeds
    )


def _walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _walk(child)


def _code(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def _groups(report: Dataset) -> list[Dataset]:
    return [i for i in _walk(report) if i.get("ValueType") == "CONTAINER" and _code(i) == MEASUREMENT_GROUP]


def _referenced_segment(group: Dataset) -> tuple[str, int] | None:
    for item in _walk(group):
        for reference in item.get("ReferencedSOPSequence", ()):
            number = reference.get("ReferencedSegmentNumber")
            if number is not None:
                first = number[0] if isinstance(number, Sequence) else number
                return str(reference.ReferencedSOPInstanceUID), int(first)
    return None


def _by_uid(uid: str, segmentations: Sequence[Dataset]) -> Dataset:
    for segmentation in segmentations:
        if segmentation.SOPInstanceUID == uid:
            return segmentation
    raise InputError(f"the report names a segmentation that is not there ({uid})", do="put it beside the report")


def _diameter(group: Dataset) -> float | None:
    for item in _walk(group):
        if item.get("ValueType") == "NUM" and _code(item) == DIAMETER and item.get("MeasuredValueSequence"):
            return float(item.MeasuredValueSequence[0].NumericValue)
    return None


def _coordinates(group: Dataset, swi: Volume) -> Iterator[tuple[float, float, float]]:
    """Centres of the regions of a group; each point of a MULTIPOINT is one."""
    for item in _walk(group):
        kind = item.get("ValueType")
        if kind not in ("SCOORD", "SCOORD3D"):
            continue
        width = 3 if kind == "SCOORD3D" else 2
        points = np.array(item.GraphicData, np.float64).reshape(-1, width)
        if item.GraphicType == "CIRCLE":
            points = points[:1]  # the centre; the other is on the rim
        centres = points if item.GraphicType == "MULTIPOINT" else points.mean(0, keepdims=True)
        if width == 2:
            centres = _on_slice(centres, item, swi)
        yield from map(tuple, centres.tolist())


def _on_slice(centres: Points, item: Dataset, swi: Volume) -> Points:
    """Patient coordinates of pixel coordinates, which count from the corner of the first pixel (PS3.3 C.18.6)."""
    for child in item.get("ContentSequence", ()):
        for reference in child.get("ReferencedSOPSequence", ()):
            frame = reference.get("ReferencedFrameNumber")
            for k, source in enumerate(swi.frames):
                same = source.sop_instance_uid == reference.ReferencedSOPInstanceUID
                if same and (frame is None or source.frame_number in (None, int(frame))):
                    at = np.column_stack([centres - 0.5, np.full(len(centres), k)])
                    return swi.geometry.to_lps(at)
    raise InputError("the report marks an image that is not a slice of the SWI", do="mark the SWI")
