"""What was analysed? Every slice as a PACS shows it, for the viewer of the page."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.results.sc.panels import direction_letter
from pipeline.results.windows import phase_window, swi_window

from .picture_archive import write_picture_archive

if TYPE_CHECKING:
    from pipeline.detect import Detection

SCHEMA: Final = "cmb-slices/1"
_QUALITY: Final = 88


def make_slices(detection: Detection, numbers: tuple[int, ...]) -> bytes:
    """Draw all slices of the SWI, and of the phase if there is one, at their own size in pixels.

    Parameters
    ----------
    detection : Detection
        The images.
    numbers : tuple of int
        What a PACS calls each slice.

    Returns
    -------
    bytes
        A file of :mod:`.picture_archive`: ``swi-<k>.jpg`` and ``phase-<k>.jpg``, `k` in slice order. Its
        index has the grid (shape, affine to LPS mm), the slice numbers and the letters at the four edges.
    """
    acquisition = detection.acquisition
    geometry = acquisition.swi.geometry
    right, down = geometry.direction[:, 0], geometry.direction[:, 1]
    index = {
        "schema": SCHEMA,
        "shape": list(geometry.shape),
        "affine": geometry.affine.tolist(),
        "numbers": list(numbers),
        "views": ["swi"] if acquisition.phase is None else ["swi", "phase"],
        "edges": [direction_letter(vector) for vector in (-right, right, -down, down)],
    }
    return write_picture_archive(index, dict(_pictures(detection)))


def _pictures(detection: Detection) -> Iterator[tuple[str, bytes]]:
    swi, phase = detection.acquisition.swi, detection.acquisition.phase
    shown = [("swi", swi.array, swi_window(swi.array))]
    if phase is not None:
        shown.append(("phase", phase.array, phase_window(phase.array, swi.array)))
    for name, array, window in shown:
        for k, values in enumerate(array):
            file = BytesIO()
            window.grey(np.asarray(values)).save(file, format="JPEG", quality=_QUALITY)
            yield f"{name}-{k}.jpg", file.getvalue()
