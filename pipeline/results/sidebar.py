"""What stands beside the pictures? Counts, where they lie, what changed, the table of this page, and what to know.

Drawn from both ends: the headline and what always applies first; the table gets the rows that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

from PIL import Image, ImageDraw

from pipeline.findings import Certainty, Findings, Lesion, Origin
from pipeline.summary import REGIONS, SIDES

from . import words
from .common import RESEARCH_ONLY, plain
from .panels import COLOURS, MUTED, TEXT, Colour, Pictures, Ring, colour, draw_ring, font

MARGIN: Final = 24
WIDTH_OF_SIDEBAR: Final = 452

_RIGHT: Final = MARGIN + WIDTH_OF_SIDEBAR
_ROW: Final = 25
_LINE_HEIGHT: Final = 21
_HEADER: Final = 43
_FEWEST_ROWS: Final = 4
_MOST_ROWS: Final = 16
_MOST_WARNINGS: Final = 5
_HEADLINES: Final = MARGIN + 224
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
        What is said.
    pictures : Pictures
        Where close-ups come from.
    height : int
        Of the page, pixels.
    replaces : bool
        Whether the result takes the place of an earlier one.
    """

    def __init__(self, findings: Findings, pictures: Pictures, height: int, replaces: bool = False) -> None:
        self.findings, self.pictures, self.height, self.replaces = findings, pictures, height, replaces

    @cached_property
    def headlines(self) -> list[_Line]:
        """Pattern, change, and who stands behind it."""
        findings = self.findings
        lines: list[_Line] = []
        if findings.lesions and (pattern := words.patterned(findings)):
            lines += _wrap(pattern, TEXT)
        if findings.change is not None:
            lines += _wrap(words.changed(findings.change), TEXT, 3)
        if (verified := words.verified(findings)) is not None:
            amended = [f"{len(findings.rejected)} rejected"] if findings.rejected else []
            added = sum(lesion.origin is Origin.ADDED for lesion in findings.lesions)
            amended += [f"{added} added"] if added else []
            lines += _wrap("; ".join([verified, *amended]), _GOOD, 3)
        if self.replaces:
            lines += _wrap("Replaces an earlier result of this study", TEXT)
        return lines

    @cached_property
    def notes(self) -> list[_Line]:
        """Warnings, then what always applies."""
        warnings = words.cautions(self.findings)
        if len(warnings) > _MOST_WARNINGS:
            rest = len(warnings) - _MOST_WARNINGS + 1
            warnings = [*warnings[: _MOST_WARNINGS - 1], f"{rest} more warnings: see the structured report"]
        lines = [line for text in warnings for line in _wrap(text, _WARNING)]
        return lines + [line for text in words.caveats(self.findings) for line in _wrap(text, MUTED)]

    @property
    def _table_top(self) -> int:
        return _HEADLINES + _LINE_HEIGHT * len(self.headlines) + 12

    @property
    def _notes_top(self) -> int:
        return self.height - MARGIN - 26 - _LINE_HEIGHT * len(self.notes)

    @property
    def rows(self) -> int:
        """How many lesions a page can list."""
        room = (self._notes_top - 14 - self._table_top - _HEADER) // _ROW
        return max(_FEWEST_ROWS, min(_MOST_ROWS, room))

    def draw(self, page: Image.Image, listed: Sequence[Lesion], page_number: str) -> Box:
        """Draw it all, with `listed` in the table; return the room that is left."""
        self._draw_head(page)
        self._draw_counts(page, MARGIN + 118)
        draw = ImageDraw.Draw(page)
        for lines, top in ((self.headlines, _HEADLINES), (self.notes, self._notes_top)):
            for n, (line, fill) in enumerate(lines):
                draw.text((MARGIN, top + _LINE_HEIGHT * n), line, font=font(16), fill=fill, anchor="lm")
        end = self._draw_table(draw, listed, self._table_top) if listed else self._table_top
        y = self.height - MARGIN
        text = f"profile {plain(self.findings.profile, 40)}   cmb-node {plain(self.findings.software, 20)}"
        draw.text((MARGIN, y), text, font=font(15), fill=MUTED, anchor="lb")
        draw.text((_RIGHT, y), page_number, font=font(15), fill=TEXT, anchor="rb")
        return MARGIN, end + 8, _RIGHT, self._notes_top - 20

    def _draw_head(self, page: Image.Image) -> None:
        draw = ImageDraw.Draw(page)
        draw.text((MARGIN, MARGIN), "Cerebral microbleeds", font=font(32), fill=TEXT)
        geometry = self.pictures.volume.geometry
        di, dj, dk = geometry.spacing
        facts = f"SWI, {geometry.shape[0]} slices, {di:.2g} x {dj:.2g} x {dk:.2g} mm"
        draw.text((MARGIN, MARGIN + 42), facts, font=font(16), fill=MUTED)
        box = (MARGIN, MARGIN + 72, _RIGHT, MARGIN + 106)
        draw.rounded_rectangle(box, radius=6, outline=TEXT, width=1)
        draw.text(((MARGIN + _RIGHT) // 2, MARGIN + 89), RESEARCH_ONLY, font=font(18), fill=TEXT, anchor="mm")

    def _draw_counts(self, page: Image.Image, y: int) -> None:
        draw = ImageDraw.Draw(page)
        counts = self.findings.counts
        total = str(counts["total"])
        draw.text((MARGIN, y + 42), total, font=font(84), fill=TEXT, anchor="lm")
        x = MARGIN + int(draw.textlength(total, font=font(84))) + 22
        if not self.findings.lesions:
            draw.text((x, y + 28), "No microbleed was found", font=font(24), fill=TEXT, anchor="lm")
            draw.text((x, y + 60), "slices shown at even spacing", font=font(16), fill=MUTED, anchor="lm")
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
        edges = (MARGIN + 26, MARGIN + 72, MARGIN + 116, MARGIN + 158)
        lefts = (MARGIN + 172, MARGIN + 250)
        for edge, (title, unit) in zip(
            edges, (("no.", ""), ("slice", ""), ("diam.", "mm"), ("prob.", "%")), strict=True
        ):
            _right(draw, edge, y, title, MUTED, 15)
            _right(draw, edge, y + 17, unit, MUTED, 13)
        for left, title in zip(lefts, ("certainty", "location"), strict=True):
            draw.text((left, y), title, font=font(15), fill=MUTED, anchor="lm")
        if compared:
            _right(draw, _RIGHT, y, "change", MUTED, 15)
        draw.line((MARGIN, y + 28, _RIGHT, y + 28), fill=_LINE)
        room = (_RIGHT - 58 if compared else _RIGHT) - lefts[1]
        for n, lesion in enumerate(lesions):
            line = y + _HEADER + _ROW * n
            for edge, value in zip(edges, self._values(lesion), strict=True):
                _right(draw, edge, line, value, colour(lesion) if edge == edges[0] else TEXT, 17)
            draw.text((lefts[0], line), lesion.certainty.value, font=font(17), fill=colour(lesion), anchor="lm")
            where = _fitted(words.place(lesion, short=True) or "-", room)
            draw.text((lefts[1], line), where, font=font(16), fill=TEXT, anchor="lm")
            if compared:
                _right(draw, _RIGHT, line, lesion.trend.value if lesion.trend else "?", colour(lesion), 16)
        return y + _HEADER + _ROW * len(lesions)

    def _values(self, lesion: Lesion) -> tuple[str, str, str, str]:
        probability = f"{100 * lesion.probability:.0f}" if lesion.origin is Origin.DETECTED else "added"
        number = self.pictures.numbers[lesion.voxel_ijk[2]]
        return str(lesion.id), str(number), f"{lesion.diameter_mm:.1f}", probability


def _draw_mark(page: Image.Image, x: float, y: float, certainty: Certainty, radius: float = 10) -> None:
    """The ring of the panels as a legend, smooth."""
    n, reach = 3, int(radius) + 3
    mark = Image.new("RGBA", (2 * reach * n, 2 * reach * n), (0, 0, 0, 0))
    draw_ring(ImageDraw.Draw(mark), Ring(reach, reach, radius, certainty, COLOURS[certainty], ""), n)
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
        lines = [*lines[: most - 1], lines[most - 1].rstrip(".,;") + " ..."]
    return [(line, fill) for line in lines]
