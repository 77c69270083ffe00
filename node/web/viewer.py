"""Which pictures of a result does the page show? One slice at a time with its marks, and the capture object's pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array

from pipeline.errors import InputError
from pipeline.geometry import Geometry
from pipeline.pictures import PictureArchive

Point = tuple[float, float, float]

VIEWS = {"swi": "SWI", "mip": "mIP", "phase": "Phase"}
"""What can be shown of a result, and its name on the page."""
LARGEST = 640
"""Longer side of a picture on the page, in pixels."""
SLAB_MM = 10.0
"""Thickness of the minimum intensity projection."""
_RING_GAP_MM = 2.5


@dataclass(frozen=True)
class MarkedPlace:
    """A place to ring: where it is (LPS, mm), its diameter, and its label."""

    centroid_lps_mm: Point
    diameter_mm: float
    label: str
    tone: str


@dataclass(frozen=True)
class RingOverlay:
    """A circle on the picture, in pixels."""

    x: float
    y: float
    radius: float
    label: str
    tone: str


@dataclass(frozen=True, eq=False)
class ViewerSlices:
    """The slices of a result: geometry and numbers in a PACS. A position counts from 0 in the PACS's order."""

    geometry: Geometry
    numbers: tuple[int, ...]
    views: tuple[str, ...]
    edges: tuple[str, ...]

    @classmethod
    def of(cls, index: Mapping[str, Any]) -> ViewerSlices:
        """Read the index of a file of slices."""
        k, j, i = (int(n) for n in index["shape"])
        geometry = Geometry((k, j, i), np.array(index["affine"], dtype=np.float64))
        views = tuple(view for view in VIEWS if view in index["views"] or view == "mip")
        return cls(geometry, tuple(index["numbers"]), views, tuple(index["edges"]))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The slice `k` at each position."""
        return tuple(sorted(range(len(self.numbers)), key=lambda k: self.numbers[k]))

    @property
    def reach(self) -> int:
        """Number of neighbours on each side that a projection includes."""
        return max(1, round(SLAB_MM / 2 / self.geometry.spacing[2]))

    @cached_property
    def scale(self) -> float:
        """Pixels on the page per millimetre."""
        _, rows, columns = self.geometry.shape
        return LARGEST / max(columns * self.geometry.spacing[0], rows * self.geometry.spacing[1])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the page, true to scale."""
        _, rows, columns = self.geometry.shape
        di, dj, _ = self.geometry.spacing
        return round(columns * di * self.scale), round(rows * dj * self.scale)

    def position_of(self, place: Point) -> int:
        """Position of the slice nearest to a place."""
        k = round(float(self.geometry.to_ijk(place)[2]))
        return self.order.index(min(max(k, 0), len(self.order) - 1))

    def position_of_number(self, number: int) -> int:
        """Position of the slice with this number in a PACS, or with the nearest one."""
        return min(range(len(self.order)), key=lambda p: abs(self.numbers[self.order[p]] - number))

    def place(self, position: int, x: float, y: float) -> Point:
        """The place in the patient (LPS, mm) of a pixel (x, y) of the picture on the page.

        Raises
        ------
        InputError
            If the pixel lies outside the picture.
        """
        (width, height), (_, rows, columns) = self.size, self.geometry.shape
        return self.voxel(position, y / height * rows + 0.5, x / width * columns + 0.5)

    def voxel(self, position: int, row: float, column: float) -> Point:
        """The place in the patient (LPS, mm) of a row and column of the image, counted from 1.

        Raises
        ------
        InputError
            If the image has no such row or column.
        """
        _, rows, columns = self.geometry.shape
        if not (0.5 <= row <= rows + 0.5 and 0.5 <= column <= columns + 0.5):
            raise InputError(f"the image has {rows} rows and {columns} columns", do="choose a place on it")
        x, y, z = self.geometry.to_lps((column - 1, row - 1, self.order[position])).round(2).tolist()
        return x, y, z

    def rings(self, position: int, places: Iterable[MarkedPlace]) -> Iterator[RingOverlay]:
        """Rings around the places that the slice crosses."""
        di, dj, dk = self.geometry.spacing
        for place in places:
            i, j, k = self.geometry.to_ijk(place.centroid_lps_mm).tolist()
            if abs(k - self.order[position]) * dk <= max(place.diameter_mm, dk) / 2 + 1e-6:
                x, y = (i + 0.5) * di * self.scale, (j + 0.5) * dj * self.scale
                radius = (place.diameter_mm / 2 + _RING_GAP_MM) * self.scale
                yield RingOverlay(round(x, 1), round(y, 1), round(radius, 1), place.label, place.tone)


