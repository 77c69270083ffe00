"""The documentation says what the code does."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_settings_page_lists_every_setting_as_the_code_has_it() -> None:
    reference = runpy.run_path(str(ROOT / "docs" / "make_settings.py"))["reference"]()
    assert (ROOT / "docs" / "settings.md").read_text() == reference, "run: python docs/make_settings.py"
