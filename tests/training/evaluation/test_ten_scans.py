"""The page *Ten of your scans to figures*: its commands in their order, on two small heads."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.classical import quick_file
from training.cli import main

from .cohort import write_cohort

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[3] / "docs" / "ten-scans.md").read_text()


def _collect(folder: Path, scans: Path) -> list[str]:
    """Put the DICOM of each study into a folder of its own; return the lines that a researcher writes."""
    (heading,) = re.findall(r"```csv\n(.*)\n", PAGE)
    lines = [heading]
    for study in sorted(write_cohort(folder).iterdir()):
        images = (study / "dicom").rename(scans / study.name)
        uid = dcmread(next(images.rglob("*.dcm")), stop_before_pixels=True).StudyInstanceUID
        lesions = json.loads((study / "truth.json").read_text())["lesions"]
        points = [",".join(f"{value:.1f}" for value in one["centre_lps_mm"]) for one in lesions]
        lines += [f"{uid},{point}," for point in points] or [f"{uid},,,,"]
    return lines


def test_the_page_leads_from_scans_to_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scans = tmp_path / "SCANS"
    scans.mkdir()
    lines = _collect(tmp_path / "heads", scans)
    uids = {line.split(",")[0] for line in lines[1:]}
    profile = str(quick_file(tmp_path))
    commands = [
        [{"default": profile}.get(word, word) for word in shlex.split(line)[1:]]
        for line in re.findall(r"^cmbtrain .*$", PAGE, re.MULTILINE)
    ]
    unmarked, marked, evaluate, calibrate = commands

    assert main(unmarked) == 2
    said = capsys.readouterr().out
    assert all(said.count(uid) == 1 for uid in uids)
    assert said.count("is not marked (Patient ID") == len(uids) == 2

    (scans / "lesions.csv").write_text("\n".join(lines) + "\n")
    assert main(marked) == 0
    assert "2 studies, 0 errors" in capsys.readouterr().out

    assert main([*evaluate, "--bootstrap", "50"]) == 0
    table = capsys.readouterr().out
    assert f"2 studies of 1 subject, {len(lines) - 2} visible of {len(lines) - 2} microbleeds" in table
    assert "Sensitivity, % | 100.0" in table
    for name in re.findall(r"^\| `([\w.-]+\.\w+)` \|", PAGE, re.MULTILINE):
        assert (tmp_path / "RESULT" / name.replace("-default", "-frst")).is_file(), name

    assert main(calibrate) == 2
    again = capsys.readouterr().err
    assert again.count("analysed before") == 2
    assert "too few cases to calibrate: 1 subject, 4 microbleeds" in again
