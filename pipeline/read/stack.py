"""Do these frames make one regular volume, and in which order?

Positions along the normal of Image Orientation (Patient) decide (DICOM PS3.3 C.7.6.2), never Instance Numbers. Frames
that do not make one regular grid are an error that names them, never a silently wrong volume.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import GeometryError
from pipeline.geometry import Geometry

from .headers import Frame, Instance
from .series import Series

UNEVEN = 0.1
"""Slice distances may differ from their median by this fraction of it."""
SIDEWAYS = 0.5
"""Slices may be shifted within their plane by this many pixels over the stack."""
SAME_PLACE_MM = 0.01
"""Slices nearer than this have the same position: echoes, or magnitude and phase, in one series."""
FULL = 1.6
"""Slices of a 3D acquisition that lie further apart than this many times their thickness do not fill the volume."""
NAMED = 6
"""The most frames that an error names."""

Piece = tuple[Instance, Frame]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Frames in slice order. Each position has one frame, or several that claim the same position.

    `remarks` say what is unusual about them, and how it was handled.
    """

    places: tuple[tuple[Piece, ...], ...]
    geometry: Geometry
    remarks: tuple[str, ...] = ()


def arrange(series: Series) -> SliceStack:
    """Sort the frames of a series along their normal and check that they make one regular grid.

    Raises
    ------
    GeometryError
        Geometry is missing or malformed; sizes, spacings or orientations are mixed; slices are missing, unevenly
        spaced or shifted sideways. Two frames at one position are not an error here: their pixels decide.
    """
    pieces, where = series.frames, series.label
    _require_geometry(pieces, where)
    _require_one(pieces, where, "sizes", lambda p: (p[0].columns, p[0].rows))
    _require_one(pieces, where, "orientations", lambda p: _rounded(p[1].orientation, 3))
    _require_one(pieces, where, "pixel spacings", lambda p: _rounded(p[1].spacing, 4))
    row, column, normal = _axes(pieces[0], where)
    positions = np.array([frame.position for _, frame in pieces], dtype=np.float64)
    along = positions @ normal
    places = _places(pieces, along)
    heights = np.array([np.dot(place[0][1].position or (), normal) for place in places])
    _require_even(places, heights, where)
    first, last = (np.array(place[0][1].position) for place in (places[0], places[-1]))
    step = (last - first) / (len(places) - 1)
    dj, di = pieces[0][1].spacing or (1.0, 1.0)
    _require_straight(places, positions, normal, min(di, dj), where)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([row * di, column * dj, step])
    affine[:3, 3] = first
    instance = pieces[0][0]
    shape = (len(places), instance.rows, instance.columns)
    spaces = Counter(instance.frame_of_reference_uid for instance, _ in pieces)
    geometry = Geometry(shape, affine, spaces.most_common(1)[0][0])
    remarks = (*_mixed_spaces(spaces, where), *_thinned(pieces, float(np.linalg.norm(step)), where))
    return SliceStack(places, geometry, remarks)


def _mixed_spaces(spaces: Counter[str], where: str) -> Iterator[str]:
    if len(spaces) > 1:
        what = f"its slices name {len(spaces)} frames of reference, though they lie on one grid"
        yield f"{where}: {what}; the most common one is used"


def _thinned(pieces: Sequence[Piece], step: float, where: str) -> Iterator[str]:
    """Say if slices seem to be missing at regular intervals, which leaves a regular, coarser grid.

    Spacing Between Slices is the distance of slice centres (PS3.3 C.8.3.1); some
    manufacturers write the gap of a 2D acquisition instead, which is recognised by its sum with Slice Thickness.
    Without it, slices of a 3D acquisition are assumed to fill the volume.
    """
    instance, frame = pieces[0]
    said, thickness = abs(frame.step_mm or 0), frame.thickness_mm or 0
    if said > 0:
        gap = said if instance.acquisition_type != "3D" and said < thickness / FULL else 0.0
        distances = (said, gap + thickness) if gap else (said,)
        if all(step - distance > UNEVEN * step for distance in distances):
            yield (
                f"{where}: its slices lie {step:.2f} mm apart, but Spacing Between Slices is {said:.2f} mm: "
                "slices seem to be missing at regular intervals"
            )
    elif instance.acquisition_type == "3D" and 0 < thickness * FULL < step:
        yield (
            f"{where}: its slices lie {step:.2f} mm apart, but are {thickness:.2f} mm thick: "
            "slices seem to be missing at regular intervals"
        )


def name(pieces: Sequence[Piece]) -> str:
    """Name frames for an error: ``instance 4 at (1.0, 2.0, 3.5) mm, …``."""
    names = []
    for instance, frame in pieces[:NAMED]:
        label = f"instance {instance.instance_number}" if instance.instance_number is not None else instance.path.name
        if frame.number is not None:
            label = f"frame {frame.number}"
        if frame.position is not None:
            label += " at ({:.1f}, {:.1f}, {:.1f}) mm".format(*frame.position)
        names.append(label)
    return ", ".join(names) + (f" and {len(pieces) - NAMED} more" if len(pieces) > NAMED else "")


