"""What are the stored values of an image file? The only module that decodes pixel data.

Sizes are bounded before anything is decoded. Compressed data goes through C and C++ decoders, which a broken or hostile
file can abort, hang or take over. They run in another process (:mod:`pipeline.read.decoder`), which knows no secret of
the node and can open no file and no connection, so that such a file costs one line that names it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import JPEGLSLossless, JPEGLSNearLossless

from pipeline.errors import InputError

from .codestream import declared_size
from .elements import flatten, integer, number, text

_log = logging.getLogger(__name__)

MAX_VOXELS = 1 << 28
"""Largest volume that is read (1 GiB as float32)."""
MAX_PIXELS = 1 << 24
"""Largest single image (4096 × 4096)."""
THREADS = 2
FILES_PER_DECODER = 8
"""A second decoding process is started for more compressed files than this."""
LIMIT_S = 60.0
"""Longest time to decode one file, seconds; half a second more for each frame."""

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

_INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
"""What of the node's environment a decoding process gets: where Python finds its modules, and no setting."""

_FASTEST = {JPEGLSLossless: "pyjpegls", JPEGLSNearLossless: "pyjpegls"}


@dataclass(frozen=True)
class Encoding:
    """How the header of one image describes its stored values.

    `real_world` is (slope, intercept, UCUM unit) of a Real World Value Mapping.
    """

    bits_stored: int
    signed: bool
    photometric: str
    slope: float = 1.0
    intercept: float = 0.0
    rescale_type: str = ""
    real_world: tuple[float, float, str] | None = None
    smallest: float | None = None
    largest: float | None = None

    @property
    def stored_range(self) -> tuple[int, int]:
        """Least and greatest value that can be stored."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


Image = tuple[NDArray[Any], Encoding]
"""Stored values of one frame, shape (rows, columns), and what they mean."""


class Decoding:
    """Decodes files; starts processes for compressed ones if there are any, and ends them at the end of its block."""

    def __init__(self) -> None:
        self._decoders: list[Decoder] = []
        self._pool = ThreadPoolExecutor(THREADS)

    def __enter__(self) -> Decoding:
        return self

    def __exit__(self, *_: object) -> None:
        for decoder in self._decoders:
            decoder.close()
        self._pool.shutdown()

    def decode(self, wanted: Mapping[Path, Sequence[int]]) -> Iterator[tuple[Path, list[Image]]]:
        """Decode frames of several files, in no particular order of files.

        Parameters
        ----------
        wanted : mapping of Path to sequence of int
            Indices of the frames (from 0) wanted of each file.

        Raises
        ------
        InputError
            Naming the first file that cannot be decoded.
        """
        compressed: dict[Path, Sequence[int]] = {}
        for path, images in zip(wanted, self._pool.map(_uncompressed, wanted, wanted.values()), strict=True):
            if images is None:
                compressed[path] = wanted[path]
            else:
                yield path, images
        if compressed:
            yield from self._decode_compressed(compressed)

    def _decode_compressed(self, wanted: Mapping[Path, Sequence[int]]) -> Iterator[tuple[Path, list[Image]]]:
        """Decode compressed files in other processes."""
        todo: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for path in wanted:
            todo.put(path)

        def work(decoder: Decoder) -> list[tuple[Path, list[Image]]]:
            done: list[tuple[Path, list[Image]]] = []
            while True:
                try:
                    path = todo.get_nowait()
                except queue.Empty:
                    return done
                done.append((path, decoder.decode(path, wanted[path])))

        needed = min(THREADS, 1 + len(wanted) // FILES_PER_DECODER)
        self._decoders += [Decoder() for _ in range(needed - len(self._decoders))]
        for done in self._pool.map(work, self._decoders[:needed]):
            yield from done


def _uncompressed(path: Path, indices: Sequence[int]) -> list[Image] | None:
    """Decode frames of one file if they are not compressed; any failure is raised as an error that names the file."""
    try:
        ds = _read(path)
        if is_compressed(ds):
            return None
        check_bounds(ds)
        return list(zip(_native(ds, indices), _encodings(ds, indices), strict=True))
    except Exception as error:  # a hostile header may raise anything
        raise _named(error, path) from error


def decode_compressed(file: IO[bytes], indices: Sequence[int]) -> list[Image]:
    """Decode frames of one compressed file, in this process."""
    ds = _read(file)
    check_bounds(ds)
    return list(zip(_encapsulated(ds, indices), _encodings(ds, indices), strict=True))


def describe(error: BaseException) -> str:
    """Say in one line why a file cannot be decoded; a library's own text could quote the header."""
    if isinstance(error, InputError):
        return error.what
    return f"the pixel data cannot be decoded ({type(error).__name__})"  # its text may quote a header value


def _named(error: BaseException, path: Path) -> InputError:
    return InputError(describe(error), where=path.name, do="send the file again")


def _read(file: Path | IO[bytes]) -> pydicom.FileDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(file, specific_tags=_PIXEL_ATTRIBUTES, force=True)


def check_bounds(ds: Dataset) -> None:
    """Refuse, by the header alone, what is too large or not a greyscale image."""
    rows, columns, frames = (integer(ds, name) or 0 for name in ("Rows", "Columns", "NumberOfFrames"))
    if "PixelData" not in ds:
        raise InputError("the file has no pixel data")
    if not 0 < rows * columns <= MAX_PIXELS or frames * rows * columns > 8 * MAX_VOXELS:
        raise InputError(f"images of {columns}×{rows} pixels, {frames} frames are not read")
    if (integer(ds, "SamplesPerPixel") or 1) != 1:
        raise InputError("a colour image")
    if ds.BitsAllocated not in (8, 16, 32) or not 0 < ds.BitsStored <= ds.BitsAllocated:
        raise InputError(f"{ds.BitsStored} of {ds.BitsAllocated} bits a pixel are not read")


