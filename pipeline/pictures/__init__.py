"""What does a reader see of a result in a browser? Crops of each bleed, and the slices, ready to be shown.

They are drawn once, when the images are decoded anyway: a page then needs neither pixels nor SimpleITK. The crops are
small and stay as long as the findings; the slices go with the images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.pictures.book import CROPS, SLICES, Book, bind

if TYPE_CHECKING:
    from pipeline.detect import Detection

__all__ = ["CROPS", "SLICES", "Book", "bind", "make_pictures"]


def make_pictures(detection: Detection) -> dict[str, bytes]:
    """Draw the crops and slices of a detection; returns two files by name, :data:`CROPS` and :data:`SLICES`.

    Raises
    ------
    InputError
        If the headers of the SWI cannot be read again (for what a PACS calls its slices).
    """
    from pipeline.pictures.crops import make_crops
    from pipeline.pictures.slices import make_slices
    from pipeline.results.source import read_planes

    numbers = tuple(plane.number for plane in read_planes(detection.acquisition.swi))
    return {CROPS: make_crops(detection, numbers), SLICES: make_slices(detection, numbers)}
