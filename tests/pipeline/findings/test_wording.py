"""Words that every result uses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.findings import wording
from tests.node.seeded import make_findings


@pytest.mark.parametrize(
    ("value", "said"),
    [(1.0, "> 0.99"), (0.9951, "> 0.99"), (0.994, "0.99"), (0.5, "0.50"), (0.006, "0.01"), (0.004, "< 0.01")],
)
def test_no_detector_is_certain(value: float, said: str) -> None:
    lesion = replace(make_findings("1.2", 1).lesions[0], probability=value)
    assert wording.probability(lesion) == said
    assert f"probability {said}" in wording.lesion_line(lesion)


def test_what_limits_a_result_is_said_in_a_few_words() -> None:
    said = (
        "the slices cover 39 % of the brain: the rest was not analysed",
        "voxel size 1.20 mm is outside the range of 0.4 to 1 mm that profile default is meant for",
        "profile default was trained on simulated images",
    )
    assert wording.limits(said, coverage=0.39, phase=False, located=False) == [
        "39 % of the brain",
        "no phase",
        "outside the intended range",
        "location not assessed",
    ]
    ends = ["the slices end inside the brain at its top: what lies beyond was not analysed"]
    assert wording.limits(ends, coverage=None, phase=True, located=True) == ["part of the brain"]
    assert wording.limits(said[2:], coverage=0.99, phase=True, located=True) == []
