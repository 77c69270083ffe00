"""What is beside the pictures? Counts, places, changes, the table of this page, warnings and caveats.

The notes follow the headlines, the table and, if they are drawn here, the close-ups. Nothing is written in the corners
of the page, where viewers put their own overlays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

from PIL import Image, ImageDraw

from pipeline.findings import Certainty, Findings, Lesion, LesionOrigin, wording
from pipeline.findings.summary import REGIONS, SIDES
from pipeline.results.colours import COLOURS, Colour, colour
from pipeline.results.context import plain

from .panels import MUTED, TEXT, PanelRing, SliceRenderer, draw_ring, font

MARGIN: Final = 24
CORNER: Final = 90
"""Height of a corner that is left free, pixels."""
WIDTH_OF_SIDEBAR: Final = 452

_RIGHT: Final = MARGIN + WIDTH_OF_SIDEBAR
_ROW: Final = 24
_LINE_HEIGHT: Final = 20
_HEADER: Final = 43
_GAP: Final = 14
_FEWEST_ROWS: Final = 4
_MOST_ROWS: Final = 16
_MOST_WARNINGS: Final = 4
_HEADLINES: Final = CORNER + 204
_LINE: Final = (52, 58, 68)
_WARNING: Final = (255, 138, 128)
_GOOD: Final = (140, 214, 150)

Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""
_Line = tuple[str, Colour]


class Sidebar:
    """The left column of every page.

    Parameters
    ----------
    findings : Findings
        What the sidebar shows.
    pictures : SliceRenderer
        Where close-ups come from.
    height : int
        Of the page, pixels.
    replaces : bool
        Whether the result replaces an earlier one.
    """

    def __init__(self, findings: Findings, pictures: SliceRenderer, height: int, replaces: bool = False) -> None:
        self.findings, self.pictures, self.height, self.replaces = findings, pictures, height, replaces

    @cached_property
    def headlines(self) -> list[_Line]:
        """Pattern, change and verification."""
        findings = self.findings
        lines: list[_Line] = []
        if findings.lesions:
            lines += _wrap(wording.pattern_line(findings), TEXT, 3)
        if findings.change is not None:
            grade = [wording.aria_h(findings.change)] if findings.change.assessed else []
            lines += _wrap(". ".join([wording.changes(findings.change), *grade]), TEXT, 3)
        if findings.verification is not None:
            stated = (wording.verification(findings), wording.corrections(findings))
            lines += _wrap("; ".join(filter(None, stated)), _GOOD, 3)
        if self.replaces:
            lines += _wrap("Replaces an earlier result of this study", TEXT)
        return lines

    @cached_property
    def notes(self) -> list[_Line]:
        """Thresholds passed and warnings, then what always applies."""
        warnings = [*wording.flags(self.findings), *wording.warnings(self.findings)]
        if len(warnings) > _MOST_WARNINGS:
            rest = len(warnings) - _MOST_WARNINGS + 1
            warnings = [*warnings[: _MOST_WARNINGS - 1], f"{rest} more warnings: see the structured report"]
        always = (wording.not_assessed(self.findings), *wording.caveats(self.findings))
        lines = [line for text in warnings for line in _wrap(text, _WARNING)]
        lines += [line for text in always for line in _wrap(text, MUTED)]
        room = (self._bottom - self._table_top - _HEADER - _ROW * _FEWEST_ROWS - _GAP) // _LINE_HEIGHT - 1
        if len(lines) > room:
            lines = [*lines[: room - 1], ("more: see the structured report", MUTED)]
        return lines

    @property
    def _bottom(self) -> int:
        return self.height - CORNER

    @property
    def _table_top(self) -> int:
        return _HEADLINES + _LINE_HEIGHT * len(self.headlines) + 12

    @property
    def _notes_height(self) -> int:
        return _LINE_HEIGHT * (len(self.notes) + 1) + _GAP

    @property
    def rows(self) -> int:
        """How many lesions a page can list."""
        room = (self._bottom - self._notes_height - self._table_top - _HEADER) // _ROW
        return max(_FEWEST_ROWS, min(_MOST_ROWS, room))

    def draw(self, page: Image.Image, listed: Sequence[Lesion]) -> Box:
        """Draw headlines and, in the table, `listed`; return the space for close-ups above the notes."""
        self._draw_head(page)
        self._draw_counts(page, CORNER + 94)
        draw = ImageDraw.Draw(page)
        _draw_lines(draw, self.headlines, _HEADLINES)
        end = self._draw_table(draw, listed, self._table_top) if listed else self._table_top
        return MARGIN, end, _RIGHT, self._bottom - self._notes_height

    def draw_notes(self, page: Image.Image, top: int, page_number: str) -> None:
        """Draw warnings, what always applies, and what made the result, from `top` downwards."""
        draw = ImageDraw.Draw(page)
        made = f"profile {plain(self.findings.profile, 40)}   cmb-node {plain(self.findings.software, 20)}"
        _draw_lines(draw, [*self.notes, (made, MUTED)], top + _GAP + _LINE_HEIGHT // 2)
        last = top + _GAP + _LINE_HEIGHT // 2 + _LINE_HEIGHT * len(self.notes)
        draw.text((_RIGHT, last), page_number, font=font(16), fill=TEXT, anchor="rm")

    def _draw_head(self, page: Image.Image) -> None:
        draw = ImageDraw.Draw(page)
        draw.text((MARGIN, CORNER), "Cerebral microbleeds", font=font(28), fill=TEXT)
        geometry = self.pictures.volume.geometry
        di, dj, dk = geometry.spacing
        facts = f"SWI, {geometry.shape[0]} slices, {di:.2g} x {dj:.2g} x {dk:.2g} mm"
        draw.text((MARGIN, CORNER + 36), facts, font=font(16), fill=MUTED)
        box = (MARGIN, CORNER + 60, _RIGHT, CORNER + 90)
        draw.rounded_rectangle(box, radius=6, outline=TEXT, width=1)
        draw.text(((MARGIN + _RIGHT) // 2, CORNER + 75), wording.RESEARCH_ONLY, font=font(18), fill=TEXT, anchor="mm")

    def _draw_counts(self, page: Image.Image, y: int) -> None:
        draw = ImageDraw.Draw(page)
        counts = self.findings.counts
        total = str(counts["total"])
        draw.text((MARGIN, y + 42), total, font=font(84), fill=TEXT, anchor="lm")
        x = MARGIN + int(draw.textlength(total, font=font(84))) + 22
        if not self.findings.lesions:
            draw.text((x, y + 28), wording.counts(self.findings), font=font(22), fill=TEXT, anchor="lm")
            draw.text((x, y + 60), "evenly spaced slices are shown", font=font(16), fill=MUTED, anchor="lm")
            return
        for n, certainty in enumerate(Certainty):
            line = y + 24 + 38 * n
            _draw_mark(page, x + 12, line, certainty)
            text = f"{counts[certainty.value]} {certainty.value}"
            draw.text((x + 32, line), text, font=font(24), fill=COLOURS[certainty], anchor="lm")
        self._draw_regions(draw, y)

    def _draw_regions(self, draw: ImageDraw.ImageDraw, y: int) -> None:
        """The region and side table, small, where location was assessed."""
        rows = {row.place[::2]: row.total for row in self.findings.summary.by_region_and_side}
        if None in {region for region, _ in rows}:
            return
        edges = [_RIGHT - 58, _RIGHT - 29, _RIGHT]
        for edge, title in zip(edges, ("L", "R", "mid"), strict=True):
            _right(draw, edge, y + 8, title, MUTED, 14)
        for n, region in enumerate(REGIONS):
            line = y + 30 + 22 * n
            _right(draw, edges[0] - 22, line, region, MUTED, 15)
            for edge, side in zip(edges, SIDES, strict=True):
                count = rows.get((region, side), 0)
                _right(draw, edge, line, str(count) if count else "-", TEXT if count else MUTED, 17)

    def _draw_table(self, draw: ImageDraw.ImageDraw, lesions: Sequence[Lesion], y: int) -> int:
        """Draw the lesions shown on this page; return where the table ends."""
        compared = any(lesion.trend for lesion in self.findings.lesions)
        edges = (MARGIN + 26, MARGIN + 68, MARGIN + 114, MARGIN + 170)
        lefts = (MARGIN + 184, MARGIN + 256)
        for edge, (title, unit) in zip(
            edges, (("no.", ""), ("slice", ""), ("diam.", "mm"), ("prob.", "")), strict=True
        ):
            _right(draw, edge, y, title, MUTED, 15)
            _right(draw, edge, y + 17, unit, MUTED, 13)
        for left, title in zip(lefts, ("certainty", "location"), strict=True):
            draw.text((left, y), title, font=font(15), fill=MUTED, anchor="lm")
        if compared:
            _right(draw, _RIGHT, y, "change", MUTED, 15)
        draw.line((MARGIN, y + 28, _RIGHT, y + 28), fill=_LINE)
        room = (_RIGHT - 80 if compared else _RIGHT) - lefts[1]
        for n, lesion in enumerate(lesions):
            line = y + _HEADER + _ROW * n
            for edge, value in zip(edges, self._values(lesion), strict=True):
                _right(draw, edge, line, value, colour(lesion) if edge == edges[0] else TEXT, 17)
            draw.text((lefts[0], line), lesion.certainty.value, font=font(16), fill=colour(lesion), anchor="lm")
            where = _fitted(wording.place(lesion, short=True), room)
            draw.text((lefts[1], line), where, font=font(16), fill=TEXT, anchor="lm")
            if compared:
                change = wording.trend(lesion, self.findings.change)
                _right(draw, _RIGHT, line, change, colour(lesion), 16)
        return y + _HEADER + _ROW * len(lesions)

    def _values(self, lesion: Lesion) -> tuple[str, str, str, str]:
        probability = wording.probability(lesion) if lesion.origin is LesionOrigin.DETECTED else "added"
        number = self.pictures.numbers[lesion.voxel_ijk[2]]
        return str(lesion.id), str(number), f"{lesion.diameter_mm:.1f}", probability


def _draw_lines(draw: ImageDraw.ImageDraw, lines: Sequence[_Line], top: int) -> None:
    for n, (line, fill) in enumerate(lines):
        draw.text((MARGIN, top + _LINE_HEIGHT * n), line, font=font(16), fill=fill, anchor="lm")


def _draw_mark(page: Image.Image, x: float, y: float, certainty: Certainty, radius: float = 10) -> None:
    """The ring of the panels as a legend, smooth."""
    n, reach = 3, int(radius) + 3
    mark = Image.new("RGBA", (2 * reach * n, 2 * reach * n), (0, 0, 0, 0))
    draw_ring(ImageDraw.Draw(mark), PanelRing(reach, reach, radius, certainty, COLOURS[certainty], ""), n)
    mark = mark.resize((2 * reach, 2 * reach), Image.Resampling.BOX)
    page.paste(mark, (round(x) - reach, round(y) - reach), mark)


def _right(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, fill: Colour, size: int) -> None:
    draw.text((x, y), text, font=font(size), fill=fill, anchor="rm")


def _fitted(text: str, width: int) -> str:
    """`text`, shortened at its end to `width` pixels."""
    while font(16).getlength(text) > width and len(text) > 1:
        text = text.rstrip(".")[:-1].rstrip() + "."
    return text


def _wrap(text: str, fill: Colour, most: int = 2) -> list[_Line]:
    """Break `text` into lines as wide as the sidebar; at most `most` of them."""
    lines = [""]
    for word in plain(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if font(16).getlength(longer) <= WIDTH_OF_SIDEBAR or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], _fitted(lines[most - 1].rstrip(".,;"), WIDTH_OF_SIDEBAR - 16) + " ..."]
    return [(_fitted(line, WIDTH_OF_SIDEBAR), fill) for line in lines]  # a word may be longer than a line
