"""How do the parts of a WADO-RS answer become instances? (multipart/related, RFC 2387; PS3.18 8.7.3)

Each part is a DICOM file (PS3.10): preamble, file meta information, data set. The data set goes straight to disk, and
is filed when the part is whole.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from email.message import Message
from io import BytesIO
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from node.archive import DiskFullError, IncomingFile
from node.filing import KEPT_ASIDE, SUCCESS, Arrival, Filing

_PREFIX = 128 + 4 + 12  # preamble, DICM, group length
_GROUP_LENGTH = b"DICM\x02\x00\x00\x00UL\x04\x00"
_LONGEST_META = 65_536


class PartsError(Exception):
    """The answer is not what it should be; the text says how."""


@dataclass(frozen=True)
class Delivered:
    """How many parts came: filed, kept aside though understood, refused."""

    filed: int = 0
    aside: int = 0
    refused: int = 0

    @property
    def parts(self) -> int:
        """All of them."""
        return self.filed + self.aside + self.refused


class Reader:
    """Reads one answer, piece by piece, and files its parts.

    Parameters
    ----------
    content_type : str
        Of the answer; it names the boundary between the parts.
    filing : Filing
        Where instances are filed.
    address : str
        The service, as it is noted with each instance.

    Raises
    ------
    PartsError
        Now or while reading: the answer is not multipart, is malformed, or is cut off.
    """

    def __init__(self, content_type: str, filing: Filing, address: str) -> None:
        self._filing, self._address = filing, address
        self._association = f"wado-rs/{secrets.token_hex(8)}"
        self._series: set[str] = set()
        self._part: _Part | None = None
        self.delivered = Delivered()
        callbacks = {"on_part_begin": self._begin, "on_part_data": self._data, "on_part_end": self._end_part}
        self._parser = MultipartParser(_boundary(content_type), callbacks)  # type: ignore[arg-type]
        self._whole = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Note that nothing more comes, as the end of an association does."""
        if self._part is not None:
            self._part.discard()
        if self._series:
            self._filing.note_end(self._series, self._association, whole=self._whole)

    def write(self, piece: bytes) -> None:
        """Take the next piece of the answer."""
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise PartsError(f"a malformed answer ({error})") from error

    def end(self) -> None:
        """Say that this was all."""
        try:
            self._parser.finalize()
        except MultipartParseError as error:
            raise PartsError("the answer is cut off") from error
        if self._part is not None:
            raise PartsError("the answer is cut off in one of its parts")
        self._whole = True

    def _begin(self) -> None:
        self._part = _Part(self._filing, self._address, self._association)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part is not None:
            self._part.write(memoryview(data)[start:end])

    def _end_part(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        status, series = part.file()
        one = Delivered(
            filed=status == SUCCESS, aside=status == KEPT_ASIDE, refused=status not in (SUCCESS, KEPT_ASIDE)
        )
        had = self.delivered
        self.delivered = Delivered(had.filed + one.filed, had.aside + one.aside, had.refused + one.refused)
        if series:
            self._series.add(series)


class _Part:
    """One part: a DICOM file on its way to disk."""

    def __init__(self, filing: Filing, address: str, association: str) -> None:
        self._filing, self._address, self._association = filing, address, association
        self._head = bytearray()
        self._meta: FileMetaDataset | None = None
        self._incoming: IncomingFile | None = None
        self._hopeless = False

    def write(self, data: memoryview) -> None:
        if self._incoming is not None:
            self._incoming.write(data)
            if self._incoming.size > self._filing.max_instance_bytes:
                self._hopeless = True
                self.discard()
        elif not self._hopeless:
            self._head += data
            self._open()

    def _open(self) -> None:
        """Open the file for the data set, once the file meta information is here."""
        if len(self._head) < _PREFIX:
            return
        length = int.from_bytes(self._head[_PREFIX - 4 : _PREFIX], "little")
        if self._head[128 : _PREFIX - 4] != _GROUP_LENGTH or length > _LONGEST_META:
            self._hopeless = True
            return
        if len(self._head) < _PREFIX + length:
            return
        try:
            self._meta = meta = dcmread(BytesIO(bytes(self._head[: _PREFIX + length]))).file_meta
            names = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID
            self._incoming = self._filing.open(*(str(name) for name in names))
        except DiskFullError as error:
            raise PartsError(str(error)) from error
        except Exception:  # whatever strange bytes make pydicom raise
            self._hopeless = True
            return
        self._incoming.write(memoryview(bytes(self._head))[_PREFIX + length :])
        self._head.clear()

    def file(self) -> tuple[int | None, str]:
        """File it; its status, none if it could not even be opened, and its series.

        Raises
        ------
        PartsError
            If there is no disk for it, nor for any other.
        """
        if self._incoming is None or self._meta is None:
            return None, ""
        arrival = Arrival(
            sop_class_uids=(str(self._meta.MediaStorageSOPClassUID),),
            sop_instance_uid=str(self._meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(self._meta.TransferSyntaxUID),
            calling_ae="",
            peer=urlsplit(self._address).hostname or "",
            association=self._association,
            asked_for=True,
        )
        try:
            filed = self._filing.file(self._incoming, arrival)
        except DiskFullError as error:
            raise PartsError(str(error)) from error
        finally:
            self.discard()
        return filed.status, filed.series_instance_uid

    def discard(self) -> None:
        """Remove what was not filed."""
        if self._incoming is not None:
            self._incoming.discard()
            self._incoming = None


def _boundary(content_type: str) -> bytes:
    """The boundary that an answer names."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/related" or not boundary:
        raise PartsError(f"an answer of type {content_type[:80] or 'unknown'} instead of multipart/related")
    return boundary.encode("latin-1", "replace")
