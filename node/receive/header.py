"""What does the header of an object say, and is the object complete? Read without trusting any length in it.

:func:`read_header` walks the data elements of an encoded data set (PS3.5 chapter 7) once from the first to the last
byte, reads tags and lengths, and skips the values. So it needs little memory for any input, it notices a truncated
data set, and it reads the few values by which the node stores objects. pydicom decodes those values. No pixel data is
decoded. A deflated data set is inflated piece by piece as it is read, never completely in memory or on disk.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from pydicom import dcmread
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from node.archive import content_start, is_uid
from pipeline.errors import CmbError

KEYWORDS = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "ReferringPhysicianName",
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "Manufacturer",
    "BodyPartExamined",
    "StationName",
    "InstitutionName",
    "NumberOfFrames",
    "ImageOrientationPatient",
    "ImagePositionPatient",
)
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_TAGS = {keyword: int(Tag(keyword)) for keyword in KEYWORDS}
_WANTED = frozenset(_TAGS.values())
_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_CHARACTER_SET, _ITEM, _ITEM_END, _SEQUENCE_END = 0x00080005, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONGEST_VALUE = 65_536  # bytes of one value that is read; real ones are far below
_LONGEST_CACHED = 4096
_INFLATED_ALWAYS, _INFLATED_RATIO = 64 * 2**20, 100  # a data set may inflate to 64 MiB, or to 100 times its size
_MOST_ELEMENTS = 2_000_000  # an enhanced object of thousands of frames has some hundred thousand
_DEEPEST = 64
_TEXT_LENGTH = 324  # five component groups of PN; everything else is shorter


class NotUnderstoodError(CmbError):
    """The bytes are not a complete data set, or lack the UIDs by which it would be stored."""


@dataclass(frozen=True)
class Header:
    """The values of :data:`KEYWORDS` in an object; its four UIDs are present and safe in a path.

    Parameters
    ----------
    raw : dict
        Encoded value by tag, with its VR if the encoding names it.
    implicit, little : bool
        The encoding.
    """

    raw: dict[int, tuple[str | None, bytes]]
    implicit: bool
    little: bool

    def text(self, keyword: str) -> str:
        """Return a value as one line of text; empty if it is absent or cannot be decoded."""
        vr, raw = self.raw.get(_TAGS[keyword], (None, b""))
        if keyword in _UIDS and vr in (None, "UI"):  # without pydicom, which takes twenty times as long
            words = raw.rstrip(b"\0 ").decode("ascii", "replace")
        else:
            value = self._value(keyword)
            words = "" if value is None else str(value)
        if not words.isprintable():
            words = "".join(letter for letter in words if letter.isprintable())
        return words[:_TEXT_LENGTH].strip()

    def texts(self, keywords: tuple[str, ...]) -> tuple[str, ...]:
        """Return several values as :meth:`text` does, quickly if an earlier header held the same."""
        raw = {tag: self.raw[tag] for tag in map(_TAGS.__getitem__, keywords) if tag in self.raw}
        raw[_CHARACTER_SET] = self.raw.get(_CHARACTER_SET, (None, b""))
        long = sum(len(value) for _, value in raw.values()) > _LONGEST_CACHED
        return (_texts if long else _texts_again)(tuple(raw.items()), keywords, self.implicit, self.little)

    def integer(self, keyword: str) -> int | None:
        """Return a value as an integer of 32 bits; ``None`` if it is absent or malformed."""
        vr, raw = self.raw.get(_TAGS[keyword], (None, b""))
        plain = vr in (None, "IS") and raw.strip().isdigit()
        try:
            number = int(raw) if plain else int(self._value(keyword))
        except (TypeError, ValueError, OverflowError):
            return None
        return number if abs(number) < 2**31 else None

    def numbers(self, keyword: str) -> tuple[float, ...] | None:
        """Return a multi-valued number; ``None`` if it is absent or malformed."""
        vr, raw = self.raw.get(_TAGS[keyword], (None, b""))
        try:
            if vr in (None, "DS"):  # without pydicom, as above
                return tuple(float(number) for number in raw.decode("ascii").strip(" \0").split("\\"))
            return tuple(float(number) for number in self._value(keyword))
        except (TypeError, ValueError):
            return None

    def _value(self, keyword: str) -> Any:
        tag = _TAGS[keyword]
        vr, raw = self.raw.get(tag, (None, b""))
        if not raw:
            return None
        _, character_set = self.raw.get(_CHARACTER_SET, (None, b""))
        return _decode(tag, vr, raw, character_set, self.implicit, self.little)


_Values = tuple[tuple[int, tuple[str | None, bytes]], ...]


def _texts(raw: _Values, keywords: tuple[str, ...], implicit: bool, little: bool) -> tuple[str, ...]:
    header = Header(dict(raw), implicit, little)
    return tuple(header.text(keyword) for keyword in keywords)


# All images of a series say the same of their patient and study.
_texts_again = lru_cache(maxsize=256)(_texts)


def _decode(tag: int, vr: str | None, raw: bytes, character_set: bytes, implicit: bool, little: bool) -> Any:
    """Decode one value with pydicom; ``None`` if that fails."""
    try:
        names = character_set.decode("ascii").strip(" \0").split("\\")
        encodings = convert_encodings(names if len(names) > 1 else names[0])
        element = RawDataElement(Tag(tag), vr, len(raw), raw, 0, implicit, little)
        values = Dataset({Tag(tag): element})
        values.set_original_encoding(implicit, little, encodings)
        return values[tag].value
    except Exception:  # pydicom's decoders raise many types on malformed values
        return None


def read_header(file: IO[bytes], start: int, transfer_syntax: str, max_bytes: int) -> Header:
    """Read the header of an encoded data set and check that it is complete.

    Parameters
    ----------
    file : file
        Seekable; the data set reaches from `start` to its end.
    start : int
        Where the data set begins, after any file meta information.
    transfer_syntax : str
        UID of the transfer syntax it is encoded in.
    max_bytes : int
        Largest size that a deflated data set may inflate to.

    Raises
    ------
    NotUnderstoodError
        It is truncated, is no data set, inflates too far, or lacks usable UIDs.
    """
    syntax = UID(transfer_syntax)
    size = file.seek(0, io.SEEK_END)
    content: io.RawIOBase = _Raw(file)
    if syntax == DeflatedExplicitVRLittleEndian:
        limit = min(max_bytes, max(_INFLATED_ALWAYS, _INFLATED_RATIO * (size - start)))
        size = _inflated_size(file, start, limit)
        content, start = _Inflated(file, start), 0
    walk = _Walk(content, size, implicit=syntax.is_implicit_VR, little=syntax.is_little_endian)
    header = Header(walk.run(start), syntax.is_implicit_VR, syntax.is_little_endian)
    for keyword in _UIDS:
        value = header.text(keyword)
        if not is_uid(value):
            raise NotUnderstoodError(f"{keyword} is {'missing' if not value else 'malformed'}")
    return header


def truncation(path: Path) -> str:
    """Say why the data set of a DICOM file is not complete; empty if it is.

    pydicom reads a truncated file without an error. A file that is unusual in another way is not judged.
    """
    with path.open("rb") as file:
        start = content_start(file)
        size = file.seek(0, io.SEEK_END)
        syntax = UID(str(dcmread(path, specific_tags=[], stop_before_pixels=True).file_meta.TransferSyntaxUID))
        if start == 0 or not syntax.is_transfer_syntax or syntax == DeflatedExplicitVRLittleEndian:
            return ""
        try:
            _Walk(_Raw(file), size, implicit=syntax.is_implicit_VR, little=syntax.is_little_endian).run(start)
        except NotUnderstoodError as error:
            return error.what
    return ""


def _inflated_size(file: IO[bytes], start: int, limit: int) -> int:
    """Inflate a data set without keeping it, and return its size."""
    inflated = _Inflated(file, start)
    if (size := inflated.seek(limit + 1)) > limit:
        raise NotUnderstoodError(f"the deflated data set inflates to more than {limit} bytes")
    return size


class _Walk:
    """One pass over the elements of a data set; it only ever reads on."""

    def __init__(self, content: io.RawIOBase, size: int, *, implicit: bool, little: bool) -> None:
        self._reader = io.BufferedReader(content, 65_536)
        self._size, self._implicit = size, implicit
        order = "<" if little else ">"
        self._tag_and_length = struct.Struct(f"{order}HHL").unpack
        self._tag_and_vr = struct.Struct(f"{order}HH2sH").unpack
        self._long_length = struct.Struct(f"{order}L").unpack
        # The sequences and items around the next element, outermost first; empty in the data set itself.
        self._around: list[tuple[bool, bool]] = []  # (whether it is a sequence, whether its content is implicit VR)
        self._found: dict[int, tuple[str | None, bytes]] = {}

    def run(self, start: int) -> dict[int, tuple[str | None, bytes]]:
        at = start
        for _ in range(_MOST_ELEMENTS):
            if not self._around and at == self._size:
                return self._found
            self._reader.seek(at)
            head = self._reader.read(8)
            if len(head) < 8:
                if not self._around and not any(head):  # a few zero bytes of padding
                    return self._found
                raise NotUnderstoodError(f"the data set is truncated at byte {at - start}")
            at += self._item(head) if self._around and self._around[-1][0] else self._element(head)
            if at > self._size:
                raise NotUnderstoodError(f"the data set is truncated: {at - self._size} bytes are missing")
        raise NotUnderstoodError(f"more than {_MOST_ELEMENTS} data elements")

    def _item(self, head: bytes) -> int:
        group, element, length = self._tag_and_length(head)
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            self._around.pop()
            return 8
        if tag != _ITEM:
            raise NotUnderstoodError(f"({group:04X},{element:04X}) in place of an item of a sequence")
        if length != _UNDEFINED:
            return 8 + int(length)
        self._enter(sequence=False, implicit=self._around[-1][1])
        return 8

    def _element(self, head: bytes) -> int:
        implicit = self._around[-1][1] if self._around else self._implicit
        group, element, length = self._tag_and_length(head)
        tag, taken = group << 16 | element, 8
        if tag == _ITEM_END and self._around:
            self._around.pop()
            return 8
        if group == 0xFFFE:
            raise NotUnderstoodError(f"({group:04X},{element:04X}) outside a sequence")
        vr: str | None = None
        if not implicit and head[4:6].isalpha() and head[4:6].isupper():
            _, _, code, length = self._tag_and_vr(head)
            vr = code.decode()
            if code in _LONG_VRS:
                rest = self._reader.read(4)
                if len(rest) < 4:
                    raise NotUnderstoodError("the data set is truncated in its last element")
                (length,), taken = self._long_length(rest), 12
        if length == _UNDEFINED:
            # PS3.5 6.2.2: the content of a UN of undefined length is implicit VR.
            self._enter(sequence=True, implicit=implicit or vr is None or vr == "UN")
            return taken
        if not self._around and tag in _WANTED and length <= _LONGEST_VALUE:
            self._found[tag] = vr, self._reader.read(length)
        return taken + int(length)

    def _enter(self, *, sequence: bool, implicit: bool) -> None:
        if len(self._around) >= _DEEPEST:
            raise NotUnderstoodError(f"sequences nested deeper than {_DEEPEST}")
        self._around.append((sequence, implicit))


class _Raw(io.RawIOBase):
    """A file as a raw stream that leaves it open: closing the buffer above closes only this."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any, /) -> int:
        piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class _Inflated(_Raw):
    """A deflated data set, inflated as it is read; seeking skips forwards only."""

    def __init__(self, file: IO[bytes], start: int) -> None:
        super().__init__(file)
        file.seek(start)
        self._inflater, self._at = zlib.decompressobj(-zlib.MAX_WBITS), 0

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence != io.SEEK_SET or offset < self._at:
            raise io.UnsupportedOperation("a deflated data set is read forwards only")
        while self._at < offset and self._next(min(offset - self._at, 2**20)):
            pass
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        piece = self._next(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _next(self, most: int) -> bytes:
        """Inflate some bytes; empty at the end."""
        while not self._inflater.eof:
            raw = self._inflater.unconsumed_tail or self._file.read(65_536)
            try:
                piece = self._inflater.decompress(raw, most)
            except zlib.error as error:
                raise NotUnderstoodError("the data set is not deflated") from error
            self._at += len(piece)
            if piece:
                return piece
            if not raw:
                raise NotUnderstoodError("the deflated data set is truncated")
        return b""
