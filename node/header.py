"""What does an object say of itself, and is it whole? Its header, read without trusting a single length in it.

:func:`read_header` walks the data elements of an encoded data set (PS3.5 chapter 7) once from the first to the last
byte, looking at tags and lengths and stepping over the values. So it needs no memory to speak of, whatever was sent; it
notices a data set that was cut off; and it picks up the few values that the node files objects by. pydicom decodes
those values. Nothing of the pixel data is decoded.
"""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from node.archive import is_uid
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
_LONGEST_VALUE = 65_536  # bytes of one value that is picked up; real ones are far below
_LONGEST_REMEMBERED = 256
_MOST_ELEMENTS = 2_000_000  # an enhanced object of thousands of frames has some hundred thousand
_DEEPEST = 64
_TEXT_LENGTH = 324  # five component groups of PN; everything else is shorter


class NotUnderstoodError(CmbError):
    """The bytes are not a whole data set, or lack the UIDs it would be filed by."""


@dataclass(frozen=True)
class Header:
    """The values of :data:`KEYWORDS` that an object has.

    The four UIDs are there and safe to use in a path.

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
        """Give a value as one line of text; empty if it is absent or cannot be decoded."""
        value = self._value(keyword)
        words = "" if value is None else str(value)
        if not words.isprintable():
            words = "".join(letter for letter in words if letter.isprintable())
        return words[:_TEXT_LENGTH].strip()

    def integer(self, keyword: str) -> int | None:
        """Give a value as a number of 32 bits; None if it is absent or none."""
        try:
            number = int(self._value(keyword))
        except (TypeError, ValueError, OverflowError):
            return None
        return number if abs(number) < 2**31 else None

    def numbers(self, keyword: str) -> tuple[float, ...] | None:
        """Give a multi-valued number; None if it is absent or not numbers."""
        try:
            return tuple(float(number) for number in self._value(keyword))
        except (TypeError, ValueError):
            return None

    def _value(self, keyword: str) -> Any:
        tag = _TAGS[keyword]
        vr, raw = self.raw.get(tag, (None, b""))
        if not raw:
            return None
        _, character_set = self.raw.get(_CHARACTER_SET, (None, b""))
        decode = _decode_again if len(raw) + len(character_set) <= _LONGEST_REMEMBERED else _decode
        return decode(tag, vr, raw, character_set, self.implicit, self.little)


def _decode(tag: int, vr: str | None, raw: bytes, character_set: bytes, implicit: bool, little: bool) -> Any:
    """Decode one value with pydicom; None if it cannot be."""
    try:
        names = character_set.decode("ascii").strip(" \0").split("\\")
        encodings = convert_encodings(names if len(names) > 1 else names[0])
        element = RawDataElement(Tag(tag), vr, len(raw), raw, 0, implicit, little)
        values = Dataset({Tag(tag): element})
        values.set_original_encoding(implicit, little, encodings)
        return values[tag].value
    except Exception:  # pydicom's decoders raise whatever strange bytes make them raise
        return None


# All images of a series say the same of their patient and study.
_decode_again = lru_cache(maxsize=4096)(_decode)


def read_header(file: IO[bytes], start: int, transfer_syntax: str, max_bytes: int) -> Header:
    """Read the header of an encoded data set and check that it is whole.

    Parameters
    ----------
    file : file
        Seekable; the data set reaches from `start` to its end.
    start : int
        Where the data set begins, after any file meta information.
    transfer_syntax : str
        UID of the transfer syntax it is encoded in.
    max_bytes : int
        Most that a deflated data set may inflate to.

    Raises
    ------
    NotUnderstoodError
        It is cut off, is no data set, inflates beyond `max_bytes`, or has no usable UIDs.
    """
    syntax = UID(transfer_syntax)
    if syntax == DeflatedExplicitVRLittleEndian:
        with tempfile.SpooledTemporaryFile(max_size=8 * 2**20) as inflated:
            _inflate(file, start, inflated, max_bytes)
            return read_header(inflated, 0, "1.2.840.10008.1.2.1", max_bytes)
    size = file.seek(0, io.SEEK_END)
    walk = _Walk(file, size, implicit=syntax.is_implicit_VR, little=syntax.is_little_endian)
    header = Header(walk.run(start), syntax.is_implicit_VR, syntax.is_little_endian)
    for keyword in _UIDS:
        value = header.text(keyword)
        if not is_uid(value):
            raise NotUnderstoodError(f"{keyword} is {'missing' if not value else 'not a UID'}")
    return header


def _inflate(file: IO[bytes], start: int, into: IO[bytes], max_bytes: int) -> None:
    """Inflate piece by piece, so that a small bomb (a thousand to one) cannot fill the memory."""
    file.seek(start)
    stream, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while not stream.eof:
            raw = stream.unconsumed_tail or file.read(65_536)
            if not raw:
                raise NotUnderstoodError("the deflated data set is cut off")
            piece = stream.decompress(raw, 2**20)
            total += len(piece)
            if total > max_bytes:
                raise NotUnderstoodError(f"the deflated data set inflates to more than {max_bytes} bytes")
            into.write(piece)
    except zlib.error as error:
        raise NotUnderstoodError("the data set is not deflated") from error


class _Walk:
    """One walk over the elements of a data set."""

    def __init__(self, file: IO[bytes], size: int, *, implicit: bool, little: bool) -> None:
        self._reader = io.BufferedReader(_Raw(file), 65_536)
        self._size, self._implicit = size, implicit
        order = "<" if little else ">"
        self._tag_and_length = struct.Struct(f"{order}HHL").unpack
        self._tag_and_vr = struct.Struct(f"{order}HH2sH").unpack
        self._long_length = struct.Struct(f"{order}L").unpack
        # What surrounds the next element: True a sequence of items, False an item; none: the data set itself.
        self._around: list[tuple[bool, bool]] = []  # (is it a sequence, is its content implicit VR)
        self._found: dict[int, tuple[str | None, bytes]] = {}

    def run(self, start: int) -> dict[int, tuple[str | None, bytes]]:
        at = start
        for _ in range(_MOST_ELEMENTS):
            if not self._around and at == self._size:
                return self._found
            self._reader.seek(at)
            head = self._reader.read(12)
            if len(head) < 8:
                if not self._around and not any(head):  # a few zero bytes of padding
                    return self._found
                raise NotUnderstoodError(f"the data set is cut off at byte {at - start}")
            at += self._item(head) if self._around and self._around[-1][0] else self._element(head, at)
            if at > self._size:
                raise NotUnderstoodError(f"the data set is cut off: {at - self._size} bytes are missing")
        raise NotUnderstoodError(f"more than {_MOST_ELEMENTS} data elements")

    def _item(self, head: bytes) -> int:
        group, element, length = self._tag_and_length(head[:8])
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            self._around.pop()
            return 8
        if tag != _ITEM:
            raise NotUnderstoodError(f"({group:04X},{element:04X}) where an item of a sequence should be")
        if length != _UNDEFINED:
            return 8 + int(length)
        self._enter(sequence=False, implicit=self._around[-1][1])
        return 8

    def _element(self, head: bytes, at: int) -> int:
        implicit = self._around[-1][1] if self._around else self._implicit
        group, element, length = self._tag_and_length(head[:8])
        tag, taken = group << 16 | element, 8
        if tag == _ITEM_END and self._around:
            self._around.pop()
            return 8
        if group == 0xFFFE:
            raise NotUnderstoodError(f"({group:04X},{element:04X}) outside a sequence")
        vr: str | None = None
        if not implicit and head[4:6].isalpha() and head[4:6].isupper():
            _, _, code, length = self._tag_and_vr(head[:8])
            vr = code.decode()
            if code in _LONG_VRS:
                if len(head) < 12:
                    raise NotUnderstoodError("the data set is cut off in its last element")
                (length,), taken = self._long_length(head[8:12]), 12
        if length == _UNDEFINED:
            # PS3.5 6.2.2: what a UN of undefined length holds is implicit VR.
            self._enter(sequence=True, implicit=implicit or vr is None or vr == "UN")
            return taken
        if not self._around and tag in _WANTED and length <= _LONGEST_VALUE:
            self._reader.seek(at + taken)
            self._found[tag] = vr, self._reader.read(length)
        return taken + int(length)

    def _enter(self, *, sequence: bool, implicit: bool) -> None:
        if len(self._around) >= _DEEPEST:
            raise NotUnderstoodError(f"sequences nested deeper than {_DEEPEST}")
        self._around.append((sequence, implicit))


class _Raw(io.RawIOBase):
    """Somebody else's file as a raw stream: closing the buffer above it leaves the file open."""

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
