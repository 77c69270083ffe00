"""The size a compressed image declares is known before it is decoded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import generate_frames

from pipeline.read.codestream import declared_size
from tests.dicom_factory import classic, encode


@pytest.mark.parametrize("transfer_syntax", ["jpeg-lossless", "jpeg-ls", "jpeg-2000"])
@pytest.mark.parametrize("shape", [(40, 64), (64, 40)])
def test_rows_and_columns_are_read(transfer_syntax: str, shape: tuple[int, int]) -> None:
    ds = encode(classic(np.zeros((1, *shape), dtype=np.uint16))[0], transfer_syntax)
    (codestream,) = generate_frames(ds.PixelData, number_of_frames=1)
    assert declared_size(codestream) == shape


def test_run_lengths_declare_nothing() -> None:
    ds = encode(classic(np.zeros((1, 8, 8), dtype=np.uint16))[0], "rle")
    (codestream,) = generate_frames(ds.PixelData, number_of_frames=1)
    assert declared_size(codestream) is None


@given(st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "]), st.binary(max_size=200))
def test_any_bytes_give_a_size_or_none(start: bytes, rest: bytes) -> None:
    found = declared_size(start + rest)
    assert found is None or len(found) == 2
