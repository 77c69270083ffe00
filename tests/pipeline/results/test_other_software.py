"""Other people's software accepts the results and reads the same findings from them."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

from pipeline.results import ReplacedResult, make_results, write_results
from tests.dicom_factory import Patient
from tests.validators import dcentvfy, dciodvfy, sr_validator

from .studies import CREATED, KEY, Detection, follow_up, simulate, verified

pytestmark = pytest.mark.integration

WARNINGS = ("No phase series — calcification cannot be told from blood", "Größe der Voxel: 0,9 × 0,9 × 2 mm³")
EARLIER = ReplacedResult("earlier")
BARE = dict.fromkeys(["PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "ReferringPhysicianName"], "")

VARIANTS: dict[str, dict[str, Any]] = {
    "no lesion": {"lesions": 0, "warnings": WARNINGS},
    "one lesion": {"lesions": 1, "warnings": WARNINGS},
    "five lesions": {"lesions": 5, "weights": {"cnn3d": "0" * 64}},
    "sixty lesions": {"lesions": 60, "phase": False},
    "fifteen lesions": {"lesions": 15, "phase": False},
    "located": {
        "lesions": 10,
        "regions": True,
        "kind": "interleaved",
        "patient": Patient(frame_of_reference=False),
    },
    "enhanced": {"lesions": 5, "kind": "enhanced"},
    "interleaved": {"lesions": 5, "kind": "interleaved", "regions": True},
    "no frame of reference": {"lesions": 3, "patient": Patient(frame_of_reference=False)},
    "Japanese name": {
        "lesions": 2,
        "patient": Patient(name="Yamada^Tarou=山田^太郎=やまだ^たろう"),
        "tags": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
    },
    "German name": {
        "lesions": 2,
        "patient": Patient(name="Müller^Jürgen"),
        "tags": {"SpecificCharacterSet": "ISO_IR 100", "TimezoneOffsetFromUTC": "+0100", "PatientAge": "076Y"},
    },
    "bare patient": {"lesions": 2, "tags": BARE},
    "verified follow-up": {
        "lesions": 7,
        "regions": True,
        "patient": Patient(name="Müller^Jürgen"),
        "tags": {"SpecificCharacterSet": "ISO_IR 100"},
    },
    "verified follow-up without lesions": {"lesions": 0, "kind": "interleaved"},
}
# PixelMed needs about ten seconds a report, and more the more groups it has; these differ in what they contain.
REPORTED = ("no lesion", "verified follow-up", "fifteen lesions")

SHOWN = (
    "Jürgen Müller",
    "Klinikum Köln",
    "Verifying",
    "Lobar and deep",
    "5 to 9",
    "No longer seen: left frontal",
    "Image quality",
    "More than 4 microbleeds",
    "Rejected by the reader, not counted: microbleed 9",
    "Reader's comment: Artefact at 9",
)

Written = tuple[Detection, dict[str, Path], list[Path]]


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """Write the results of a variant, once: detection, results by kind, source files."""
    made: dict[str, Written] = {}

    def make(name: str) -> Written:
        if name not in made:
            folder = tmp_path_factory.mktemp("variant")
            detection = simulate(folder / "source", **VARIANTS[name])
            if name.startswith("verified follow-up"):
                detection = verified(follow_up(detection))
            results = make_results(detection, key=KEY, created=CREATED, replaces=EARLIER, key_objects=True)
            made[name] = detection, write_results(results, folder), sorted((folder / "source").iterdir())
        return made[name]

    return make


@pytest.fixture(scope="module")
def sr_complaints(variant: Callable[[str], Written]) -> Callable[[str], list[str]]:
    """Start all runs of the slow validator at once, as far as the machine allows."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        slowest_first = sorted(REPORTED, key=lambda name: -VARIANTS[name]["lesions"])
        runs: dict[str, Future[list[str]]] = {
            name: pool.submit(sr_validator, variant(name)[1]["sr"]) for name in slowest_first
        }
        yield lambda name: runs[name].result()


@pytest.mark.parametrize("name", VARIANTS)
def test_dicom3tools_finds_no_fault_in_any_object(variant: Callable[[str], Written], name: str) -> None:
    for path in variant(name)[1].values():
        assert dciodvfy(path) == []


