"""What does a browser show of a result? Crops of each microbleed, the slices, and volumes for the viewer.

They are made once, during the analysis, so that a page needs neither pixel data nor SimpleITK. The crops are small and
kept as long as the findings; slices and volumes are deleted with the images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .picture_archive import CROPS, SLICES, VOLUMES, PictureArchive, write_picture_archive

if TYPE_CHECKING:
    from pipeline.detect import Detection

__all__ = ["CROPS", "SLICES", "VOLUMES", "PictureArchive", "make_pictures", "write_picture_archive"]


def make_pictures(detection: Detection, volumes: bytes | None = None) -> dict[str, bytes]:
    """Make the files that the page shows, by name: :data:`CROPS`, :data:`SLICES` and :data:`VOLUMES`.

    `volumes` are those of the result that is corrected: its images are the same.

    Raises
    ------
    InputError
        If the headers of the SWI cannot be read again for the slice numbers.
    """
    from pipeline.results.source import read_planes

    from .crops import make_crops
    from .slices import make_slices
    from .volumes import make_volumes

    numbers = tuple(plane.number for plane in read_planes(detection.acquisition.swi))
    return {
        CROPS: make_crops(detection, numbers),
        SLICES: make_slices(detection, numbers),
        VOLUMES: volumes or make_volumes(detection, numbers),
    }
