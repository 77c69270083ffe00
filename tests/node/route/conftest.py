"""The settings and the rule table that tests of routing share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from node.route.rules import RoutingTable, load_table
from node.settings import Settings

from .swi_example import PACS, PROFILE


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with the site's own table, which a test writes with `rules`."""
    (tmp_path / "quick.toml").write_text(PROFILE, encoding="utf-8")
    return Settings(data_dir=tmp_path / "data", routing_file=tmp_path / "routing.toml", destinations=PACS)


@pytest.fixture
def rules(settings: Settings) -> Callable[[str], RoutingTable]:
    """Writes a rule table and loads it; ``@quick`` stands for a profile."""

    def write_table(text: str) -> RoutingTable:
        file = settings.routing_file
        assert file is not None
        quick = file.with_name("quick.toml")
        file.write_text(text.replace("@quick", str(quick)), encoding="utf-8")
        return load_table(settings)

    return write_table
