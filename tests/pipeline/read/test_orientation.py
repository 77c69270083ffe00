"""A bleed at a known place of the patient is found there by findings, segmentation and report, however it lies."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.seg import Segmentation
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from scipy.spatial.transform import Rotation

from pipeline.detect import detect
from pipeline.geometry import Geometry
from pipeline.read.pairing import select_series
from pipeline.read.study import read_studies
from pipeline.results import make_results
from tests.classical import quick_profile
from tests.dicom_factory import Part, affine, classic, enhanced, write
from tests.heads import BLEEDS, SHAPE, SPACING, small_head

pytestmark = pytest.mark.slow

NEAR_MM = 1.5
"""Less than a voxel."""


@st.composite
def layouts(draw: st.DrawFn) -> tuple[NDArray[np.float64], list[int], bool]:
    """Any rotation, any axes flipped (left-handed ones too), any order of slices, in one object or many."""
    angle = st.floats(-180, 180)
    rotation = Rotation.from_euler("xyz", [draw(angle) for _ in range(3)], degrees=True).as_matrix()
    rotation = rotation * [draw(st.sampled_from([-1, 1])) for _ in range(3)]
    origin = [draw(st.floats(-200, 200)) for _ in range(3)]
    return affine(SPACING, origin, rotation), list(draw(st.permutations(range(SHAPE[0])))), draw(st.booleans())


def planted(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the bleeds are, LPS mm."""
    return np.array([matrix[:3, :3] @ at + matrix[:3, 3] for at in BLEEDS])


def by_segmentation(seg: Dataset) -> dict[str, NDArray[np.float64]]:
    """Centre of each segment in the patient, by Tracking UID: from pixels, positions and orientation of its frames."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    spacing = [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing]
    pixels = Segmentation.from_dataset(seg).pixel_array.reshape(-1, seg.Rows, seg.Columns)
    points: dict[int, list[NDArray[np.float64]]] = {}
    for frame, groups in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        plane = groups if "PlaneOrientationSequence" in groups else shared
        row, column = np.array(plane.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
        corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        segment = groups if "SegmentIdentificationSequence" in groups else shared
        number = int(segment.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for j, i in np.argwhere(frame):
            points.setdefault(number, []).append(corner + row * i * spacing[1] + column * j * spacing[0])
    return {item.TrackingUID: np.mean(points[item.SegmentNumber], axis=0) for item in seg.SegmentSequence}


def by_report(sr: Dataset, positions: dict[tuple[str, int], NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Middle of the slices that the report names for each lesion, by Tracking UID."""
    found = {}
    for group in _groups(sr):
        uid = next((i.UID for i in group.ContentSequence if i.ValueType == "UIDREF" and _name(i) == "112040"), "")
        slices = [
            positions[item.ReferencedSOPInstanceUID, number]
            for one in group.ContentSequence
            if one.ValueType == "IMAGE" and _name(one) == "121233"  # Source image for segmentation
            for item in one.ReferencedSOPSequence
            for number in np.atleast_1d(item.get("ReferencedFrameNumber") or 1)
        ]
        if slices:
            found[uid] = np.mean(slices, axis=0)
    return found


def _groups(item: Dataset) -> list[Dataset]:
    """Every container below `item` that measures something (TID 1411)."""
    inner = [group for child in item.get("ContentSequence", []) for group in _groups(child)]
    return [*inner, *([item] if item.get("ValueType") == "CONTAINER" and _name(item) == "125007" else [])]


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(layout=layouts())
def test_findings_segmentation_and_report_agree_with_what_was_planted(
    layout: tuple[NDArray[np.float64], list[int], bool], tmp_path_factory: pytest.TempPathFactory
) -> None:
    matrix, order, multi_frame = layout
    swi, _ = small_head()
    datasets: Any = (
        enhanced([Part(swi, ("ORIGINAL", "PRIMARY", "SWI", "NONE"))], matrix=matrix, order=order)
        if multi_frame
        else classic(swi, matrix=matrix, order=order)
    )
    paths: list[Path] = write(datasets, tmp_path_factory.mktemp("study"))
    (study,), _ = read_studies(paths)
    detection = detect(select_series(study), quick_profile(), key="orientation")
    results = {r.kind: r.dataset for r in make_results(detection, key="orientation", created=datetime.now(UTC))}
    lesions = detection.findings.lesions
    found = np.array([lesion.centroid_lps_mm for lesion in lesions])
    distances = np.linalg.norm(found[:, None] - planted(matrix), axis=-1)
    assert distances.shape == (len(BLEEDS), len(BLEEDS))
    assert distances.min(axis=0).max() < NEAR_MM
    geometry = detection.acquisition.swi.geometry
    segments, named = by_segmentation(results["seg"]), by_report(results["sr"], _slices(detection.acquisition.swi))
    for lesion, where in zip(lesions, found, strict=True):
        assert np.linalg.norm(segments[lesion.tracking_uid] - where) < NEAR_MM
        assert abs(_along(geometry, named[lesion.tracking_uid]) - _along(geometry, where)) < NEAR_MM


def _slices(volume: Any) -> dict[tuple[str, int], NDArray[np.float64]]:
    """First voxel of each slice, LPS mm, by instance and frame."""
    return {
        (frame.sop_instance_uid, frame.frame_number or 1): volume.geometry.to_lps([0, 0, k])
        for k, frame in enumerate(volume.frames)
    }


def _along(geometry: Geometry, point: NDArray[np.float64]) -> float:
    return float(geometry.direction[:, 2] @ point)
