"""Every file that ships with pydicom as test data has a defined outcome, and costs no memory that stays."""

from __future__ import annotations

import runpy
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[1] / "docs"
LEAK_BYTES = 100 << 20
"""More than imports cost, far less than the images of all files."""


@pytest.mark.integration
def test_the_page_says_what_becomes_of_every_file_of_pydicom() -> None:
    page = runpy.run_path(str(DOCS / "make_pydicom_files.py"))
    before = psutil.Process().memory_info().rss
    found = page["outcomes"]()
    assert psutil.Process().memory_info().rss - before < LEAK_BYTES
    assert len(found) == len(page["shipped_files"]()) > 150
    assert {one.status for one in found} == {2}  # none is an SWI: an input error each, in one line
    assert all(one.detect and "\n" not in one.detect and " / " not in one.detect for one in found)
    assert (DOCS / "pydicom-files.md").read_text() == page["reference"](found), "run: python -m docs.make_pydicom_files"
