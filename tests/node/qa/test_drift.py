"""A run of site QA is good, or says in one line what differs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from node.archive.qa_runs import FoundMicrobleed, QaRun, add_run, last_run, read_runs
from node.demo.run import STUDY
from node.demo.score import PlantedTruth, read_truth
from node.ledger.records import QA_PATIENT_ID
from node.qa.drift import differences, found_of, last_good, sensitivity_faults
from node.qa.phantom import make_phantom
from node.settings.qa import QaSettings
from pipeline.errors import InputError

NOW = datetime(2026, 11, 26, 3, 15, tzinfo=UTC)
FOUND = tuple(FoundMicrobleed(number, 40.0, 3.0, 0.9) for number in (1, 2, 3))
GOOD = QaRun(
    NOW, "1.2.3", "phantom", 4, "1.0", "default", "abc", {"net": "f" * 64}, FOUND, 1, {"analysis": 30.0, "total": 45.0}
)
SETTINGS = QaSettings()


def other(microbleed: int, **values: float) -> QaRun:
    found = tuple(replace(one, **values) if one.number == microbleed else one for one in FOUND)
    return replace(GOOD, found=found)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (replace(GOOD, found=FOUND[:2]), "no longer found: microbleed 3"),
        (replace(GOOD, false=3), "3 false positives instead of 1"),
        (other(2, volume_mm3=45.0), "volume of microbleed 2: 45 mm³ instead of 40 mm³"),
        (other(1, diameter_mm=2.6), "diameter of microbleed 1: 2.6 mm instead of 3 mm"),
        (replace(GOOD, seconds={"analysis": 71.0}), "the analysis took 71 s instead of 30 s"),
    ],
)
def test_what_differs_from_the_last_good_run_is_said(run: QaRun, said: str) -> None:
    assert differences(run, GOOD, SETTINGS) == (said,)


@pytest.mark.parametrize(
    "run",
    [
        GOOD,
        replace(GOOD, found=(*FOUND, FoundMicrobleed(4, 20.0, 2.0, 0.4)), false=0),
        other(2, volume_mm3=43.9),
        replace(GOOD, seconds={"analysis": 59.0}),
        replace(GOOD, software="2.0"),
    ],
    ids=["the same", "better", "volume 9.75 % larger", "almost twice as slow", "upgraded"],
)
def test_what_is_as_good_is_no_alarm(run: QaRun) -> None:
    assert differences(run, GOOD, SETTINGS) == ()


def test_a_short_analysis_may_take_some_seconds_more_on_a_busy_machine() -> None:
    before = replace(GOOD, seconds={"analysis": 3.0})
    assert differences(replace(GOOD, seconds={"analysis": 12.0}), before, SETTINGS) == ()
    assert differences(replace(GOOD, seconds={"analysis": 14.0}), before, SETTINGS) != ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"software": "2.0"}, "changed since then: software 1.0 → 2.0"),
        ({"profile_digest": "def"}, "changed since then: the profile's parameters"),
        ({"profile_digest": "def", "weights": {"net": "0" * 64}}, "changed since then: weights"),
        ({"profile": "frst", "profile_digest": "def"}, "changed since then: profile default → frst"),
    ],
)
def test_an_alarm_names_what_was_changed(changes: dict[str, Any], said: str) -> None:
    assert differences(replace(GOOD, false=2, **changes), GOOD, SETTINGS)[1] == said


def test_a_run_is_compared_with_the_last_good_one_of_its_phantom() -> None:
    worse = replace(GOOD, found=FOUND[:1], differences=("no longer found: microbleed 2, 3",))
    broken = replace(GOOD, faults=("there is no report (SR)",), accepted=True)
    foreign = replace(GOOD, phantom="of another site")
    assert last_good([], "phantom") is None
    assert last_good([GOOD, worse, broken, foreign], "phantom") is GOOD
    wanted = replace(worse, accepted=True)
    assert last_good([GOOD, wanted, worse], "phantom") is wanted


def test_the_trend_is_kept_and_outlives_a_file_that_is_not_complete(tmp_path: Path) -> None:
    assert last_run(tmp_path) is None
    worse = replace(GOOD, at=NOW.replace(day=27), differences=("2 false positives instead of 1",))
    add_run(tmp_path, GOOD)
    add_run(tmp_path, worse)
    (tmp_path / "qa" / ".20261128T031500.000000Z.json").write_text('{"at": "2026-11-2')
    assert read_runs(tmp_path) == [GOOD, worse]
    assert last_run(tmp_path) == worse
    assert worse.alarm == "2 false positives instead of 1"
    assert not GOOD.alarm


@pytest.fixture(scope="module")
def truth() -> PlantedTruth:
    return read_truth(STUDY / "truth.json")


def findings(truth: PlantedTruth, shift_mm: float = 0.5) -> dict[str, Any]:
    """What a detector says that finds everything, `shift_mm` beside its place."""
    lesions = [
        {
            "id": number,
            "tracking_uid": f"2.25.{number}",
            "centroid_lps_mm": [one.centre_lps_mm[0] + shift_mm, *one.centre_lps_mm[1:]],
            "volume_mm3": 40.0,
            "diameter_mm": 3.0,
            "probability": 0.9,
        }
        for number, one in enumerate(truth.bleeds, start=1)
    ]
    return {"lesions": lesions}


def test_findings_count_only_where_a_microbleed_was_planted(truth: PlantedTruth) -> None:
    everything, scored = found_of(findings(truth), truth)
    assert [one.number for one in everything] == list(range(1, len(truth.bleeds) + 1))
    assert list(sensitivity_faults(scored, 1.0)) == []
    # As from a flipped axis, or an image whose phase has the wrong sign: findings, but none in its place.
    nothing, scored = found_of(findings(truth, shift_mm=60.0), truth)
    assert len(nothing) < len(truth.bleeds)
    assert next(sensitivity_faults(scored, 1.0)).startswith("only ")


def test_a_phantom_names_no_patient_and_is_new_each_time(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two", "small")]
    for folder in folders:
        folder.mkdir()
    small = folders.pop()
    (small / "truth.json").write_bytes((STUDY / "truth.json").read_bytes())
    for name in ("swi-0001.dcm", "swi-0002.dcm", "pha-0001.dcm"):
        (small / name).write_bytes((STUDY / name).read_bytes())
    one, two = (make_phantom(small, folder, NOW) for folder in folders)
    assert one.digest == two.digest
    files = (sorted(small.glob("*.dcm")), one.files, two.files)
    old, images, later = ([dcmread(path, stop_before_pixels=True) for path in paths] for paths in files)
    named = {(str(i.PatientName), i.PatientID, i.StudyDate) for i in images}
    assert named == {("QA^PHANTOM", QA_PATIENT_ID, "20261126")}
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        uids = [[str(getattr(image, keyword)) for image in each] for each in (old, images, later)]
        assert len({uid for each in uids for uid in each}) == 3 * len(set(uids[0])), keyword
    assert [i.file_meta.MediaStorageSOPInstanceUID for i in images] == [i.SOPInstanceUID for i in images]
    assert [i.SOPClassUID for i in images] == [i.SOPClassUID for i in old]
    assert {i.StudyInstanceUID for i in images} == {one.study_instance_uid}


def test_a_folder_without_truth_is_no_phantom(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no truth\.json"):
        make_phantom(tmp_path, tmp_path, NOW)
