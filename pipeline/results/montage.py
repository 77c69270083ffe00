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
from PIL import Image, ImageDraw

from pipeline.findings import Certainty, Findings, Lesion

from .common import LOCATION_NOT_ASSESSED, NOT_ASSESSED, RESEARCH_ONLY, SEQUENCE_CAVEAT, plain
from .panels import BACKGROUND, COLOURS, MUTED, TEXT, Crop, Pictures, Ring, draw_ring, font
from .source import read_planes

if TYPE_CHECKING:
    from pipeline.detect import Detection
    from pipeline.geometry import Geometry

WIDTH: Final = 1280
HEIGHT: Final = 960

_MARGIN: Final = 24
_SIDEBAR: Final = 452
_GAP: Final = 6
_MOST_PANELS: Final = 9
_ROWS: Final = 16
_ROW: Final = 25
_LINE: Final = (52, 58, 68)
_WARNING: Final = (255, 138, 128)
_MOST_WARNINGS: Final = 5


@dataclass(frozen=True)
class Panel:
    """A slice to show and the lesions to ring on it."""

    k: int
    lesions: tuple[Lesion, ...] = ()


def montage(detection: Detection) -> Image.Image:
    """All pages, one below the other, for a screen that scrolls."""
    numbers = tuple(plane.number for plane in read_planes(detection.acquisition.swi))
    pages = draw_pages(detection, numbers)
    whole = Image.new("RGB", (WIDTH, HEIGHT * len(pages)), BACKGROUND)
    for n, page in enumerate(pages):
        whole.paste(page, (0, HEIGHT * n))
    return whole


def draw_pages(detection: Detection, numbers: tuple[int, ...]) -> list[Image.Image]:
    """Draw the pages, all of one size.

    Parameters
    ----------
    detection : Detection
        Lesions and the SWI they were found on.
    numbers : tuple of int
        What a PACS calls each slice (Instance Number, or frame number).
    """
    findings, swi = detection.findings, detection.acquisition.swi
    pictures = Pictures.of(swi, findings.lesions, numbers)
    panels = _panels(findings.lesions) or _overview(swi.geometry.shape[0])
    plan = list(_paginate(sorted(panels, key=lambda panel: numbers[panel.k])))
    pages = []
    for n, shown in enumerate(plan, start=1):
        page = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
        _draw_sidebar(page, findings, pictures, [lesion for panel in shown for lesion in panel.lesions])
        _draw_panels(page, pictures, shown, fixed=len(plan) > 1)
        _draw_footer(page, findings, f"page {n} of {len(plan)}" if len(plan) > 1 else "")
        pages.append(page)
    return pages


def _panels(lesions: Sequence[Lesion]) -> list[Panel]:
    """One panel a slice, from the first slice to the last; a slice with more lesions than a table holds comes again."""
    by_slice: dict[int, list[Lesion]] = defaultdict(list)
    for lesion in lesions:
        by_slice[lesion.voxel_ijk[2]].append(lesion)
    return [
        Panel(k, tuple(found[n : n + _ROWS]))
        for k, found in sorted(by_slice.items())
        for n in range(0, len(found), _ROWS)
    ]


def _overview(slices: int) -> list[Panel]:
    """Evenly spaced slices, so that a reader sees what was analysed when nothing was found."""
    places = np.linspace(0.12, 0.88, _MOST_PANELS) * (slices - 1)
    return [Panel(k) for k in sorted(set(np.rint(places).astype(int).tolist()))]


def _paginate(panels: Sequence[Panel]) -> Iterator[list[Panel]]:
    page: list[Panel] = []
    for panel in panels:
        rows = sum(len(p.lesions) for p in page) + len(panel.lesions)
        if page and (len(page) == _MOST_PANELS or rows > _ROWS):
            yield page
            page = []
        page.append(panel)
    yield page


def _draw_panels(page: Image.Image, pictures: Pictures, panels: Sequence[Panel], fixed: bool) -> None:
    left, top = _MARGIN + _SIDEBAR + _MARGIN, _MARGIN
    width, height = WIDTH - left - _MARGIN, HEIGHT - 2 * top
    count = _MOST_PANELS if fixed else len(panels)
    columns, rows = _grid(count, width, height, pictures.crop, pictures.volume.geometry)
    cell = (width - _GAP * (columns - 1)) // columns, (height - _GAP * (rows - 1)) // rows
    for n, panel in enumerate(panels):
        row, column = divmod(n, columns)
        place = left + column * (cell[0] + _GAP), top + row * (cell[1] + _GAP)
        page.paste(pictures.panel(panel.k, panel.lesions, cell), place)


