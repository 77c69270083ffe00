"""Where the tests of the pipeline keep what is made once for all of their processes."""

from __future__ import annotations

import os

import pytest

from . import phantom


@pytest.fixture(scope="session", autouse=True)
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is read and found in the demo study in a folder that all test processes share."""
    base = tmp_path_factory.getbasetemp()
    phantom.shared_folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
