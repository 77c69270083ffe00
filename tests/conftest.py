"""What tests of several packages share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from .longitudinal import Longitudinal

if "PYTEST_XDIST_WORKER" in os.environ:
    # There are more workers than cores: several threads in each wait for one another, thrice as long where measured.
    for threads in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ.setdefault(threads, "1")

settings.register_profile("cmb-node", deadline=None)  # how fast an example runs says nothing on a busy machine
settings.load_profile("cmb-node")


@pytest.fixture(autouse=True)
def _log_ends_with_the_test() -> Iterator[None]:
    """Take away a log to the standard error of this test, which is closed now: threads may still write to it."""
    yield
    root = logging.getLogger()
    for handler in [one for one in root.handlers if type(one) is logging.StreamHandler]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def longitudinal(tmp_path_factory: pytest.TempPathFactory) -> Longitudinal:
    """Two studies of one simulated head, the second in another pose and with three more bleeds; made once for all."""
    from .longitudinal import shared_pair  # the simulator takes a while to load

    base = tmp_path_factory.getbasetemp()
    return shared_pair((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "longitudinal")
