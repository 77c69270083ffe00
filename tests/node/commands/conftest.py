"""What tests of the commands share: an environment without settings, and a small study."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.dicom_factory import siemens_swi, write


@pytest.fixture
def _nobodys_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests; a module asks for it with `usefixtures`."""
    for name in [name for name in os.environ if name.upper().startswith("CMBNODE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A small Siemens study: magnitude, phase, mIP and SWI."""
    folder = tmp_path / "study"
    noise = np.random.default_rng(1).integers(200, 400, (9, 24, 24)).astype(np.uint16)
    write(siemens_swi(noise, np.zeros((9, 24, 24)), noise), folder)
    return folder
