"""Cornerstone's adapters read the centre of each microbleed from the report."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.results import make_results, write_results
from tests.dicom_factory import Patient
from tests.pipeline.results.studies import CREATED, KEY, simulate


@pytest.mark.parametrize(
    ("lesions", "options"),
    [
        (0, {}),
        (5, {}),
        (60, {"phase": False}),
        (3, {"kind": "interleaved"}),
        (3, {"patient": Patient(frame_of_reference=False)}),
    ],
    ids=["none", "five", "sixty", "enhanced", "no frame of reference"],
)
def test_each_centre_is_read_where_it_is(viewers: Path, tmp_path: Path, lesions: int, options: dict[str, Any]) -> None:
    detection = simulate(tmp_path / "source", lesions, **options)
    results = write_results(make_results(detection, key=KEY, created=CREATED), tmp_path / "results")
    script = shutil.copy(Path(__file__).with_name("read_report.mjs"), viewers / "adapters")
    command = ["node", script, results["sr"], tmp_path / "source"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    points = dict(json.loads(done.stdout.splitlines()[-1]))
    assert set(points) == {lesion.tracking_uid for lesion in detection.findings.lesions}
    geometry = detection.acquisition.swi.geometry
    for lesion in detection.findings.lesions:
        i, j, k = geometry.to_ijk(points[lesion.tracking_uid])
        assert k == pytest.approx(lesion.voxel_ijk[2], abs=0.01)  # on its slice
        np.testing.assert_allclose((i, j), geometry.to_ijk(lesion.centroid_lps_mm)[:2], atol=0.01)
