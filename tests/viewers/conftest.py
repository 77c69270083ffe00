"""Tests with viewers that are not Debian packages: ``make viewer-test`` installs them and names their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

collect_ignore_glob = [] if os.environ.get("CMBNODE_VIEWERS") else ["test_*.py"]


@pytest.fixture(scope="session")
def viewers() -> Path:
    """The folder that :mod:`tests.viewers.packages` has filled."""
    return Path(os.environ["CMBNODE_VIEWERS"])
