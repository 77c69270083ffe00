"""What would be added if a reader marked a place? Its size, its location and a picture, from the viewer's volumes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.anatomy.atlas import load_atlas
from pipeline.errors import InputError
from pipeline.findings import Point
from pipeline.findings.summary import CountedPlace
from pipeline.geometry import Geometry, Volume
from pipeline.measure.reader_click import SPHERE_MM, in_brain, measure_marked
from pipeline.measure.region import MeasureParameters

from .nifti import Bytes, from_nifti
from .picture_archive import PictureArchive
from .volumes import ATLAS

THUMBNAIL: Final = 120
"""Width and height of a thumbnail, pixels."""
FIELD_MM: Final = 26.0
NOWHERE: Final = CountedPlace(None, None, None)


@dataclass(frozen=True)
class PlacePreview:
    """What lies at a place. `centroid_lps_mm` is the centre of the dark region, or the place itself if there is none.

    `where` is empty if the location was not assessed.
    """

    in_brain: bool
    measured: bool
    diameter_mm: float
    centroid_lps_mm: Point
    where: CountedPlace


class StoredVolumes:
    """The volumes of a result, read for measuring.

    Raises
    ------
    InputError
        If they are not there, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with PictureArchive(path) as pictures:
            self._swi = pictures.picture("swi.nii.gz")
            self._brain = pictures.picture("brain.nii.gz")
            self._atlas = pictures.picture(ATLAS)
            shape, affine = pictures.index["shape"], np.array(pictures.index["affine"], dtype=np.float64)
        if self._swi is None or self._brain is None:
            raise InputError("the volumes have no SWI or no brain mask", where=path.name)
        self.geometry = Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    @cached_property
    def _values(self) -> Bytes:
        return from_nifti(self._swi or b"")[0]

    def preview(self, place: Point, parameters: MeasureParameters) -> PlacePreview:
        """Measure what lies at a place, as the correction will."""
        brain = from_nifti(self._brain or b"")[0].view(np.bool_)
        i, j, k = self.geometry.to_ijk(place).tolist()
        if not in_brain((i, j, k), brain, self.geometry.spacing):
            return PlacePreview(False, False, 0.0, place, NOWHERE)
        region = measure_marked(
            (i, j, k), Volume(cast("NDArray[np.float32]", self._values), self.geometry, ()), brain, parameters
        )
        centre = (i, j, k) if region is None else region.centroid_ijk
        x, y, z = self.geometry.to_lps(centre).round(2).tolist()
        size = SPHERE_MM if region is None else region.diameter_mm
        return PlacePreview(True, region is not None, size, (x, y, z), self._where(centre))

    def _where(self, ijk: tuple[float, float, float]) -> CountedPlace:
        if self._atlas is None:
            return NOWHERE
        places = np.load(BytesIO(self._atlas), allow_pickle=False)
        scale = (np.array(places.shape[:3]) - 1) / (np.array(self.geometry.shape) - 1)
        at = (np.array(ijk[::-1]) * scale)[:, None]
        found = load_atlas().place([ndimage.map_coordinates(places[..., a], at, order=1)[0] for a in range(3)])
        return CountedPlace(found.region, found.location, found.side)

    def thumbnail(self, place: Point) -> bytes:
        """The axial surroundings of a place, :data:`FIELD_MM` wide, as JPEG."""
        i, j, k = self.geometry.to_ijk(place)
        across, down, _ = self.geometry.spacing
        plane = np.asarray(self._values[int(np.clip(round(k), 0, self.geometry.shape[0] - 1))])[::-1, ::-1]
        step, (rows, columns) = FIELD_MM / THUMBNAIL, plane.shape
        a, e = step / across, step / down
        column, row = columns - 1 - i, rows - 1 - j  # the patient's right on the left, the front at the top
        matrix = (a, 0.0, column + 0.5 - a * THUMBNAIL / 2, 0.0, e, row + 0.5 - e * THUMBNAIL / 2)
        size = (THUMBNAIL, THUMBNAIL)
        image = Image.fromarray(np.ascontiguousarray(plane)).transform(
            size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
        )
        file = BytesIO()
        image.point([min(255, round(value * 1.25)) for value in range(256)]).save(file, format="JPEG", quality=88)
        return file.getvalue()
