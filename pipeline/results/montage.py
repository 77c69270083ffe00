"""What should a reader see in two seconds? Pages with the counts, the slices with microbleeds, and a table.

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

from .panels import BACKGROUND, Crop, Pictures
from .sidebar import MARGIN, WIDTH_OF_SIDEBAR, Box, Sidebar
from .source import read_planes

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
        What a PACS calls each slice (Instance Number, or frame number).
    replaces : bool
        Whether the result takes the place of an earlier one, which the pages then say.
    """
    findings, swi = detection.findings, detection.acquisition.swi
    pictures = Pictures.of(swi, findings.lesions, numbers)
    sidebar = Sidebar(findings, pictures, HEIGHT, replaces)
    panels = _panels(findings.lesions, sidebar.rows) or _overview(swi.geometry.shape[0])
    plan = list(_paginate(sorted(panels, key=lambda panel: numbers[panel.k]), sidebar.rows))
    pages = []
    for n, shown in enumerate(plan, start=1):
        page = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
        listed = [lesion for panel in shown for lesion in panel.lesions]
        beside = sidebar.draw(page, listed, f"page {n} of {len(plan)}" if len(plan) > 1 else "")
        below = _draw_panels(page, pictures, shown, fixed=len(plan) > 1)
        _draw_close_ups(page, pictures, listed, (beside, below))
        pages.append(page)
    return pages


def _panels(lesions: Sequence[Lesion], rows: int) -> list[Panel]:
    """One panel a slice, from the first slice to the last; a slice with more lesions than a table holds comes again."""
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


def _draw_panels(page: Image.Image, pictures: Pictures, panels: Sequence[Panel], fixed: bool) -> Box:
    """Draw the slices; return the room that is left after the last."""
    left, top = MARGIN + WIDTH_OF_SIDEBAR + MARGIN, MARGIN
    width, height = WIDTH - left - MARGIN, HEIGHT - 2 * top
    count = _MOST_PANELS if fixed else len(panels)
    columns, rows = _grid(count, width, height, pictures.crop, pictures.volume.geometry)
    cell = (width - _GAP * (columns - 1)) // columns, (height - _GAP * (rows - 1)) // rows
    for n, panel in enumerate(panels):
        row, column = divmod(n, columns)
        place = left + column * (cell[0] + _GAP), top + row * (cell[1] + _GAP)
        page.paste(pictures.panel(panel.k, panel.lesions, cell), place)
    row, column = divmod(len(panels), columns)
    return left + column * (cell[0] + _GAP), top + row * (cell[1] + _GAP), left + width, top + height


def _draw_close_ups(page: Image.Image, pictures: Pictures, lesions: Sequence[Lesion], rooms: Sequence[Box]) -> None:
    """Each lesion from near beside its projection, in the room that shows all of them largest, if at a useful size."""
    layouts = []
    for (left, top, right, bottom), columns in product(rooms, range(1, 5)):
        size = (right - left + _GAP) // columns // 2 - _GAP
        rows = -(-len(lesions) // columns)
        if size >= _SMALLEST_CLOSE_UP and rows * (size + _GAP) <= bottom - top:
            layouts.append((size, columns, left, top))
    if not layouts:
        return
    size, columns, left, top = max(layouts)
    for n, lesion in enumerate(lesions):
        row, column = divmod(n, columns)
        place = left + column * 2 * (size + _GAP), top + row * (size + _GAP)
        page.paste(pictures.close_up(lesion, size), place)


def _grid(count: int, width: int, height: int, crop: Crop, geometry: Geometry) -> tuple[int, int]:
    """Columns and rows that show `count` slices largest."""
    w, h = crop.size_mm(geometry)
    grids = [(c, r) for c, r in product(range(1, count + 1), repeat=2) if c * r >= count > c * (r - 1)]
    return max(grids, key=lambda grid: min(width / grid[0] / w, height / grid[1] / h))