@dataclass(frozen=True)
class ViewerState:
    """What the viewer shows: one picture, its marks, and the targets of its buttons. Positions count from 0."""

    url: str
    width: int
    height: int
    position: int
    last: int
    number: int
    view: str
    views: tuple[tuple[str, str], ...]
    edges: tuple[str, ...]
    rings: tuple[RingOverlay, ...]
    neighbours: tuple[str, ...]
    mark_positions: tuple[int, ...]
    rows: int
    columns: int
    notice: str


def viewer_state(
    slices: ViewerSlices, position: int, view: str, places: Sequence[MarkedPlace], base: str, notice: str = ""
) -> ViewerState:
    """Lay out one slice. `base` is the address of the result's pictures; `notice` says what just went wrong."""
    position = min(max(position, 0), len(slices.order) - 1)
    view = view if view in slices.views else "swi"
    near = [p for p in (position - 1, position + 1) if 0 <= p < len(slices.order)]
    return ViewerState(
        url=f"{base}/{view}/{slices.order[position]}.jpg",
        width=slices.size[0],
        height=slices.size[1],
        position=position,
        last=len(slices.order) - 1,
        number=slices.numbers[slices.order[position]],
        view=view,
        views=tuple((one, VIEWS[one]) for one in slices.views),
        edges=slices.edges,
        rings=tuple(slices.rings(position, places)),
        neighbours=tuple(f"{base}/{view}/{slices.order[p]}.jpg" for p in near),
        mark_positions=tuple(sorted({slices.position_of(place.centroid_lps_mm) for place in places})),
        rows=slices.geometry.shape[1],
        columns=slices.geometry.shape[2],
        notice=notice,
    )


def slice_jpeg(pictures: PictureArchive, view: str, k: int) -> bytes | None:
    """Slice `k` as JPEG; a projection combines its neighbours. ``None`` if there is no such picture."""
    if view != "mip":
        return pictures.picture(f"{view}-{k}.jpg")
    slices = ViewerSlices.of(pictures.index)
    near = range(max(0, k - slices.reach), min(len(slices.numbers), k + slices.reach + 1))
    found = [picture for n in near if (picture := pictures.picture(f"swi-{n}.jpg")) is not None]
    if not 0 <= k < len(slices.numbers) or not found:
        return None
    darkest: Image.Image = Image.open(BytesIO(found[0]))
    for other in found[1:]:
        darkest = ImageChops.darker(darkest, Image.open(BytesIO(other)))
    file = BytesIO()
    darkest.save(file, format="JPEG", quality=88)
    return file.getvalue()


def page_count(path: Path) -> int:
    """Number of pages of a capture object."""
    return _frame_count(dcmread(path, stop_before_pixels=True, specific_tags=["NumberOfFrames"]))


def montage_png(path: Path, page: int = 0) -> bytes:
    """Render one page of a capture object as PNG; `page` counts from 0.

    Raises
    ------
    IndexError
        If there is no such page.
    """
    dataset = dcmread(path)
    if not 0 <= page < _frame_count(dataset):
        raise IndexError(f"page {page} of {_frame_count(dataset)}")
    png = BytesIO()
    Image.fromarray(pixel_array(dataset, index=page)).save(png, format="PNG", compress_level=3)
    return png.getvalue()


def _frame_count(dataset: Dataset) -> int:
    return int(dataset.get("NumberOfFrames") or 1)
