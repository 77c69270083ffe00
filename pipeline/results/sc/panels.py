"""What does a slice with its microbleeds look like? Greyscale panels with rings and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.findings import Certainty, Lesion, Trend
from pipeline.geometry import Geometry, Volume
from pipeline.results.colours import Colour, colour
from pipeline.results.windows import GreyWindow, air_level, swi_window

BACKGROUND: Final = (9, 11, 15)
TEXT: Final = (232, 236, 241)
MUTED: Final = (150, 160, 173)
_Rectangle = tuple[float, float, float, float]

_OVERSAMPLING: Final = 3  # Pillow draws without anti-aliasing
_MARGIN_MM: Final = 4.0
_CLOSE_UP_MM: Final = 20.0
_SLAB_MM: Final = 10.0
_RING_GAP_MM: Final = 2.5
_SMALLEST_RING: Final = 11  # pixels
_PLATE: Final = 3
"""Pixels of dark around a label."""


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The built-in font of Pillow; it has Latin letters only."""
    return ImageFont.load_default(size)


@dataclass(frozen=True)
class Crop:
    """The part of every slice that is shown: rows and columns, half open."""

    top: int
    bottom: int
    left: int
    right: int

    def size_mm(self, geometry: Geometry) -> tuple[float, float]:
        """Width and height."""
        di, dj, _ = geometry.spacing
        return (self.right - self.left) * di, (self.bottom - self.top) * dj


@dataclass(frozen=True, eq=False)
class SliceRenderer:
    """All slices of a volume under one window and one crop.

    Parameters
    ----------
    volume : Volume
        The SWI.
    crop : Crop
        What is shown of each slice.
    window : GreyWindow
        Values shown black and white.
    numbers : tuple of int
        The number that a PACS shows for each slice.
    """

    volume: Volume
    crop: Crop
    window: GreyWindow
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, volume: Volume, lesions: Sequence[Lesion], numbers: tuple[int, ...]) -> SliceRenderer:
        """Choose window and crop so that the head fills the panel and no lesion is cut off."""
        return cls(volume, _crop(volume, lesions), swi_window(volume.array), numbers)

    def panel(self, k: int, lesions: Sequence[Lesion], size: tuple[int, int]) -> Image.Image:
        """Slice `k` with `lesions` ringed, fitted into `size` (width, height)."""
        crop, geometry = self.crop, self.volume.geometry
        width_mm, height_mm = crop.size_mm(geometry)
        scale = min(size[0] / width_mm, size[1] / height_mm)
        inner = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
        grey = self.window.grey(self.volume.array[k, crop.top : crop.bottom, crop.left : crop.right])
        panel = Image.new("RGB", size, (0, 0, 0))
        offset = ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
        panel.paste(grey.resize(inner, Image.Resampling.LANCZOS).convert("RGB"), offset)
        rings = [self._ring(lesion, scale, offset) for lesion in lesions]
        _draw_rings(panel, rings)
        _draw_labels(panel, rings, _draw_edges(panel, geometry, f"slice {self.numbers[k]}"))
        return panel

    def close_up(self, lesion: Lesion, size: int) -> Image.Image:
        """The 20 mm around `lesion`, numbered: a square of `size` pixels, and beside it the same as a projection.

        The minimum intensity projection over 10 mm shows a vein as a line and a microbleed as a dot.
        """
        i, j, k = lesion.voxel_ijk
        di, dj, dk = self.volume.geometry.spacing
        ni, nj, nk = round(_CLOSE_UP_MM / di / 2), round(_CLOSE_UP_MM / dj / 2), round(_SLAB_MM / dk / 2)
        box = np.s_[max(0, k - nk) : k + nk + 1, max(0, j - nj) : j + nj + 1, max(0, i - ni) : i + ni + 1]
        slab = self.volume.array[box].min(axis=0)
        pair = Image.new("RGB", (2 * size + 2, size), BACKGROUND)
        for n, plane in enumerate((self.volume.array[k][box[1:]], slab)):
            edges = (max(0, nj - j), max(0, ni - i))
            tile = np.full((2 * nj + 1, 2 * ni + 1), self.window.low, np.float32)
            tile[edges[0] : edges[0] + plane.shape[0], edges[1] : edges[1] + plane.shape[1]] = plane
            grey = self.window.grey(tile).resize((size, size), Image.Resampling.BICUBIC)
            pair.paste(grey.convert("RGB"), (n * (size + 2), 0))
        draw = ImageDraw.Draw(pair)
        write(draw, (4, 4), str(lesion.id), 17, colour(lesion), "la")
        write(draw, (2 * size - 2, 4), f"mIP {_SLAB_MM:.0f} mm" if size >= 100 else "mIP", 14, TEXT, "ra")
        return pair

    def _ring(self, lesion: Lesion, scale: float, offset: tuple[int, int]) -> PanelRing:
        i, j, _ = self.volume.geometry.to_ijk(lesion.centroid_lps_mm)
        di, dj, _ = self.volume.geometry.spacing
        x = offset[0] + (i + 0.5 - self.crop.left) * di * scale
        y = offset[1] + (j + 0.5 - self.crop.top) * dj * scale
        radius = max(_SMALLEST_RING, (lesion.diameter_mm / 2 + _RING_GAP_MM) * scale)
        return PanelRing(x, y, radius, lesion.certainty, colour(lesion), _label(lesion))


def _label(lesion: Lesion) -> str:
    return f"{lesion.id} new" if lesion.trend is Trend.NEW else str(lesion.id)


@dataclass(frozen=True)
class PanelRing:
    """A circle on a panel, in pixels, and the number beside it."""

    x: float
    y: float
    radius: float
    certainty: Certainty
    colour: Colour
    label: str


