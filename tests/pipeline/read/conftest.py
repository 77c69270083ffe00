"""What tests of reading share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from pipeline.read.decoding import Decoding


@pytest.fixture(scope="module")
def kept_decoders() -> Iterator[None]:
    """One set of decoding processes for all studies of a module: to start one takes longer than to decode a study."""
    with Decoding() as decoding, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.read.volume.Decoding", lambda: nullcontext(decoding))
        yield
