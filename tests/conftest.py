"""What tests of several packages share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.longitudinal import Longitudinal


@pytest.fixture(scope="session")
def longitudinal(tmp_path_factory: pytest.TempPathFactory) -> Longitudinal:
    """Two studies of one simulated head, the second in another pose and with three more bleeds."""
    from tests.longitudinal import make_pair  # the simulator takes a while to load

    return make_pair(Path(tmp_path_factory.mktemp("longitudinal")))
