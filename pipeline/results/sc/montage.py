"""What should a reader grasp at a glance? Pages with the counts, the slices with microbleeds, and a table.

Made for a dark reading room at 100 %: every page lists exactly the lesions it shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from pipeline.findings import Lesion
from pipeline.results.source import read_planes

from .panels import BACKGROUND, Crop, SliceRenderer
from .sidebar import MARGIN, WIDTH_OF_SIDEBAR, Box, Sidebar

if TYPE_CHECKING:
    from pipeline.detect import Detection
    from pipeline.geometry import Geometry

WIDTH: Final = 1280
HEIGHT: Final = 960

_GAP: Final = 6
_MOST_PANELS: Final = 9
_SMALLEST_CLOSE_UP: Final = 48


@dataclass(frozen=True)
class Panel:
    """A slice to show and the lesions to ring on it."""

    k: int
    lesions: tuple[Lesion, ...] = ()


def montage(detection: Detection, *, replaces: bool = False) -> Image.Image:
    """All pages, one below the other, for a screen that scrolls."""
    numbers = tuple(plane.number for plane in read_planes(detection.acquisition.swi))
    pages = draw_pages(detection, numbers, replaces=replaces)
    whole = Image.new("RGB", (WIDTH, HEIGHT * len(pages)), BACKGROUND)
    for n, page in enumerate(pages):
        whole.paste(page, (0, HEIGHT * n))
    return whole


def draw_pages(detection: Detection, numbers: tuple[int, ...], *, replaces: bool = False) -> list[Image.Image]:
    """Draw the pages, all of one size.

    Parameters
    ----------
    detection : Detection
        Lesions and the SWI they were found on.
    numbers : tuple of int
        The number that a PACS shows for each slice (Instance Number, or frame number).
    replaces : bool
        Whether the result replaces an earlier one, which the pages then say.
    """
    findings, swi = detection.findings, detection.acquisition.swi
    pictures = SliceRenderer.of(swi, findings.lesions, numbers)
    sidebar = Sidebar(findings, pictures, HEIGHT, replaces)
    panels = _panels(findings.lesions, sidebar.rows) or _overview(swi.geometry.shape[0])
    plan = list(_paginate(sorted(panels, key=lambda panel: numbers[panel.k]), sidebar.rows))
    pages = []
    for n, shown in enumerate(plan, start=1):
        page = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
        listed = [lesion for panel in shown for lesion in panel.lesions]
        beside = sidebar.draw(page, listed)
        rooms = _draw_panels(page, pictures, shown, fixed=len(plan) > 1)
        below = _draw_close_ups(page, pictures, listed, (beside, *rooms))
        sidebar.draw_notes(page, max(below, beside[1]), f"page {n} of {len(plan)}" if len(plan) > 1 else "")
        pages.append(page)
    return pages


def _panels(lesions: Sequence[Lesion], rows: int) -> list[Panel]:
    """One panel per slice, in order; a slice with more lesions than fit into the table is repeated."""
    by_slice: dict[int, list[Lesion]] = defaultdict(list)
    for lesion in lesions:
        by_slice[lesion.voxel_ijk[2]].append(lesion)
    return [
        Panel(k, tuple(found[n : n + rows]))
        for k, found in sorted(by_slice.items())
        for n in range(0, len(found), rows)
    ]


def _overview(slices: int) -> list[Panel]:
    """Evenly spaced slices, so that a reader sees what was analysed when nothing was found."""
    places = np.linspace(0.12, 0.88, _MOST_PANELS) * (slices - 1)
    return [Panel(k) for k in sorted(set(np.rint(places).astype(int).tolist()))]


def _paginate(panels: Sequence[Panel], most_rows: int) -> Iterator[list[Panel]]:
    page: list[Panel] = []
    for panel in panels:
        rows = sum(len(p.lesions) for p in page) + len(panel.lesions)
        if page and (len(page) == _MOST_PANELS or rows > most_rows):
            yield page
            page = []
        page.append(panel)
    yield page


def _draw_panels(page: Image.Image, pictures: SliceRenderer, panels: Sequence[Panel], fixed: bool) -> tuple[Box, Box]:
    """Draw the slices; return the space that is left beside the last and below all of them."""
    left, top = MARGIN + WIDTH_OF_SIDEBAR + MARGIN, MARGIN
    width, height = WIDTH - left - MARGIN, HEIGHT - 2 * top
    count = _MOST_PANELS if fixed else len(panels)
    columns, rows = _grid(count, width, height, pictures.crop, pictures.volume.geometry)
    cell = (width - _GAP * (columns - 1)) // columns, (height - _GAP * (rows - 1)) // rows
    width_mm, height_mm = pictures.crop.size_mm(pictures.volume.geometry)
    if not fixed:  # no higher than the slice
        cell = cell[0], min(cell[1], round(cell[0] * height_mm / width_mm))
    for n, panel in enumerate(panels):
        row, column = divmod(n, columns)
        place = left + column * (cell[0] + _GAP), top + row * (cell[1] + _GAP)
        page.paste(pictures.panel(panel.k, panel.lesions, cell), place)
    row, column = divmod(len(panels), columns)
    end = top + -(-len(panels) // columns) * (cell[1] + _GAP)
    beside = left + column * (cell[0] + _GAP), top + row * (cell[1] + _GAP), left + width, top + height
    return beside, (left, end, left + width, top + height)


def _draw_close_ups(page: Image.Image, pictures: SliceRenderer, lesions: Sequence[Lesion], rooms: Sequence[Box]) -> int:
    """Draw each lesion up close beside its projection, where they are largest, if large enough to be useful.

    Returns
    -------
    int
        Where they end if they are in the first room, else where that begins.
    """
    layouts = []
    for room, columns in product(rooms, range(1, 5)):
        left, top, right, bottom = room
        rows = -(-len(lesions) // columns)
        size = min((right - left + _GAP) // columns // 2, (bottom - top + _GAP) // max(rows, 1)) - _GAP
        if size >= _SMALLEST_CLOSE_UP:
            layouts.append((size, columns, room))
    if not layouts or not lesions:
        return rooms[0][1]
    size, columns, room = max(layouts, key=lambda layout: (layout[0] // 4, layout[1]))  # of a size, the wider one
    left, top, _, _ = room
    for n, lesion in enumerate(lesions):
        row, column = divmod(n, columns)
        place = left + column * 2 * (size + _GAP), top + row * (size + _GAP)
        page.paste(pictures.close_up(lesion, size), place)
    return top + -(-len(lesions) // columns) * (size + _GAP) if room == rooms[0] else rooms[0][1]


def _grid(count: int, width: int, height: int, crop: Crop, geometry: Geometry) -> tuple[int, int]:
    """The numbers of columns and rows in which `count` slices are largest."""
    w, h = crop.size_mm(geometry)
    grids = [(c, r) for c, r in product(range(1, count + 1), repeat=2) if c * r >= count > c * (r - 1)]
    return max(grids, key=lambda grid: min(width / grid[0] / w, height / grid[1] / h))
