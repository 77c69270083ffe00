"""DICOM slices to a volume with LPS geometry, and to an acquisition with phase in radians.

The only place that decodes pixel data. Sizes are bounded before anything is decoded, and a file that cannot be decoded
is named.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import iter_pixels

from pipeline.codestream import declared_size
from pipeline.errors import GeometryError, InputError, NoSwiError
from pipeline.geometry import Acquisition, FrameReference, Volume
from pipeline.headers import flatten, integer, number, text
from pipeline.pairing import Pick
from pipeline.phase import Encoding, paramagnetic_sign, to_radians
from pipeline.series import Series
from pipeline.stack import Piece, Stack, arrange, name
from pipeline.swi import SwiParameters, susceptibility_weighted

MAX_VOXELS = 1 << 28
"""Largest volume that is read (1 GiB as float32)."""
MAX_PIXELS = 1 << 24
"""Largest single image (4096 × 4096)."""
THREADS = 2

_PIXEL_ATTRIBUTES = [
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "RealWorldValueMappingSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "PixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
]


def read_volume(series: Series) -> Volume:
    """Read a series as one volume in patient coordinates.

    Parameters
    ----------
    series : Series
        A series (or a part of one) whose frames make one regular grid.

    Returns
    -------
    Volume
        Slices in order of their position along the normal, rescale applied, MONOCHROME1 turned so that dark is low.

    Raises
    ------
    GeometryError
        The frames do not make one regular grid; the message names them.
    InputError
        A file cannot be decoded, or the volume is too large.
    """
    raw = _read(series)
    return raw.volume(_modality(raw))


def read_acquisition(pick: Pick, *, phase_sign: int | None = None) -> Acquisition:
    """Read the SWI that was picked with its phase and magnitude, all on the grid of the SWI.

    Parameters
    ----------
    pick : Pick
        From :func:`pipeline.study.pick`.
    phase_sign : int, optional
        Sign of paramagnetic blood in the phase of this site; by default it is measured on the veins.

    Returns
    -------
    Acquisition
        Phase in radians, paramagnetic positive. A phase or magnitude that cannot be used with the SWI is left out and
        named in its warnings. Without an SWI it is computed from phase and magnitude.

    Raises
    ------
    NoSwiError
        There is neither an SWI nor the phase and magnitude to compute it from.
    InputError
        The SWI (or what it is computed from) cannot be read.
    """
    if not pick.analysable:
        raise NoSwiError(pick.why, do="send the susceptibility-weighted series, or its phase and magnitude")
    notes = [f"{s.label} was taken for {s.role} by its name alone" for s in _used(pick) if s.needs_confirmation]
    if pick.swi is None:
        return _computed(pick, phase_sign, notes)
    swi = read_volume(pick.swi)
    magnitude = _companion(pick.magnitude, swi, "magnitude", read_volume, notes)
    phase = _companion(pick.phase, swi, "phase", lambda series: _phase(series, notes), notes)
    if phase is None:
        notes.append("analysed without phase: calcification and bleeds cannot be told apart by it")
    else:
        phase = _signed(phase, swi, pick.phase, phase_sign, notes)
    return Acquisition(swi, phase, magnitude, pick.swi.echo_time_ms, pick.swi.field_strength_t, tuple(notes))


def _used(pick: Pick) -> Iterator[Series]:
    yield from (series for series in (pick.swi, pick.phase, pick.magnitude) if series is not None)


def _computed(pick: Pick, phase_sign: int | None, notes: list[str]) -> Acquisition:
    """Acquisition whose SWI is made from magnitude and phase, for want of a derived one."""
    if pick.magnitude is None or pick.phase is None:
        raise NoSwiError(pick.why)
    magnitude, phase = read_volume(pick.magnitude), _phase(pick.phase, notes)
    if not magnitude.geometry.matches(phase.geometry):
        raise GeometryError("magnitude and phase lie on different grids", where=pick.phase.label, do="send both series")
    phase = _signed(phase, magnitude, pick.phase, phase_sign, notes)
    parameters = SwiParameters()
    swi = replace(magnitude, array=susceptibility_weighted(magnitude.array, phase.array, parameters))
    notes.append("the study has no SWI series: the SWI was computed from magnitude and phase")
    echo, field = pick.magnitude.echo_time_ms, pick.magnitude.field_strength_t
    return Acquisition(swi, phase, magnitude, echo, field, tuple(notes))


def _companion(series: Series | None, swi: Volume, kind: str, read: Any, notes: list[str]) -> Volume | None:
    """Read a series that goes with the SWI; leave it out, with a warning, when it cannot."""
    if series is None:
        return None
    try:
        volume: Volume = read(series)
    except InputError as error:
        notes.append(f"the {kind} was left out: {error}")
        return None
    if not volume.geometry.matches(swi.geometry):
        notes.append(f"the {kind} was left out: {series.label} does not lie on the grid of the SWI")
        return None
    return volume


def _phase(series: Series, notes: list[str]) -> Volume:
    raw = _read(series)
    try:
        radians, assumed = to_radians(raw.stored, raw.encodings, series.vendor)
    except InputError as error:
        raise InputError(error.what, where=series.label, do="leave the phase out or set its scale") from error
    notes.extend(assumed)
    return raw.volume(radians)


def _signed(phase: Volume, image: Volume, series: Series | None, phase_sign: int | None, notes: list[str]) -> Volume:
    """Turn the phase so that paramagnetic blood is positive."""
    sign = phase_sign
    if sign is None:
        vendor = series.vendor if series is not None else ""
        found = paramagnetic_sign(phase.array, image.array, image.geometry.spacing, vendor)
        sign = found.sign
        if not found.measured:
            notes.append("the sign of the phase could not be measured on the veins; the maker's usual one is taken")
    if sign < 0:
        np.negative(phase.array, out=phase.array)
    return phase


@dataclass(frozen=True, eq=False)
class _Raw:
    """Stored values of a series in slice order, with what the header says about them."""

    series: Series
    pieces: tuple[Piece, ...]
    stack: Stack
    stored: NDArray[Any]
    encodings: list[Encoding]

    def volume(self, array: NDArray[np.float32]) -> Volume:
        frames = tuple(
            FrameReference(instance.sop_instance_uid, instance.sop_class_uid, str(instance.path), frame.number)
            for instance, frame in self.pieces
        )
        return Volume(array, self.stack.geometry, frames, self.series.series_instance_uid)


def _modality(raw: _Raw) -> NDArray[np.float32]:
    """Apply the rescale of each slice (PS3.3 C.11.1); MONOCHROME1 is turned within the range that can be stored."""
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


def _read(series: Series) -> _Raw:
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
    with ThreadPoolExecutor(THREADS) as pool:
        for slices in pool.map(_decode_file, by_file, by_file.values()):
            for k, piece, pixels, encoding in slices:
                loading.put(k, piece, pixels, encoding)
    return loading.done()


class _Loading:
    """A stack being filled: a slice that is there twice is passed over when its pixels agree, and else an error."""

    def __init__(self, series: Series, stack: Stack) -> None:
        self._series, self._stack = series, stack
        self._stored: NDArray[Any] | None = None
        self._kept: dict[int, tuple[Piece, Encoding]] = {}

    def put(self, k: int, piece: Piece, pixels: NDArray[Any], encoding: Encoding) -> None:
        if self._stored is None:
            self._stored = np.empty(self._stack.geometry.shape, dtype=pixels.dtype)
        if self._stored.dtype != pixels.dtype:
            self._stored = self._stored.astype(np.promote_types(self._stored.dtype, pixels.dtype))
        if k not in self._kept:
            self._stored[k] = pixels
            self._kept[k] = (piece, encoding)
        elif not np.array_equal(self._stored[k], pixels):
            what = f"different images at one place: {name([self._kept[k][0], piece])}"
            raise GeometryError(what, where=self._series.label, do="send one acquisition a series")

    def done(self) -> _Raw:
        pieces, encodings = zip(*(self._kept[k] for k in sorted(self._kept)), strict=True)
        assert self._stored is not None  # noqa: S101 - a stack has at least two places
        return _Raw(self._series, pieces, self._stack, self._stored, list(encodings))


def _decode_file(path: Path, wanted: list[tuple[int, Piece]]) -> list[tuple[int, Piece, NDArray[Any], Encoding]]:
    """Decode the wanted frames of one file; anything a decoder raises becomes an error that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path, specific_tags=_PIXEL_ATTRIBUTES, force=True)
        _check_bounds(ds)
        indices = [(piece[1].number or 1) - 1 for _, piece in wanted]
        images = _native(ds, indices) if _is_native(ds) else _encapsulated(ds, indices)
        encodings = _encodings(ds, indices)
        return [(k, piece, image, e) for (k, piece), image, e in zip(wanted, images, encodings, strict=True)]
    except InputError as error:
        raise InputError(error.what, where=path.name, do="send the file again") from error
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")[:160]
        what = f"the pixel data cannot be decoded ({type(error).__name__}: {reason})"
        raise InputError(what, where=path.name, do="send the file again") from error


