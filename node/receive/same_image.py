"""Is an image that arrives again the one that is stored, in another encoding?

A study that comes from the scanner and again from the PACS often has the same images in another transfer syntax. They
are the same if identity, position and every stored value agree. This is the only case in which an image is decoded on
receipt, in the process of :mod:`pipeline.read.decoding` that can do no harm.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from pydicom import Dataset, dcmread

from node.logs import explain
from pipeline.read.decoding import Decoding, Image
from pipeline.read.elements import integer, text, values

_log = structlog.get_logger(__name__)

_IDENTITY: Final = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
]
_PLACE: Final = ["NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]


class ImageComparison:
    """Compares image files. Its decoding process starts when it is first needed, and serves one thread at a time."""

    def __init__(self) -> None:
        self._decoding = Decoding()
        self._lock = threading.Lock()

    def same(self, stored: Path, arrived: Path) -> bool:
        """Whether two files hold the same image; false if one of them is no image that the node can decode."""
        try:
            header, other = _header(stored), _header(arrived)
            if _identity(header) != _identity(other):
                return False
            frames = range(integer(header, "NumberOfFrames") or 1)
            with self._lock:
                images = dict(self._decoding.decode({stored: frames, arrived: frames}))
        except Exception as error:  # a hostile file may raise anything; it is then not known to be the same
            _log.info("an image cannot be compared with the one that is stored", file=arrived.name, why=explain(error))
            return False
        return all(_equal(*pair) for pair in zip(images[stored], images[arrived], strict=True))


def _header(path: Path) -> Dataset:
    return dcmread(path, specific_tags=[*_IDENTITY, *_PLACE], stop_before_pixels=True)


def _identity(header: Dataset) -> list[object]:
    names = [text(header, keyword) for keyword in _IDENTITY]
    return [*names, *([float(number) for number in values(header, keyword)] for keyword in _PLACE)]


def _equal(one: Image, other: Image) -> bool:
    """Whether two frames have the same stored values, which mean the same."""
    (pixels, encoding), (others, meaning) = one, other
    same = (encoding.signed, encoding.photometric, encoding.slope, encoding.intercept, encoding.real_world) == (
        meaning.signed, meaning.photometric, meaning.slope, meaning.intercept, meaning.real_world
    )  # fmt: skip
    return same and np.array_equal(pixels, others)