def _crop(volume: Volume, lesions: Sequence[Lesion]) -> Crop:
    _, rows, columns = volume.geometry.shape
    di, dj, _ = volume.geometry.spacing
    head = (volume.array > air_level(volume.array)).mean(axis=0, dtype=np.float32)
    top, bottom = _extent(head.mean(axis=1))
    left, right = _extent(head.mean(axis=0))
    for lesion in lesions:
        i, j, _ = lesion.voxel_ijk
        top, bottom, left, right = min(top, j), max(bottom, j + 1), min(left, i), max(right, i + 1)
    mi, mj = math.ceil(_MARGIN_MM / di), math.ceil(_MARGIN_MM / dj)
    return Crop(max(0, top - mj), min(rows, bottom + mj), max(0, left - mi), min(columns, right + mi))


def _extent(profile: NDArray[np.float32]) -> tuple[int, int]:
    """First and last non-empty place; everything if there is none."""
    places = np.flatnonzero(profile > 0.01)
    return (int(places[0]), int(places[-1]) + 1) if places.size else (0, len(profile))


def draw_ring(draw: ImageDraw.ImageDraw, ring: PanelRing, scale: int = 1) -> None:
    """Draw `ring`: a solid line for a definite microbleed, a dashed one for a possible microbleed."""
    x, y, r = ring.x * scale, ring.y * scale, ring.radius * scale
    box, fill, width = (x - r, y - r, x + r, y + r), (*ring.colour, 255), 2 * scale
    if ring.certainty is Certainty.DEFINITE:
        draw.ellipse(box, outline=fill, width=width)
        return
    for start in range(0, 360, 36):
        draw.arc(box, start, start + 22, fill=fill, width=width)


def _draw_rings(panel: Image.Image, rings: Sequence[PanelRing]) -> None:
    if not rings:
        return
    n = _OVERSAMPLING
    overlay = Image.new("RGBA", (panel.width * n, panel.height * n), (0, 0, 0, 0))
    draw = ImageDraw.Draw(overlay)
    for ring in rings:
        draw_ring(draw, ring, n)
    overlay = overlay.resize(panel.size, Image.Resampling.BOX)
    panel.paste(overlay, (0, 0), overlay)


def _draw_labels(panel: Image.Image, rings: Sequence[PanelRing], edges: Sequence[_Rectangle]) -> None:
    """Put each number beside its ring where it covers least: other text first, then other rings."""
    draw = ImageDraw.Draw(panel)
    taken = list(edges)
    for ring in rings:
        left, top, right, bottom = draw.textbbox((0, 0), ring.label, font=font(17))
        width, height = right - left + 2 * _PLATE, bottom - top + 2 * _PLATE
        boxes = []
        for angle in (-45, 45, -135, 135, 0, 180, -90, 90):
            reach = ring.radius + 3
            x = ring.x + (reach + width / 2) * math.cos(math.radians(angle)) - width / 2
            y = ring.y + (reach + height / 2) * math.sin(math.radians(angle)) - height / 2
            boxes.append((x, y, x + width, y + height))
        others = [(r.x - r.radius, r.y - r.radius, r.x + r.radius, r.y + r.radius) for r in rings if r is not ring]
        best = min(boxes, key=lambda box: _badness(box, taken, others, panel.size))
        taken.append(best)
        write(draw, (best[0] - left + _PLATE, best[1] - top + _PLATE), ring.label, 17, ring.colour, "la")


def _badness(
    box: _Rectangle, labels: Sequence[_Rectangle], rings: Sequence[_Rectangle], size: tuple[int, int]
) -> float:
    outside = max(0.0, -box[0], -box[1], box[2] - size[0], box[3] - size[1])
    return 100 * outside + 10 * sum(_overlap(box, b) for b in labels) + sum(_overlap(box, b) for b in rings)


def _overlap(a: _Rectangle, b: _Rectangle) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, colour: Colour, anchor: str
) -> _Rectangle:
    """Write on a dark plate, legible on any grey; return where that is."""
    left, top, right, bottom = draw.textbbox(place, text, font=font(size), anchor=anchor)
    plate = (left - _PLATE, top - _PLATE, right + _PLATE - 1, bottom + _PLATE - 1)
    draw.rounded_rectangle(plate, radius=_PLATE, fill=BACKGROUND)
    draw.text(place, text, font=font(size), fill=colour, anchor=anchor)
    return plate


def _draw_edges(panel: Image.Image, geometry: Geometry, caption: str) -> list[_Rectangle]:
    """Label the slice number and the orientation of the patient (PS3.3 C.7.6.1.1.1)."""
    draw = ImageDraw.Draw(panel)
    middle = panel.height // 2
    right, down = geometry.direction[:, 0], geometry.direction[:, 1]
    return [
        write(draw, (7, 6), caption, 16, TEXT, "la"),
        write(draw, (6, middle), direction_letter(-right), 15, TEXT, "lm"),
        write(draw, (panel.width - 6, middle), direction_letter(right), 15, TEXT, "rm"),
        write(draw, (panel.width // 2, 6), direction_letter(-down), 15, TEXT, "mt"),
        write(draw, (panel.width // 2, panel.height - 6), direction_letter(down), 15, TEXT, "mb"),
    ]


def direction_letter(vector: NDArray[np.float64]) -> str:
    """L, R, P, A, H or F: where `vector` (LPS) mostly points."""
    axis = int(np.argmax(np.abs(vector)))
    return "LPH"[axis] if vector[axis] > 0 else "RAF"[axis]