def _check_bounds(ds: Dataset) -> None:
    rows, columns, frames = (integer(ds, name) or 0 for name in ("Rows", "Columns", "NumberOfFrames"))
    if "PixelData" not in ds:
        raise InputError("the file has no pixel data")
    if not 0 < rows * columns <= MAX_PIXELS or frames * rows * columns > 8 * MAX_VOXELS:
        raise InputError(f"images of {columns}×{rows} pixels, {frames} frames are not read")
    if (integer(ds, "SamplesPerPixel") or 1) != 1:
        raise InputError("a colour image")
    if ds.BitsAllocated not in (8, 16, 32) or not 0 < ds.BitsStored <= ds.BitsAllocated:
        raise InputError(f"{ds.BitsStored} of {ds.BitsAllocated} bits a pixel are not read")


def _is_native(ds: pydicom.FileDataset) -> bool:
    syntax = ds.file_meta.get("TransferSyntaxUID")
    return syntax is None or not syntax.is_encapsulated


def _native(ds: pydicom.FileDataset, indices: list[int]) -> list[NDArray[Any]]:
    """Frames of uncompressed pixel data, without a copy."""
    kind = "i" if ds.PixelRepresentation else "u"
    dtype = np.dtype(f"{'>' if ds.original_encoding[1] is False else '<'}{kind}{ds.BitsAllocated // 8}")
    size, needed = ds.Rows * ds.Columns, max(indices) + 1
    have = len(ds.PixelData) // (size * dtype.itemsize)
    if have < needed:
        raise InputError(f"the pixel data is cut short ({have} of {needed} frames)")
    frames = np.frombuffer(ds.PixelData, dtype=dtype, count=needed * size).reshape(needed, ds.Rows, ds.Columns)
    return [_stored_bits(frames[n], ds) for n in indices]


