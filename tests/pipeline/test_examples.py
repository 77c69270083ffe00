"""The examples in the docstrings of the pipeline give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["pipeline.read.study", "pipeline.detect"])
def test_an_example_gives_what_it_shows(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    failures, examples = doctest.testmod(importlib.import_module(module))
    assert examples
    assert not failures
