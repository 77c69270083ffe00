"""What does the capture object look like in a browser? Each of its pages as PNG."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array


def page_count(path: Path) -> int:
    """Number of pages of a capture object: the frames of a multi-frame one."""
    return _frames(dcmread(path, stop_before_pixels=True, specific_tags=["NumberOfFrames"]))


def _frames(dataset: Dataset) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def montage_png(path: Path, page: int = 0) -> bytes:
    """Render one page of a capture object that the node made itself; `page` counts from 0.

    Raises
    ------
    IndexError
        If it has no such page.
    """
    dataset = dcmread(path)
    if not 0 <= page < _frames(dataset):
        raise IndexError(f"page {page} of {_frames(dataset)}")
    png = BytesIO()
    Image.fromarray(pixel_array(dataset, index=page)).save(png, format="PNG", compress_level=3)
    return png.getvalue()
