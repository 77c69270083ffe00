"""Regressions planted in the real pipeline make a run of site QA differ from the last good one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.archive.qa_runs import QaRun
from node.demo.score import PlantedObject, PlantedTruth
from node.qa.drift import differences, found_of
from node.settings.qa import QaSettings
from pipeline.detect import detect
from pipeline.read.study import find_files, read_studies, select_series
from tests.classical import quick_profile
from tests.dicom_factory import affine, siemens_swi, write
from tests.heads import BLEEDS, SPACING, small_head

pytestmark = pytest.mark.slow
MATRIX = affine(SPACING, (0.0, 0.0, 0.0))
TRUTH = PlantedTruth(
    tuple(PlantedObject(tuple((MATRIX @ (*voxel, 1.0))[:3].tolist()), 2.0, visible=True) for voxel in BLEEDS), ()
)


def analysed(folder: Path, sign: int = 1, **thresholds: float) -> QaRun:
    """What a run measures of a small head whose phase is read with this sign."""
    swi, phase = small_head()
    write(siemens_swi(swi, sign * phase, swi, matrix=MATRIX), folder)
    (study,), _ = read_studies(find_files(folder))
    profile = quick_profile(thresholds=thresholds) if thresholds else quick_profile()
    found, scored = found_of(detect(select_series(study), profile).findings.to_json(), TRUTH)
    at = datetime(2026, 11, 26, tzinfo=UTC)
    return QaRun(at, "1.2.3", "small head", len(BLEEDS), found=found, false=len(scored.false_ids))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> QaRun:
    run = analysed(tmp_path_factory.mktemp("good"))
    assert len(run.found) == len(BLEEDS)
    return run


def test_the_same_pipeline_measures_the_same(good: QaRun, tmp_path: Path) -> None:
    assert differences(analysed(tmp_path), good, QaSettings()) == ()


def test_a_phase_with_the_wrong_sign_is_noticed(good: QaRun, tmp_path: Path) -> None:
    (lost,) = differences(analysed(tmp_path, sign=-1), good, QaSettings())
    assert lost.startswith("no longer found: microbleed ")


def test_a_higher_threshold_is_noticed(good: QaRun, tmp_path: Path) -> None:
    (lost,) = differences(analysed(tmp_path, possible=0.95, definite=0.96), good, QaSettings())
    assert lost.startswith("no longer found: microbleed ")