def is_compressed(ds: pydicom.FileDataset) -> bool:
    """Whether the pixel data is encapsulated."""
    syntax = ds.file_meta.get("TransferSyntaxUID")
    return syntax is not None and bool(syntax.is_encapsulated)


def _native(ds: pydicom.FileDataset, indices: Sequence[int]) -> list[NDArray[Any]]:
    """Frames of uncompressed pixel data, without a copy."""
    kind = "i" if ds.PixelRepresentation else "u"
    dtype = np.dtype(f"{'>' if ds.original_encoding[1] is False else '<'}{kind}{ds.BitsAllocated // 8}")
    size, needed = ds.Rows * ds.Columns, max(indices) + 1
    have = len(ds.PixelData) // (size * dtype.itemsize)
    if have < needed:
        raise InputError(f"the pixel data is cut short ({have} of {needed} frames)")
    frames = np.frombuffer(ds.PixelData, dtype=dtype, count=needed * size).reshape(needed, ds.Rows, ds.Columns)
    return [_stored_bits(frames[n], ds) for n in indices]


def _encapsulated(ds: pydicom.FileDataset, indices: Sequence[int]) -> list[NDArray[Any]]:
    """Frames of compressed pixel data, after checking the size that each codestream declares."""
    count = integer(ds, "NumberOfFrames") or 1
    for codestream in generate_frames(ds.PixelData, number_of_frames=count):
        declared = declared_size(codestream)
        if declared not in (None, (ds.Rows, ds.Columns)):
            raise InputError(f"the compressed image declares another size than its header {declared}")
    distinct = sorted(set(indices))
    plugin = _FASTEST.get(ds.file_meta.TransferSyntaxUID, "")
    decoded = dict(zip(distinct, iter_pixels(ds, indices=distinct, raw=True, decoding_plugin=plugin), strict=True))
    return [_stored_bits(decoded[n], ds) for n in indices]


def _stored_bits(frame: NDArray[Any], ds: Dataset) -> NDArray[Any]:
    """Clear the bits above Bits Stored (retired overlays, PS3.5 8.1.1) and extend the sign."""
    spare = int(ds.BitsAllocated) - int(ds.BitsStored)
    if not spare or frame.dtype.itemsize * 8 != ds.BitsAllocated:
        return frame
    return (frame << spare) >> spare


def _encodings(ds: pydicom.FileDataset, indices: Sequence[int]) -> list[Encoding]:
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


# The other process: a line of JSON and the content of one file to it, a line of JSON and the bytes of the frames back.


class Decoder:
    """A process that decodes one file after the other; one that has ended is started again for the next file."""

    def __init__(self) -> None:
        self._process = self._start()

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.read.decoder"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**inherited, **one_thread},
        )  # fmt: skip

    def decode(self, path: Path, indices: Sequence[int]) -> list[Image]:
        """Decode frames of one file.

        Raises
        ------
        InputError
            The file cannot be decoded; also when the decoder crashes or hangs on it.
        """
        late = threading.Timer(LIMIT_S + len(indices) / 2, self._process.kill)
        late.start()
        try:
            return self._ask(path, indices)
        except (OSError, EOFError) as error:
            self.close()
            status, self._process = self._process.returncode, self._start()
            how = "takes too long to decode it" if late.finished.is_set() else f"crashes on it (status {status})"
            raise InputError(f"the decoder {how}", where=path.name, do="send the file again") from error
        finally:
            late.cancel()

    def _ask(self, path: Path, indices: Sequence[int]) -> list[Image]:
        to, back = self._process.stdin, self._process.stdout
        if to is None or back is None:  # they are pipes
            raise AssertionError
        content = path.read_bytes()
        to.write(json.dumps({"size": len(content), "indices": list(indices)}).encode() + b"\n")
        to.write(content)
        to.flush()
        head = back.readline()
        if not head.endswith(b"\n"):
            raise EOFError
        answer = json.loads(head)
        if not answer["confined"]:
            _warn_once()
        if "error" in answer:
            raise InputError(answer["error"], where=path.name, do="send the file again")
        return [_receive(back, one) for one in answer["images"]]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


@cache
def _warn_once() -> None:
    _log.warning("images are decoded under resource limits alone: this system has no system call filter (seccomp)")


def _receive(back: IO[bytes], one: dict[str, Any]) -> Image:
    frame = np.empty(one["shape"], np.dtype(one["dtype"]))
    view, got = frame.data.cast("B"), 0
    while got < len(view):
        count = back.readinto(view[got:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        got += count
    encoding = one["encoding"]
    if encoding["real_world"] is not None:
        slope, intercept, unit = encoding["real_world"]
        encoding["real_world"] = (slope, intercept, unit)
    return frame, Encoding(**encoding)


def send(images: Sequence[Image], confined: bool, to: IO[bytes]) -> None:
    """Write decoded frames as :class:`Decoder` expects them from the other process."""
    described = [
        {"shape": frame.shape, "dtype": frame.dtype.newbyteorder("<").str, "encoding": asdict(encoding)}
        for frame, encoding in images
    ]
    to.write(json.dumps({"images": described, "confined": confined}).encode() + b"\n")
    for frame, _ in images:
        to.write(np.ascontiguousarray(frame, frame.dtype.newbyteorder("<")).data)
    to.flush()
