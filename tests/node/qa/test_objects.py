"""The report and the segmentation that a run reads back must say what the findings say."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from node.qa.drift import object_faults
from pipeline.results import make_results, write_results
from tests.pipeline.results.studies import CREATED, KEY, simulate

Objects = dict[str, Path]


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Objects]:
    detection = simulate(tmp_path_factory.mktemp("study"), 3)
    objects = make_results(detection, key=KEY, created=CREATED)
    return detection.findings.to_json(), write_results(objects, tmp_path_factory.mktemp("results"))


def test_results_that_agree_have_no_fault(analysed: tuple[dict[str, Any], Objects]) -> None:
    findings, objects = analysed
    assert len(findings["lesions"]) == 3
    assert list(object_faults(findings, objects)) == []


def test_a_missing_or_damaged_object_is_a_fault(analysed: tuple[dict[str, Any], Objects], tmp_path: Path) -> None:
    findings, objects = analysed
    assert list(object_faults(findings, {})) == ["there is no report (SR)", "there is no segmentation (SEG)"]
    assert list(object_faults({"lesions": []}, {})) == ["there is no report (SR)"]
    broken = {"sr": tmp_path / "sr.dcm", "seg": objects["sr"]}
    broken["sr"].write_bytes(objects["sr"].read_bytes()[:300])
    said = list(object_faults(findings, broken))
    assert [one.split(": ")[0] for one in said] == [
        "the report (SR) cannot be read",
        "the segmentation (SEG) cannot be read",
    ]


def lose_a_voxel(seg: Dataset) -> None:
    pixels = bytearray(seg.PixelData)
    at = next(n for n, byte in enumerate(pixels) if byte)
    pixels[at] &= pixels[at] - 1
    seg.PixelData = bytes(pixels)


def rename_a_segment(seg: Dataset) -> None:
    seg.SegmentSequence[0].TrackingUID = "2.25.1"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lose_a_voxel, "the segmentation (SEG) has other volumes than the findings"),
        (rename_a_segment, "the segmentation (SEG) has other microbleeds than the findings (3, 3)"),
    ],
)
def test_a_segmentation_that_contradicts_the_findings_is_a_fault(
    damage: Callable[[Dataset], None], said: str, analysed: tuple[dict[str, Any], Objects], tmp_path: Path
) -> None:
    findings, objects = analysed
    seg = dcmread(objects["seg"])
    damage(seg)
    seg.save_as(tmp_path / "seg.dcm")
    assert list(object_faults(findings, {**objects, "seg": tmp_path / "seg.dcm"})) == [said]


def test_a_report_that_lacks_a_finding_or_has_another_volume_is_a_fault(
    analysed: tuple[dict[str, Any], Objects],
) -> None:
    findings, objects = analysed
    larger, fewer = deepcopy(findings), deepcopy(findings)
    larger["lesions"][0]["volume_mm3"] += 1.0
    fewer["lesions"].pop()
    report = {"sr": objects["sr"]}
    assert "the report (SR) has other volumes than the findings" in list(object_faults(larger, report))
    assert "the report (SR) has other microbleeds than the findings (3, 2)" in list(object_faults(fewer, report))
