"""An image that arrives again in another encoding is the same image; anything else under its UID is a conflict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import JPEG2000

from node.receive.same_image import ImageComparison
from tests.dicom_factory import TRANSFER_SYNTAXES, Part, classic, encode, enhanced

PIXELS = np.random.default_rng(3).integers(0, 4096, (2, 64, 48)).astype(np.uint16)


@pytest.fixture(scope="module")
def comparison() -> ImageComparison:
    return ImageComparison()


def image(**options: object) -> Dataset:
    return classic(PIXELS, slope=2, intercept=-4096, bits_stored=12, **options)[0]


def saved(ds: Dataset, path: Path) -> Path:
    ds.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_a_lossless_encoding_holds_the_same_image(comparison: ImageComparison, tmp_path: Path, syntax: str) -> None:
    stored = saved(encode(image()), tmp_path / "stored.dcm")
    assert comparison.same(stored, saved(encode(image(), syntax), tmp_path / "arrived.dcm"))


def test_every_frame_is_compared(comparison: ImageComparison, tmp_path: Path) -> None:
    one, other = (enhanced([Part(pixels)]) for pixels in (PIXELS, PIXELS[::-1]))
    stored = saved(encode(one), tmp_path / "stored.dcm")
    assert comparison.same(stored, saved(encode(one, "rle"), tmp_path / "same.dcm"))
    assert not comparison.same(stored, saved(encode(other, "rle"), tmp_path / "other.dcm"))


def _lossy(ds: Dataset) -> None:
    ds.compress(JPEG2000, j2k_cr=[20.0], generate_instance_uid=False)


@pytest.mark.parametrize(
    "change",
    [
        _lossy,
        lambda ds: setattr(ds, "PixelData", ds.PixelData[::-1]),
        lambda ds: setattr(ds, "RescaleSlope", 1),
        lambda ds: setattr(ds, "PatientName", "Other^Patient"),
        lambda ds: setattr(ds, "SeriesInstanceUID", "1.2.3"),
        lambda ds: setattr(ds, "ImagePositionPatient", [1, 2, 3]),
        lambda ds: setattr(ds, "SamplesPerPixel", 3),
        lambda ds: delattr(ds, "PixelData"),
    ],
    ids=["lossy", "pixels", "meaning", "patient", "series", "place", "colour", "no pixels"],
)
def test_another_image_is_another_image(
    comparison: ImageComparison, tmp_path: Path, change: Callable[[Dataset], None]
) -> None:
    stored = saved(encode(image()), tmp_path / "stored.dcm")
    other = encode(image())
    change(other)
    assert not comparison.same(stored, saved(other, tmp_path / "arrived.dcm"))