def _require_geometry(pieces: Sequence[Piece], where: str) -> None:
    for attribute, keyword in (
        ("position", "Image Position (Patient)"),
        ("orientation", "Image Orientation (Patient)"),
        ("spacing", "Pixel Spacing"),
    ):
        bare = [piece for piece in pieces if getattr(piece[1], attribute) is None]
        if bare:
            raise GeometryError(f"no {keyword} in {name(bare)}", where=where, do="send the original images")
    if any(instance.rows < 1 or instance.columns < 1 for instance, _ in pieces):
        raise GeometryError("images without Rows or Columns", where=where, do="send the original images")
    if any(value <= 0 for value in pieces[0][1].spacing or ()):
        raise GeometryError("Pixel Spacing is not positive", where=where, do="send the original images")
    if len(pieces) < 2:
        raise GeometryError("only one slice, which is not a volume", where=where, do="send the complete series")


def _require_one(pieces: Sequence[Piece], where: str, what: str, key: Callable[[Piece], Hashable]) -> None:
    counts = Counter(key(piece) for piece in pieces)
    if len(counts) == 1:
        return
    usual = counts.most_common(1)[0][0]
    odd = [piece for piece in pieces if key(piece) != usual]
    raise GeometryError(
        f"mixed {what}: {name(odd)} differ from the rest", where=where, do="send them as a separate series"
    )


def _rounded(vector: Sequence[float] | None, digits: int) -> Hashable:
    return tuple(round(value, digits) + 0.0 for value in vector or ())


def _axes(piece: Piece, where: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Unit vectors along a row (i), down a column (j) and along the normal; exactly orthogonal."""
    cosines = np.array(piece[1].orientation, dtype=np.float64).reshape(2, 3)
    lengths = np.linalg.norm(cosines, axis=1)
    if np.abs(lengths - 1).max() > 1e-2 or abs(cosines[0] @ cosines[1]) > 1e-2:
        raise GeometryError(
            f"Image Orientation (Patient) of {name([piece])} is not two perpendicular unit vectors",
            where=where,
            do="send the original images",
        )
    row = cosines[0] / lengths[0]
    normal = np.cross(row, cosines[1])
    normal /= np.linalg.norm(normal)
    return row, np.cross(normal, row), normal


def _places(pieces: Sequence[Piece], along: FloatArray) -> tuple[tuple[Piece, ...], ...]:
    """Group frames by their height along the normal, lowest first."""
    order = np.argsort(along, kind="stable")
    places: list[list[Piece]] = []
    last = -np.inf
    for n in order:
        if along[n] - last > SAME_PLACE_MM:
            places.append([])
        places[-1].append(pieces[n])
        last = along[n]
    return tuple(tuple(place) for place in places)


def _require_even(places: tuple[tuple[Piece, ...], ...], heights: FloatArray, where: str) -> None:
    if len(places) < 2:
        raise GeometryError("all slices lie at the same position", where=where, do="send the complete series")
    steps = np.diff(heights)
    usual = float(np.median(steps))
    wrong = np.flatnonzero(np.abs(steps - usual) > UNEVEN * usual)
    if not len(wrong):
        return
    ratios = steps[wrong] / usual
    holes = [f"between {name(places[n][:1])} and {name(places[n + 1][:1])}" for n in wrong[:3]]
    more = f" and {len(wrong) - 3} more positions" if len(wrong) > 3 else ""
    if np.all(np.abs(ratios - np.rint(ratios)) <= UNEVEN) and np.all(ratios > 1.5):
        count = int(np.rint(ratios - 1).sum())
        what = f"{count} {'slice is' if count == 1 else 'slices are'} missing {'; '.join(holes)}{more}"
        raise GeometryError(what, where=where, do="send the missing slices")
    gaps = ", ".join(f"{step:.2f}" for step in steps[wrong][:3])
    what = f"slices are unevenly spaced ({gaps} mm instead of {usual:.2f} mm) {'; '.join(holes)}{more}"
    raise GeometryError(what, where=where, do="send the complete series, without slices of another")


def _require_straight(
    places: tuple[tuple[Piece, ...], ...], positions: FloatArray, normal: FloatArray, pixel: float, where: str
) -> None:
    sideways = positions - np.outer(positions @ normal, normal)
    if np.linalg.norm(sideways - sideways[0], axis=1).max() <= SIDEWAYS * pixel:
        return
    origin = np.median(sideways, axis=0)
    odd = [
        piece
        for place in places
        for piece in place
        if np.linalg.norm(_sideways(piece, normal) - origin) > SIDEWAYS * pixel
    ]
    raise GeometryError(
        f"slices are shifted sideways: {name(odd)}", where=where, do="send one series without slices of another"
    )


def _sideways(piece: Piece, normal: FloatArray) -> FloatArray:
    position = np.array(piece[1].position, dtype=np.float64)
    return np.asarray(position - (position @ normal) * normal)
