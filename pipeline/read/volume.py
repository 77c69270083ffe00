"""DICOM slices to a volume with LPS geometry, and to an acquisition with phase in radians."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import GeometryError, InputError, NoSwiError
from pipeline.geometry import Acquisition, FrameReference, PhaseRecord, Volume

from .decoding import MAX_VOXELS, Decoding, Encoding, Image
from .pairing import SeriesSelection
from .phase import complex_phase, paramagnetic_sign, to_radians
from .recognition import SeriesRole
from .series import Series
from .stack import Piece, SliceStack, arrange, name
from .swi import SwiParameters, susceptibility_weighted

V = TypeVar("V", bound=Volume)


def read_volume(series: Series) -> Volume:
    """Read a series as one volume in patient coordinates.

    Parameters
    ----------
    series : Series
        A series, or a part of one, whose frames form one regular grid.

    Returns
    -------
    Volume
        Slices in order of their position along the normal, rescale applied, MONOCHROME1 inverted so that dark is low.

    Raises
    ------
    GeometryError
        The frames do not form one regular grid; the message names them.
    InputError
        A file cannot be decoded, or the volume is too large.
    """
    with Decoding() as decoding:
        return _image(series, _Reading(decoding))


def read_acquisition(pick: SeriesSelection, *, phase_sign: Literal[1, -1] | None = None) -> Acquisition:
    """Read the selected SWI with its phase and magnitude, all on the grid of the SWI.

    Nothing is resampled: a phase or magnitude on another grid belongs to another acquisition or reconstruction, and
    wrapped phase cannot be interpolated.

    Parameters
    ----------
    pick : SeriesSelection
        From :func:`pipeline.read.study.select_series`.
    phase_sign : {1, -1}, optional
        Sign of paramagnetic blood in the stored phase; by default from a rule of the site, or measured on the veins.

    Returns
    -------
    Acquisition
        Phase in radians, paramagnetic positive. A phase or magnitude that cannot be used with the SWI is left out
        with a warning. Without an SWI, one is computed from phase and magnitude.

    Raises
    ------
    NoSwiError
        There is neither an SWI nor the phase and magnitude to compute it from.
    InputError
        The SWI (or what it is computed from) cannot be read.
    """
    if not pick.analysable:
        raise NoSwiError(pick.why, do="send the susceptibility-weighted series, or its phase and magnitude")
    with Decoding() as decoding:
        reading = _Reading(decoding)
        unsure = (series for series in pick.used if series.needs_confirmation)
        reading.notes.extend(f"{series.label} was recognised as {series.role} by its name alone" for series in unsure)
        return (
            _computed(pick, phase_sign, reading) if pick.swi is None else _derived(pick, pick.swi, phase_sign, reading)
        )


@dataclass(frozen=True)
class _Reading:
    """One acquisition being read: the decoder of its files, and notes for the reader of the result."""

    decoding: Decoding
    notes: list[str] = field(default_factory=list)


def _derived(
    pick: SeriesSelection, series: Series, phase_sign: Literal[1, -1] | None, reading: _Reading
) -> Acquisition:
    """Acquisition with an SWI of the scanner, or a T2*-weighted gradient echo in its place."""
    notes = reading.notes
    if series.role == SeriesRole.T2STAR:
        notes.append("a T2*-weighted gradient echo was analysed because there is no SWI: it shows fewer microbleeds")
    swi = _image(series, reading)
    magnitude = _companion(pick.magnitude, swi, "magnitude", _image, reading)
    phase = _companion(pick.phase, swi, "phase", _phase, reading)
    record = None
    if phase is None:
        why = f" ({pick.no_phase})" if pick.no_phase else ""
        notes.append(f"analysed without phase{why}: calcifications cannot be told from microbleeds")
    else:
        record = _signed(phase, swi, pick.phase, phase_sign, notes)
    echo, field = series.echo_time_ms, series.field_strength_t
    sequence: Literal["swi", "t2star"] = "t2star" if series.role == SeriesRole.T2STAR else "swi"
    return Acquisition(swi, phase, magnitude, echo, field, _once(notes), record, sequence)


def _once(notes: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(notes))


def _computed(pick: SeriesSelection, phase_sign: Literal[1, -1] | None, reading: _Reading) -> Acquisition:
    """Acquisition whose SWI is computed from magnitude and phase."""
    if pick.magnitude is None or pick.phase is None:
        raise NoSwiError(pick.why)
    notes = reading.notes
    magnitude, phase = _image(pick.magnitude, reading), _phase(pick.phase, reading)
    if not magnitude.geometry.matches(phase.geometry):
        raise GeometryError("magnitude and phase lie on different grids", where=pick.phase.label, do="send both series")
    record = _signed(phase, magnitude, pick.phase, phase_sign, notes)
    parameters = SwiParameters()
    swi = replace(magnitude, array=susceptibility_weighted(magnitude.array, phase.array, parameters))
    notes.append("the study has no SWI series: the SWI was computed from magnitude and phase")
    echo, field = pick.magnitude.echo_time_ms, pick.magnitude.field_strength_t
    return Acquisition(swi, phase, magnitude, echo, field, _once(notes), record)


def _image(series: Series, reading: _Reading) -> Volume:
    raw = _read(series, reading)
    return raw.volume(_modality(raw))


def _companion(
    series: Series | None, swi: Volume, kind: str, read: Callable[[Series, _Reading], V], reading: _Reading
) -> V | None:
    """Read a series that belongs to the SWI; leave it out with a warning if it cannot be used."""
    if series is None:
        return None
    try:
        volume = read(series, reading)
    except InputError as error:
        reading.notes.append(f"the {kind} was not used: {error}")
        return None
    if not volume.geometry.matches(swi.geometry):
        reading.notes.append(f"the {kind} was not used: {series.label} does not lie on the grid of the SWI")
        return None
    return volume


@dataclass(frozen=True, eq=False)
class _Phase(Volume):
    """A phase volume, and what its scale was derived from."""

    scale: str = ""


def _phase(series: Series, reading: _Reading) -> _Phase:
    """Phase in radians; the sign is still the manufacturer's."""
    if series.parts:  # a real and an imaginary image
        real, imaginary = (_read(part, reading) for part in series.parts)
        if not real.stack.geometry.matches(imaginary.stack.geometry):
            raise GeometryError("real and imaginary images lie on different grids", where=series.label)
        radians, turned = complex_phase(_modality(real), _modality(imaginary))
        scale = "the angle of real and imaginary images" + (", alternate slices inverted" if turned else "")
        return real.phase(radians, scale)
    raw = _read(series, reading)
    try:
        radians, found = to_radians(raw.stored, raw.encodings, series.vendor)
    except InputError as error:
        raise InputError(error.what, where=series.label, do="leave the phase out or set its scale") from error
    if found.assumed:
        reading.notes.append(f"the scale of the phase is assumed: {found.rule}")
    return raw.phase(radians, found.rule)


