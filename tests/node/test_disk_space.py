"""Free disk space: people are warned before images are refused, and it is always said how much is missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.archive import DiskSpace

MB = st.integers(0, 10**7)


@given(free=MB, required=MB)
def test_the_words_say_what_is_so(free: int, required: int) -> None:
    disk = DiskSpace(free, required)
    assert str(disk).startswith("images are refused") is disk.refuses is (free < required)
    assert f"{free} MB free" in str(disk)
    assert (f"{required} MB" in str(disk)) or not disk.fills_up


@given(free=MB, required=MB)
def test_nothing_is_refused_without_a_warning_before_it(free: int, required: int) -> None:
    disk = DiskSpace(free, required)
    assert disk.fills_up or not disk.refuses
    assert disk.refuses or DiskSpace(free, free + 1).fills_up
