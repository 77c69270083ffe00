"""A short campaign: whatever strikes, each study is delivered once, and nobody lifts a hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from .campaign import Plan, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_thirty_faults_cost_no_study_and_no_hand(tmp_path: Path) -> None:
    outcome = run(Plan(seed=7, faults=30, studies=8, calm_limit_s=240), tmp_path)
    assert outcome.clean, outcome.table()
    assert len(outcome.struck) >= 8, outcome.table()
