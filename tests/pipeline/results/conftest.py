"""Detections that several tests share; read-only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .studies import Detection, simulate

Make = Callable[..., Detection]


@pytest.fixture(scope="session")
def detection_of(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Simulate a study once for each set of options."""
    made: dict[str, Detection] = {}

    def make(lesions: int = 5, **options: Any) -> Detection:
        name = repr((lesions, sorted(options.items())))
        if name not in made:
            made[name] = simulate(tmp_path_factory.mktemp("study"), lesions, **options)
        return made[name]

    return make
