"""A run of all stages: what one stage leaves behind for the next."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import NoReturn

import pytest

from tests.training.tiny import config, recipe, studies
from training.fit.holdout import hold_out_validation
from training.fit.run import fit
from training.fit.samples import GridStudy
from training.fit.trainer import TrainingInterrupted
from training.fit.training_run import TrainingRun

pytestmark = pytest.mark.slow


def test_the_second_stage_is_trained_without_the_data_of_the_first_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = []

    def look(*_args: object) -> NoReturn:
        alive.append(sum(type(one) is GridStudy for one in gc.get_objects()))
        raise TrainingInterrupted("that is all")

    monkeypatch.setattr("training.fit.run.fit_classifier", look)
    with pytest.raises(TrainingInterrupted):
        fit(TrainingRun(recipe("heatmap"), config(), hold_out_validation(studies(), 0.2), tmp_path, say=str))
    assert alive == [0]
