"""What does one microbleed look like up close? Strips of three planes: SWI, phase, minimum intensity projection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageDraw

from pipeline.findings import Findings, Point
from pipeline.results.colours import COLOURS
from pipeline.results.sc.panels import font
from pipeline.results.windows import GreyWindow, phase_window, swi_window

from .anatomy import EDGES, AnatomicalAxes, AnatomicalPlane, Section
from .picture_archive import write_picture_archive

if TYPE_CHECKING:
    from pipeline.detect import Detection
    from pipeline.geometry import Geometry

SCHEMA: Final = "cmb-crops/1"
TILE: Final = 160
"""Width and height of one plane, pixels."""
FIELD_MM: Final = 26.0
"""Field of view of one plane, mm."""
SLAB_MM: Final = 10.0
"""Thickness of the minimum intensity projection."""
GAP: Final = 2
STRIP: Final = (3 * TILE + 2 * GAP, TILE)
"""Width and height of a strip, pixels."""

_QUALITY: Final = 88
_RING_GAP_MM: Final = 2.2
_TICK_MM: Final = 1.6
_BAR_MM: Final = 5.0
_LETTER: Final = (196, 204, 213)


@dataclass(frozen=True)
class CropTarget:
    """A place to show up close."""

    name: str
    centroid_lps_mm: Point
    diameter_mm: float
    colour: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class _View:
    """One kind of picture: its values, their window, and the thickness."""

    name: str
    values: np.ndarray[Any, np.dtype[np.float32]]
    window: GreyWindow
    slab_mm: float = 0.0


def make_crops(detection: Detection, numbers: tuple[int, ...]) -> bytes:
    """Draw every lesion, the rejected ones, and the places where a prior one is no longer seen.

    Parameters
    ----------
    detection : Detection
        Lesions and the images they were found on.
    numbers : tuple of int
        What a PACS calls each slice.

    Returns
    -------
    bytes
        A file of :mod:`.picture_archive`: ``<lesion id>-swi.jpg``, ``-phase.jpg`` (if there is one) and
        ``-mip.jpg``, each :data:`STRIP` pixels; the same for ``rejected-<n>`` and ``gone-<n>`` (prior ones), from 1.
    """
    findings, swi = detection.findings, detection.acquisition.swi
    standing, views = AnatomicalAxes.of(swi.geometry), list(_views(detection))
    pictures = {
        f"{mark.name}-{view.name}.jpg": _jpeg(_strip(standing, view, mark, swi.geometry))
        for mark in _marks(findings)
        for view in views
    }
    index = {
        "schema": SCHEMA,
        "size": list(STRIP),
        "field_mm": FIELD_MM,
        "views": [view.name for view in views],
        "slices": {lesion.tracking_uid: numbers[lesion.voxel_ijk[2]] for lesion in findings.lesions},
    }
    return write_picture_archive(index, pictures)


def _marks(findings: Findings) -> Iterator[CropTarget]:
    for lesion in findings.lesions:
        yield CropTarget(str(lesion.id), lesion.centroid_lps_mm, lesion.diameter_mm, COLOURS[lesion.certainty])
    for n, rejected in enumerate(findings.rejected, start=1):
        yield CropTarget(f"rejected-{n}", rejected.centroid_lps_mm, rejected.diameter_mm, _LETTER)
    for n, gone in enumerate(findings.change.no_longer_seen if findings.change is not None else (), start=1):
        yield CropTarget(f"gone-{n}", gone.centroid_lps_mm, gone.diameter_mm, _LETTER)


def _views(detection: Detection) -> Iterator[_View]:
    swi, phase = detection.acquisition.swi, detection.acquisition.phase
    window = swi_window(swi.array)
    yield _View("swi", swi.array, window)
    if phase is not None:
        yield _View("phase", phase.array, phase_window(phase.array, swi.array))
    yield _View("mip", swi.array, window, SLAB_MM)


def _strip(standing: AnatomicalAxes, view: _View, mark: CropTarget, geometry: Geometry) -> Image.Image:
    """Axial, coronal and sagittal side by side, all at one scale."""
    strip = Image.new("RGB", STRIP, (0, 0, 0))
    for n, plane in enumerate(AnatomicalPlane):
        section = standing.section(view.values, plane, geometry.to_ijk(mark.centroid_lps_mm), view.slab_mm)
        tile = view.window.grey(enlarge(section, TILE, FIELD_MM)).convert("RGB")
        _draw_marks(tile, mark)
        _draw_letters(tile, plane)
        strip.paste(tile, (n * (TILE + GAP), 0))
    return strip


def enlarge(section: Section, pixels: int, field_mm: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Show `field_mm` around the section's place in a square of `pixels`, true to scale; NaN beyond the image."""
    (across, down), step = section.spacing, field_mm / pixels
    # Pillow maps the centre of each pixel, (x + 0.5, y + 0.5), where the first pixel's centre lies at 0.5.
    a, e = step / across, step / down
    matrix = (a, 0.0, section.column + 0.5 - a * pixels / 2, 0.0, e, section.row + 0.5 - e * pixels / 2)
    image = Image.fromarray(np.ascontiguousarray(section.values, dtype=np.float32))
    return np.asarray(
        image.transform((pixels, pixels), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=np.nan)
    )


def _draw_marks(tile: Image.Image, mark: CropTarget) -> None:
    """Four ticks that point at the microbleed without covering it; a scale bar of 5 mm."""
    draw, scale, middle = ImageDraw.Draw(tile), TILE / FIELD_MM, TILE / 2
    near = (mark.diameter_mm / 2 + _RING_GAP_MM) * scale
    far = near + _TICK_MM * scale
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        ends = (middle + dx * near, middle + dy * near, middle + dx * far, middle + dy * far)
        draw.line(ends, fill=mark.colour, width=2)
    bar = _BAR_MM * scale
    draw.line((TILE - 6 - bar, TILE - 6, TILE - 6, TILE - 6), fill=_LETTER, width=2)


def _draw_letters(tile: Image.Image, plane: AnatomicalPlane) -> None:
    """Draw the letters of the patient's right, front, head and so on."""
    draw, edges, middle, end = ImageDraw.Draw(tile), EDGES[plane], TILE // 2, TILE - 4
    for place, letter, anchor in (
        ((4, middle), edges.left, "lm"),
        ((end, middle), edges.right, "rm"),
        ((middle, 4), edges.top, "mt"),
        ((middle, end), edges.bottom, "mb"),
    ):
        draw.text(place, letter, font=font(13), fill=_LETTER, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, format="JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return file.getvalue()