@pytest.mark.parametrize("name", VARIANTS)
def test_dicom3tools_finds_the_objects_consistent_with_their_sources(
    variant: Callable[[str], Written], name: str
) -> None:
    _, results, sources = variant(name)
    assert dcentvfy([*results.values(), *sources]) == []


@pytest.mark.parametrize("name", REPORTED)
def test_pixelmed_finds_no_fault_in_the_report(sr_complaints: Callable[[str], list[str]], name: str) -> None:
    assert sr_complaints(name) == []


def test_the_validators_would_complain(variant: Callable[[str], Written], tmp_path: Path) -> None:
    seg = pydicom.dcmread(variant("one lesion")[1]["seg"])
    del seg.SegmentSequence[0].SegmentAlgorithmName
    seg.PatientID = "ANOTHER"
    seg.save_as(tmp_path / "seg.dcm")
    assert any("SegmentAlgorithmName" in line for line in dciodvfy(tmp_path / "seg.dcm"))
    assert dcentvfy([tmp_path / "seg.dcm", variant("one lesion")[1]["sr"]]) != []


@pytest.mark.parametrize("name", ["five lesions", "interleaved", "sixty lesions"])
def test_dcmqi_reads_the_same_voxels(variant: Callable[[str], Written], tmp_path: Path, name: str) -> None:
    detection, results, _ = variant(name)
    _dcmqi("segimage2itkimage", "--inputDICOM", results["seg"], "--outputDirectory", tmp_path, "--outputType", "nii")
    meta = json.loads((tmp_path / "meta.json").read_text())
    tracked = {a["TrackingIdentifier"]: a["labelID"] for item in meta["segmentAttributes"] for a in item}
    assert len(tracked) == len(detection.findings.lesions)
    for lesion in detection.findings.lesions[:8]:
        image = nibabel.load(tmp_path / f"{tracked[f'Microbleed {lesion.id}']}.nii.gz")
        voxels = np.argwhere(np.asarray(image.dataobj) > 0)
        points = nibabel.affines.apply_affine(image.affine, voxels) * (-1, -1, 1)  # RAS to LPS
        expected = detection.acquisition.swi.geometry.to_lps(np.argwhere(detection.labels == lesion.id)[:, ::-1])
        assert len(points) == len(expected)
        np.testing.assert_allclose(points.mean(axis=0), expected.mean(axis=0), atol=0.01)


@pytest.mark.parametrize("name", ["no lesion", "verified follow-up", "located"])
def test_dcmqi_reads_the_same_numbers(variant: Callable[[str], Written], tmp_path: Path, name: str) -> None:
    detection, results, _ = variant(name)
    _dcmqi("tid1500reader", "--inputDICOM", results["sr"], "--outputMetadata", tmp_path / "sr.json")
    groups = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    assert len(groups) == len(detection.findings.lesions)
    found = {group["TrackingUniqueIdentifier"]: group for group in groups if "ReferencedSegment" in group}
    assert set(found) == {lesion.tracking_uid for lesion in detection.findings.lesions}
    for lesion in detection.findings.lesions:
        values = [float(item["value"]) for item in found[lesion.tracking_uid]["measurementItems"]]
        expected = [lesion.diameter_mm, lesion.volume_mm3]
        expected += [100 * lesion.probability] if lesion.origin == "detected" else []
        np.testing.assert_allclose(values, expected, atol=0.051)


def test_dcmtk_shows_the_report_to_a_person(variant: Callable[[str], Written], tmp_path: Path) -> None:
    detection, results, _ = variant("verified follow-up")
    page = tmp_path / "sr.html"
    done = subprocess.run(["dsr2html", results["sr"], page], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    text = html.unescape(re.sub(r"<[^>]+>", " ", page.read_text(encoding="latin-1")))
    assert "Müller" in text
    assert "RESEARCH USE ONLY - not a medical device" in text
    for words in SHOWN:
        assert words in text, words
    for lesion in detection.findings.lesions:
        assert f"Microbleed {lesion.id}" in text
        assert f"{round(lesion.diameter_mm, 2)} mm" in text


def _dcmqi(program: str, *arguments: object) -> None:
    path = Path(sys.executable).parent / program
    done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