def _signed(
    phase: _Phase, image: Volume, series: Series | None, given: Literal[1, -1] | None, notes: list[str]
) -> PhaseRecord:
    """Invert the phase if needed, so that paramagnetic blood is positive; return how that was decided."""
    sign = given or (series.phase_sign if series is not None else None)
    if sign is not None:
        record = PhaseRecord(phase.scale, sign, "site")
    else:
        vendor = series.vendor if series is not None else ""
        found = paramagnetic_sign(phase.array, image.array, image.geometry.spacing, vendor)
        record = PhaseRecord(phase.scale, found.sign, "veins" if found.measured else "maker", round(found.score, 1))
        if not found.measured:
            notes.append(
                "the sign of the phase could not be measured on the veins; the manufacturer's usual sign is assumed"
            )
    if record.sign < 0:
        np.negative(phase.array, out=phase.array)
    return record


@dataclass(frozen=True, eq=False)
class _Raw:
    """Stored values of a series in slice order, with what the header says about them."""

    series: Series
    pieces: tuple[Piece, ...]
    stack: SliceStack
    stored: NDArray[Any]
    encodings: list[Encoding]

    @property
    def frames(self) -> tuple[FrameReference, ...]:
        return tuple(
            FrameReference(instance.sop_instance_uid, instance.sop_class_uid, str(instance.path), frame.number)
            for instance, frame in self.pieces
        )

    def volume(self, array: NDArray[np.float32]) -> Volume:
        return Volume(array, self.stack.geometry, self.frames, self.series.series_instance_uid)

    def phase(self, radians: NDArray[np.float32], scale: str) -> _Phase:
        return _Phase(radians, self.stack.geometry, self.frames, self.series.series_instance_uid, scale)


