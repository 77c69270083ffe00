"""What do the found, the missed and the false look like? Each from near, SWI above phase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.geometry import Acquisition, Volume
from pipeline.results.windows import GreyWindow, phase_window, swi_window

from .calibration import shown_probability
from .cases import Case, Point
from .metrics import StudyResult
from .outcomes import MarkOutcome
from .run import images_of
from .tables import SIMULATED

COLUMNS = 8
"""Pictures of each kind."""
HALF_MM = 10.0
"""What a picture shows to either side, mm."""


@dataclass(frozen=True)
class GalleryItem:
    """A place to be shown, and the words below it."""

    case: Case
    at: Point
    words: str


def choose(results: Sequence[StudyResult]) -> dict[str, list[GalleryItem]]:
    """What is shown of the answers: found and missed ones evenly over their sizes, the surest false ones."""
    found, missed, false = [], [], []
    for result in results:
        if result.answer is None:
            continue  # refused: there are no pictures of it
        bleeds, of_bleed = result.case.truth.bleeds, {j.bleed: j.mark for j in result.lesions}
        for n, bleed in enumerate(bleeds):
            if n in result.found:
                words = f"{bleed.diameter_mm or 0:.1f} mm, p {shown_probability(of_bleed[n].probability)}"
                found.append((bleed.diameter_mm or 0.0, GalleryItem(result.case, bleed.centre_lps_mm, words)))
        for bleed in result.missed:
            words = f"{bleed.diameter_mm or 0:.1f} mm {bleed.placement or bleed.region}"
            missed.append((bleed.diameter_mm or 0.0, GalleryItem(result.case, bleed.centre_lps_mm, words)))
        for judged in result.lesions:
            if judged.verdict is MarkOutcome.FALSE:
                mark = judged.mark
                shown = GalleryItem(
                    result.case, mark.centre_lps_mm, f"{judged.lies_on}, p {shown_probability(mark.probability)}"
                )
                false.append((-mark.probability, shown))
    return {
        "found": _evenly(found),
        "missed": _evenly(missed),
        "false": [shown for _, shown in sorted(false, key=lambda one: one[0])[:COLUMNS]],
    }


def _evenly(ranked: Sequence[tuple[float, GalleryItem]]) -> list[GalleryItem]:
    ordered = [shown for _, shown in sorted(ranked, key=lambda one: one[0])]
    places = np.linspace(0, len(ordered) - 1, min(COLUMNS, len(ordered))).round().astype(int)
    return [ordered[n] for n in places]


def write_gallery(path: Path, profile: str, results: Sequence[StudyResult], *, simulated: bool) -> Path:
    """Draw one page of pictures for a profile.

    Parameters
    ----------
    path : Path
        PNG file.
    profile : str
        Its name, for the title.
    results : sequence of StudyResult
        What was answered; the studies shown are read again.
    simulated : bool
        Whether to say that nobody was scanned.
    """
    rows = choose(results)
    figure = Figure(figsize=(1.3 * COLUMNS, 2.9 * len(rows)), dpi=110, layout="constrained")
    axes = figure.subplots(2 * len(rows), COLUMNS, squeeze=False)
    for one in axes.flat:
        one.set_axis_off()
    for n, kind in enumerate(rows):
        title = axes[2 * n][0]
        title.text(-0.08, 0, kind, rotation=90, va="center", ha="right", fontsize=10, transform=title.transAxes)
    places = [(shown, n, column) for n, row in enumerate(rows.values()) for column, shown in enumerate(row)]
    for _, of_case in groupby(sorted(places, key=lambda place: place[0].case.name), lambda place: place[0].case.name):
        acquisition: Acquisition | None = None  # one study at a time in memory, each read once
        for shown, n, column in of_case:
            acquisition = acquisition or images_of(shown.case)
            _draw(axes[2 * n][column], axes[2 * n + 1][column], acquisition, shown.at)
            axes[2 * n][column].set_title(shown.words.replace(", ", "\n", 1), fontsize=7)
    figure.suptitle(f"{profile}: each {2 * HALF_MM:.0f} mm wide, SWI above phase", fontsize=9)
    if simulated:
        figure.supxlabel(SIMULATED, fontsize=7)
    figure.savefig(path, metadata={"Software": None})
    return path


def _draw(above: Any, below: Any, acquisition: Acquisition, at: Point) -> None:
    """The slice through a place, SWI and phase, true to scale."""
    swi, phase = acquisition.swi, acquisition.phase
    shown = [(above, swi, swi_window(swi.array))]
    if phase is not None:
        shown.append((below, phase, phase_window(phase.array, swi.array)))
    for axes, volume, window in shown:
        part, extent = _cut(volume, at)
        axes.imshow(_grey(part, window), cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="nearest")
        axes.set(xlim=(-HALF_MM, HALF_MM), ylim=(HALF_MM, -HALF_MM))


def _grey(part: NDArray[np.float32], window: GreyWindow) -> NDArray[np.uint8]:
    return np.asarray(window.grey(part))


def _cut(volume: Volume, at: Point) -> tuple[NDArray[np.float32], tuple[float, float, float, float]]:
    """Voxels of the nearest slice within reach, and where their edges lie from the place (left, right, bottom, top)."""
    i, j, k = volume.geometry.to_ijk(at)
    di, dj, _ = volume.geometry.spacing
    slices, rows, columns = volume.array.shape
    left, right = max(0, int(i - HALF_MM / di)), min(columns, int(i + HALF_MM / di) + 2)
    top, bottom = max(0, int(j - HALF_MM / dj)), min(rows, int(j + HALF_MM / dj) + 2)
    part = volume.array[int(np.clip(round(k), 0, slices - 1)), top:bottom, left:right]
    edges = ((left - 0.5 - i) * di, (right - 0.5 - i) * di, (bottom - 0.5 - j) * dj, (top - 0.5 - j) * dj)
    return part, edges