def _encapsulated(ds: pydicom.FileDataset, indices: list[int]) -> list[NDArray[Any]]:
    """Frames of compressed pixel data, after a look at the size each codestream declares."""
    count = integer(ds, "NumberOfFrames") or 1
    for codestream in generate_frames(ds.PixelData, number_of_frames=count):
        declared = declared_size(codestream)
        if declared not in (None, (ds.Rows, ds.Columns)):
            raise InputError(f"the compressed image declares another size than its header {declared}")
    distinct = sorted(set(indices))
    decoded = dict(zip(distinct, iter_pixels(ds, indices=distinct, raw=True), strict=True))
    return [_stored_bits(decoded[n], ds) for n in indices]


def _stored_bits(frame: NDArray[Any], ds: Dataset) -> NDArray[Any]:
    """Clear what lies above Bits Stored (overlays of old, PS3.5 8.1.1) and extend the sign."""
    spare = int(ds.BitsAllocated) - int(ds.BitsStored)
    if not spare or frame.dtype.itemsize * 8 != ds.BitsAllocated:
        return frame
    return (frame << spare) >> spare


def _encodings(ds: pydicom.FileDataset, indices: list[int]) -> list[Encoding]:
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or ()
    shared = flatten(next(iter(ds.get("SharedFunctionalGroupsSequence") or ()), None))
    return [
        _encoding(ds, [flatten(per_frame[n]), shared, ds] if n < len(per_frame) else [ds, flatten(ds)]) for n in indices
    ]


def _encoding(ds: pydicom.FileDataset, levels: list[Dataset]) -> Encoding:
    def first(keyword: str) -> float | None:
        return next((value for level in levels if (value := number(level, keyword)) is not None), None)

    slope, mapped = first("RescaleSlope"), first("RealWorldValueSlope")
    units = next((unit for level in levels if (unit := level.get("MeasurementUnitsCodeSequence"))), None)
    unit = text(units[0], "CodeValue") if units else ""
    return Encoding(
        bits_stored=int(ds.BitsStored),
        signed=bool(ds.PixelRepresentation),
        photometric=text(ds, "PhotometricInterpretation"),
        slope=slope or 1.0,
        intercept=first("RescaleIntercept") or 0.0,
        rescale_type=next((value for level in levels if (value := text(level, "RescaleType"))), ""),
        real_world=None if not mapped else (mapped, first("RealWorldValueIntercept") or 0.0, unit),
        smallest=first("SmallestImagePixelValue"),
        largest=first("LargestImagePixelValue"),
    )
