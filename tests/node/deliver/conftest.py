"""What tests of a delivery share."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.archive import Archive
from node.deliver.delivery import DeliveryRunner
from node.ledger import Ledger
from tests.node.jobs import QUICK


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


@pytest.fixture
def runner(ledger: Ledger, archive: Archive) -> DeliveryRunner:
    return DeliveryRunner(ledger, archive, QUICK, "pacs", None, owner="deliver@test")