def _grid(count: int, width: int, height: int, crop: Crop, geometry: Geometry) -> tuple[int, int]:
    """Columns and rows that show `count` slices largest."""
    w, h = crop.size_mm(geometry)
    grids = [(c, r) for c, r in product(range(1, count + 1), repeat=2) if c * r >= count > c * (r - 1)]
    return max(grids, key=lambda grid: min(width / grid[0] / w, height / grid[1] / h))


def _draw_sidebar(page: Image.Image, findings: Findings, pictures: Pictures, listed: Sequence[Lesion]) -> None:
    draw = ImageDraw.Draw(page)
    geometry = pictures.volume.geometry
    x, y = _MARGIN, _MARGIN
    draw.text((x, y), "Cerebral microbleeds", font=font(32), fill=TEXT)
    di, dj, dk = geometry.spacing
    facts = f"SWI, {geometry.shape[0]} slices, {di:.2g} x {dj:.2g} x {dk:.2g} mm"
    draw.text((x, y + 42), facts, font=font(16), fill=MUTED)
    draw.rounded_rectangle((x, y + 72, x + _SIDEBAR, y + 106), radius=6, outline=TEXT, width=1)
    draw.text((x + _SIDEBAR // 2, y + 89), RESEARCH_ONLY, font=font(18), fill=TEXT, anchor="mm")
    _draw_counts(page, findings, y + 122)
    notes_top = _draw_notes(page, findings)
    if listed:
        table_end = _draw_table(page, listed, pictures.numbers, y + 226)
        _draw_close_ups(page, pictures, listed, table_end + 14, notes_top - 14)


def _draw_close_ups(page: Image.Image, pictures: Pictures, lesions: Sequence[Lesion], top: int, bottom: int) -> None:
    """Each lesion from near, if the room below the table holds all of them at a useful size."""
    for columns in (2, 3, 4, 5, 6):
        size = (_SIDEBAR - _GAP * (columns - 1)) // columns
        rows = -(-len(lesions) // columns)
        if rows * (size + _GAP) <= bottom - top:
            break
    else:
        return
    for n, lesion in enumerate(lesions):
        row, column = divmod(n, columns)
        place = _MARGIN + column * (size + _GAP), top + row * (size + _GAP)
        page.paste(pictures.close_up(lesion, size), place)


def _draw_counts(page: Image.Image, findings: Findings, y: int) -> None:
    draw = ImageDraw.Draw(page)
    counts = findings.counts
    total = str(counts["total"])
    draw.text((_MARGIN, y + 44), total, font=font(88), fill=TEXT, anchor="lm")
    x = _MARGIN + int(draw.textlength(total, font=font(88))) + 28
    if not findings.lesions:
        draw.text((x, y + 30), "No microbleed was found", font=font(24), fill=TEXT, anchor="lm")
        draw.text((x, y + 62), "slices shown at even spacing", font=font(16), fill=MUTED, anchor="lm")
        return
    for n, certainty in enumerate(Certainty):
        line = y + 24 + 42 * n
        _draw_mark(page, x + 12, line, certainty)
        text = f"{counts[certainty.value]} {certainty.value}"
        draw.text((x + 36, line), text, font=font(28), fill=COLOURS[certainty], anchor="lm")


def _draw_mark(page: Image.Image, x: float, y: float, certainty: Certainty, radius: float = 11) -> None:
    """The ring of the panels as a legend, smooth."""
    n, reach = 3, int(radius) + 3
    mark = Image.new("RGBA", (2 * reach * n, 2 * reach * n), (0, 0, 0, 0))
    draw_ring(ImageDraw.Draw(mark), Ring(reach, reach, radius, certainty, ""), n)
    mark = mark.resize((2 * reach, 2 * reach), Image.Resampling.BOX)
    page.paste(mark, (round(x) - reach, round(y) - reach), mark)


def _draw_table(page: Image.Image, lesions: Sequence[Lesion], numbers: tuple[int, ...], y: int) -> int:
    """Draw the lesions shown on this page; return where the table ends."""
    draw = ImageDraw.Draw(page)
    x = _MARGIN
    edges = (x + 26, x + 78, x + 130, x + 182, x + 232)
    titles = (("no.", ""), ("slice", ""), ("diam.", "mm"), ("vol.", "mm  "), ("prob.", "%"))
    for edge, (title, unit) in zip(edges, titles, strict=True):
        _draw_right(draw, edge, y, title, MUTED, 15)
        _draw_right(draw, edge, y + 17, unit, MUTED, 13)
    _draw_right(draw, edges[3], y + 13, "3", MUTED, 9)  # the font has no superscripts
    draw.text((x + 248, y), "certainty", font=font(15), fill=MUTED, anchor="lm")
    places = (x + _SIDEBAR - 92, x + _SIDEBAR - 46, x + _SIDEBAR)
    for edge, axis in zip(places, "xyz", strict=True):
        _draw_right(draw, edge, y, axis, MUTED, 15)
    _draw_right(draw, x + _SIDEBAR, y + 17, "mm, LPS", MUTED, 13)
    draw.line((x, y + 28, x + _SIDEBAR, y + 28), fill=_LINE)
    for n, lesion in enumerate(lesions):
        line = y + 43 + _ROW * n
        colour = COLOURS[lesion.certainty]
        values = (
            str(lesion.id),
            str(numbers[lesion.voxel_ijk[2]]),
            f"{lesion.diameter_mm:.1f}",
            f"{lesion.volume_mm3:.0f}",
            f"{100 * lesion.probability:.0f}",
        )
        for edge, value in zip(edges, values, strict=True):
            _draw_right(draw, edge, line, value, colour if edge == edges[0] else TEXT, 17)
        draw.text((x + 248, line), lesion.certainty.value, font=font(17), fill=colour, anchor="lm")
        for edge, millimetres in zip(places, lesion.centroid_lps_mm, strict=True):
            _draw_right(draw, edge, line, str(round(millimetres)), TEXT, 17)
    return y + 43 + _ROW * len(lesions)


def _draw_right(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, colour: tuple[int, int, int], size: int) -> None:
    draw.text((x, y), text, font=font(size), fill=colour, anchor="rm")


def _draw_notes(page: Image.Image, findings: Findings) -> int:
    """Draw warnings and what was not assessed, upwards from the footer; return where they begin."""
    draw = ImageDraw.Draw(page)
    warnings = [plain(text) for text in findings.warnings]
    if len(warnings) > _MOST_WARNINGS:
        rest = len(warnings) - _MOST_WARNINGS + 1
        warnings = [*warnings[: _MOST_WARNINGS - 1], f"{rest} more warnings: see the structured report"]
    notes = [NOT_ASSESSED]
    if any(lesion.region is None for lesion in findings.lesions):
        notes.append(LOCATION_NOT_ASSESSED)
    notes.append(SEQUENCE_CAVEAT)
    lines = [(line, _WARNING) for text in warnings for line in _wrap(draw, text, 16, 2)]
    lines += [(line, MUTED) for text in notes for line in _wrap(draw, text, 16)]
    y = HEIGHT - _MARGIN - 26 - 21 * len(lines)
    for n, (line, colour) in enumerate(lines):
        draw.text((_MARGIN, y + 21 * n), line, font=font(16), fill=colour, anchor="lm")
    return y - 10


def _wrap(draw: ImageDraw.ImageDraw, text: str, size: int, most: int = 3) -> list[str]:
    """Break `text` into lines as wide as the sidebar; at most `most` of them."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font(size)) <= _SIDEBAR or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1].rstrip(".,;") + " ..."]
    return lines


def _draw_footer(page: Image.Image, findings: Findings, page_number: str) -> None:
    draw = ImageDraw.Draw(page)
    text = f"profile {plain(findings.profile, 40)}   cmb-node {plain(findings.software, 20)}"
    y = HEIGHT - _MARGIN
    draw.text((_MARGIN, y), text, font=font(15), fill=MUTED, anchor="lb")
    draw.text((_MARGIN + _SIDEBAR, y), page_number, font=font(15), fill=TEXT, anchor="rb")