def _modality(raw: _Raw) -> NDArray[np.float32]:
    """Apply the rescale of each slice (PS3.3 C.11.1); MONOCHROME1 is inverted within the range that can be stored."""
    array = np.empty(raw.stored.shape, dtype=np.float32)
    for k, encoding in enumerate(raw.encodings):
        slope, intercept = encoding.slope, encoding.intercept
        if encoding.photometric == "MONOCHROME1":
            low, high = encoding.stored_range
            slope, intercept = -slope, intercept + slope * (low + high)
        np.multiply(raw.stored[k], np.float32(slope), out=array[k], casting="unsafe")
        if intercept:
            array[k] += np.float32(intercept)
    return array


def _read(series: Series, reading: _Reading) -> _Raw:
    """Decode every frame of a series into slice order."""
    if len(series.parts) > 1:
        raise InputError("holds several kinds of image", where=series.label, do="read one of its parts")
    stack = arrange(series)
    if np.prod(stack.geometry.shape, dtype=np.int64) > MAX_VOXELS:
        raise InputError("the volume is too large to read", where=series.label, do="send it in parts or smaller")
    by_file: dict[Path, list[tuple[int, Piece]]] = defaultdict(list)
    for k, place in enumerate(stack.places):
        for piece in place:
            by_file[piece[0].path].append((k, piece))
    loading = _Loading(series, stack)
    wanted = {path: [(piece[1].number or 1) - 1 for _, piece in places] for path, places in by_file.items()}
    for path, images in reading.decoding.decode(wanted):
        for (k, piece), image in zip(by_file[path], images, strict=True):
            loading.put(k, piece, image)
    raw = loading.done()
    reading.notes.extend((*stack.remarks, *loading.remarks))
    return raw


class _Loading:
    """A stack being filled: a duplicate slice is skipped if its pixels agree, and otherwise an error."""

    def __init__(self, series: Series, stack: SliceStack) -> None:
        self._series, self._stack = series, stack
        self._stored: NDArray[Any] | None = None
        self._kept: dict[int, tuple[Piece, Encoding]] = {}
        self._again: list[Piece] = []

    def put(self, k: int, piece: Piece, image: Image) -> None:
        pixels, encoding = image
        if self._stored is None:
            self._stored = np.empty(self._stack.geometry.shape, dtype=pixels.dtype)
        if self._stored.dtype != pixels.dtype:
            self._stored = self._stored.astype(np.promote_types(self._stored.dtype, pixels.dtype))
        if k not in self._kept:
            self._stored[k] = pixels
            self._kept[k] = (piece, encoding)
        elif not np.array_equal(self._stored[k], pixels):
            what = f"different images at the same position: {name([self._kept[k][0], piece])}"
            raise GeometryError(what, where=self._series.label, do="send one acquisition per series")
        else:
            self._again.append(piece)

    def done(self) -> _Raw:
        pieces, encodings = zip(*(self._kept[k] for k in sorted(self._kept)), strict=True)
        assert self._stored is not None  # noqa: S101 - a stack has at least two places
        return _Raw(self._series, pieces, self._stack, self._stored, list(encodings))

    @property
    def remarks(self) -> tuple[str, ...]:
        if not self._again:
            return ()
        return (f"{self._series.label}: the same slices twice; one of each is used: {name(self._again)}",)
