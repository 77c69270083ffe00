"""The demo is the main job with real DICOM on both sides; its score follows the usual matching rule."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread

from node.demo.pacs import KINDS
from node.demo.run import STUDY
from node.demo.score import MATCH_MM, PlantedObject, PlantedTruth, read_truth, score

Point = tuple[float, float, float]
coordinates = st.floats(-80, 80)
points = st.tuples(coordinates, coordinates, coordinates)


def lesions(*found: tuple[Point, float]) -> list[dict[str, object]]:
    return [
        {"id": number, "centroid_lps_mm": list(centre), "probability": probability}
        for number, (centre, probability) in enumerate(found, start=1)
    ]


def planted(*centres: Point, mimics: tuple[Point, ...] = ()) -> PlantedTruth:
    return PlantedTruth(
        tuple(PlantedObject(centre, 1.5, True) for centre in centres),
        tuple(PlantedObject(centre, 1.5, True, "calcification") for centre in mimics),
    )


def test_a_lesion_counts_within_five_millimetres_and_not_beyond() -> None:
    near, far = (0.0, 3.0, 4.0), (0.0, 3.0, 4.01)
    assert score(lesions((near, 0.9)), planted((0, 0, 0))).found == 1
    beyond = score(lesions((far, 0.9)), planted((0, 0, 0)))
    assert (beyond.found, beyond.missed, beyond.false_ids) == (0, 1, (1,))


def test_two_lesions_on_one_bleed_are_one_found_and_one_false() -> None:
    result = score(lesions(((1, 0, 0), 0.5), ((2, 0, 0), 0.9)), planted((0, 0, 0)))
    assert result.matches[0].lesion_id == 2  # the more probable one
    assert result.false_ids == (1,)


def test_a_lesion_takes_the_nearest_of_two_bleeds() -> None:
    result = score(lesions(((3, 0, 0), 0.9)), planted((0, 0, 0), (4, 0, 0)))
    assert [match.lesion_id for match in result.matches] == [None, 1]
    assert result.matches[1].distance_mm == pytest.approx(1)


def test_a_mimic_that_is_marked_is_false_and_named() -> None:
    result = score(lesions(((0, 0, 0), 0.9), ((20, 0, 0), 0.8)), planted((0, 0, 0), mimics=((21, 0, 0), (50, 0, 0))))
    assert (result.found, result.false_ids) == (1, (2,))
    assert [match.lesion_id for match in result.mimics] == [2, None]


def test_a_found_microbleed_s_main_region_is_compared_with_the_planted_one() -> None:
    truth = PlantedTruth(tuple(PlantedObject((x, 0, 0), 1.5, True, region="lobar") for x in (0.0, 20.0, 40.0)), ())
    found = [
        {**lesion, "region": region}
        for lesion, region in zip(lesions(((0, 0, 0), 0.9), ((20, 0, 0), 0.8)), ("lobar", "deep"), strict=True)
    ]
    result = score(found, truth)
    assert [match.right_region for match in result.matches] == [True, False, False]
    assert (result.found, result.right_regions) == (2, 1)


@given(st.lists(points, max_size=8), st.lists(st.tuples(points, st.floats(0, 1)), max_size=8))
def test_every_bleed_is_found_or_missed_and_every_lesion_true_or_false(
    centres: list[Point], found: list[tuple[Point, float]]
) -> None:
    result = score(lesions(*found), planted(*centres))
    assert result.found + result.missed == len(centres)
    assert result.found + len(result.false_ids) == len(found)
    assert all(match.distance_mm is None or match.distance_mm <= MATCH_MM for match in result.matches)
    used = [match.lesion_id for match in result.matches if match.lesion_id is not None]
    assert len(set(used)) == len(used)


@given(st.lists(points, min_size=1, max_size=8))
def test_a_perfect_answer_has_no_miss_and_nothing_false(centres: list[Point]) -> None:
    result = score(lesions(*((centre, 0.9) for centre in centres)), planted(*centres))
    assert (result.missed, result.false_ids) == (0, ())


def test_the_bundled_study_has_known_bleeds_and_is_small() -> None:
    truth = read_truth(STUDY / "truth.json")
    assert len(truth.bleeds) >= 3
    assert all(planted.radius_mm > 0 for planted in truth.bleeds + truth.mimics)
    assert {planted.kind for planted in truth.bleeds} == {"bleed"}
    size = sum(path.stat().st_size for path in STUDY.iterdir())
    assert size <= 6 * 1024 * 1024
    headers = [dcmread(path, stop_before_pixels=True) for path in STUDY.glob("*.dcm")]
    assert len({header.StudyInstanceUID for header in headers}) == 1
    assert len({header.SeriesInstanceUID for header in headers}) == 4


@pytest.mark.integration
def test_the_demo_finds_planted_bleeds_and_leaves_nothing_running(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "node.cli", "demo", "--data", str(tmp_path)]
    environment = {**os.environ, "CMBNODE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}  # not the demo's
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    [folder] = tmp_path.iterdir()
    findings = json.loads((folder / "results" / "findings.json").read_text())
    result = score(findings["lesions"], read_truth(STUDY / "truth.json"))
    assert f"found {result.found}, missed {result.missed}, false {len(result.false_ids)}; main region " in ran.stdout
    assert f"right for {result.right_regions} of {result.found} (simulated images)" in ran.stdout
    assert result.found >= 1
    for kind in ("sr", "seg", "capture"):
        received = dcmread(folder / "results" / f"{kind}.dcm")
        assert KINDS.get(received.SOPClassUID, "capture") == kind
        assert received.StudyInstanceUID == findings["study_instance_uid"]
    assert len(dcmread(folder / "results" / "seg.dcm").SegmentSequence) == len(findings["lesions"])
    assert Image.open(folder / "results" / "montage-1.png").width >= 640
    assert left_of(folder) == []


@pytest.mark.integration
def test_a_demo_that_is_stopped_leaves_nothing_running(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "node.cli", "demo", "--data", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background inherits "ignored"
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "the node is up" in line:
            break
    else:
        pytest.fail("the node never came up")
    [folder] = tmp_path.iterdir()
    assert left_of(folder)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=90)
    assert process.returncode == 130
    deadline = time.monotonic() + 10
    while left_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_of(folder) == []


def left_of(folder: Path) -> list[str]:
    """Processes that name the folder on their command line or in their environment, or have a file of it open."""
    found = []
    for process in psutil.process_iter():
        try:
            opened = [file.path for file in process.open_files()]
            named = [*process.cmdline(), *process.environ().values(), *opened]
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if any(str(folder) in value for value in named):
            found.append(" ".join(process.cmdline()))
    return found
