"""How do the parts of a multipart message become instances? (RFC 2387; PS3.18 8.6.1.2.1)

STOW-RS requests and WADO-RS responses are such messages. Each part is a DICOM file (PS3.10): preamble, file meta
information, data set. The data set goes straight to disk, and is stored when the part is complete, so a message of any
size needs little memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser

from node.archive import IncomingFile

from .ingest import NOT_UNDERSTOOD, OUT_OF_RESOURCES, Arrival, Ingest, IngestResult

_PREFIX = 128 + 4 + 12  # preamble, DICM, group length
_GROUP_LENGTH = b"DICM\x02\x00\x00\x00UL\x04\x00"
_LONGEST_META = 65_536


class PartsError(Exception):
    """The message is malformed; the text says how."""


class MediaTypeError(PartsError):
    """The message is no multipart message."""


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Who sends a message, as its instances record it; see :class:`node.receive.ingest.Arrival`."""

    peer: str
    association: str
    calling_ae: str = ""
    requested: bool | None = None
    study_instance_uid: str = ""


@dataclass(frozen=True)
class PartResult:
    """What became of a part; a part that is no DICOM file has no UIDs.

    Parameters
    ----------
    too_large : bool
        It exceeds the largest size of an instance; the rest of it is not read.
    new : bool
        It is stored, and was not before.
    """

    status: int
    why: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    too_large: bool = False
    new: bool = False


class PartsReader:
    """Reads one multipart message, piece by piece, and stores its parts.

    Parameters
    ----------
    content_type : str
        Content type of the message; it names the boundary between the parts.
    ingest : Ingest
        Opens the files, limits their size, and records the end of the message.
    sender : Sender
        Who sends it.
    store : callable
        Stores a part that is complete, like :meth:`Ingest.store`.
    record : callable
        Is told what became of each part.
    refuse : callable, optional
        (SOP class, transfer syntax) → why the node accepts no such object; ``None`` if it does.

    Raises
    ------
    PartsError
        Now or while reading: the message is not multipart, is malformed, or is truncated.
    """

    def __init__(
        self,
        content_type: str,
        ingest: Ingest,
        sender: Sender,
        store: Callable[[IncomingFile, Arrival], IngestResult],
        record: Callable[[PartResult], None],
        refuse: Callable[[str, str], IngestResult | None] = lambda _sop_class, _syntax: None,
    ) -> None:
        self._ingest, self._sender, self._store, self._record, self._refuse = ingest, sender, store, record, refuse
        self._series: set[str] = set()
        self._part: _Part | None = None
        self._is_ended = self._whole = False
        callbacks = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end_part,
            "on_end": self._end_message,
        }
        try:
            self._parser = MultipartParser(boundary_of(content_type), callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise PartsError("the boundary is too long") from error

    def close(self) -> None:
        """Remove a part that is not complete, and record the end of the message, as of an association."""
        self._drop()
        if self._series:
            self._ingest.note_end(self._series, self._sender.association, whole=self._whole)

    def write(self, piece: bytes) -> None:
        """Process the next piece of the message."""
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise PartsError("malformed multipart message") from error

    def end(self) -> None:
        """Check that the message is complete."""
        if self._part is not None:
            raise PartsError("the message is truncated in one of its parts")
        if not self._is_ended:  # the parser's own `finalize` checks nothing
            raise PartsError("the message is truncated")
        self._whole = True

    def _end_message(self) -> None:
        self._is_ended = True

    def _begin(self) -> None:
        self._part = _Part(self._ingest, self._refuse)

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part is None:
            return
        if (result := part.write(memoryview(data)[start:end])) is not None:
            self._drop()  # the rest of it does not matter
            self._record(result)

    def _end_part(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        if part.incoming is None or part.meta is None:
            self._record(_NO_FILE)
            return
        try:
            result = self._store(part.incoming, self._arrival(part.meta))
        finally:
            part.discard()
        if result.series_instance_uid:
            self._series.add(result.series_instance_uid)
        self._record(part.outcome(result))

    def _arrival(self, meta: FileMetaDataset) -> Arrival:
        sender = self._sender
        return Arrival(
            sop_class_uids=(str(meta.MediaStorageSOPClassUID),),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            calling_ae=sender.calling_ae,
            peer=sender.peer,
            association=sender.association,
            requested=sender.requested,
            study_instance_uid=sender.study_instance_uid,
        )

    def _drop(self) -> None:
        if self._part is not None:
            self._part.discard()
            self._part = None


_NO_FILE = PartResult(NOT_UNDERSTOOD, "a part is not a DICOM file")


class _Part:
    """One part: a DICOM file that is being received."""

    def __init__(self, ingest: Ingest, refuse: Callable[[str, str], IngestResult | None]) -> None:
        self._ingest, self._refuse = ingest, refuse
        self._head = bytearray()
        self.meta: FileMetaDataset | None = None
        self.incoming: IncomingFile | None = None

    def write(self, data: memoryview) -> PartResult | None:
        """Take the next piece; gives a result if it is clear already that the part cannot be stored."""
        if self.incoming is None:
            self._head += data
            if (result := self._open()) is not None:
                return result
        else:
            self.incoming.write(data)
        limit = self._ingest.max_instance_bytes
        if self.incoming is not None and self.incoming.size > limit:
            return self.outcome(IngestResult(OUT_OF_RESOURCES, f"larger than {limit} bytes"), too_large=True)
        return None

    def _open(self) -> PartResult | None:
        """Open the file for the data set once the file meta information is complete."""
        if len(self._head) < _PREFIX:
            return None
        length = int.from_bytes(self._head[_PREFIX - 4 : _PREFIX], "little")
        if self._head[128 : _PREFIX - 4] != _GROUP_LENGTH or length > _LONGEST_META:
            return _NO_FILE
        if len(self._head) < _PREFIX + length:
            return None
        try:
            self.meta = meta = dcmread(BytesIO(bytes(self._head[: _PREFIX + length]))).file_meta
            names = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID
            sop_class, sop_instance, syntax = (str(name) for name in names)
        except Exception:  # pydicom raises many types on malformed bytes
            return _NO_FILE
        if (refused := self._refuse(sop_class, syntax)) is not None:
            return self.outcome(refused)
        try:
            self.incoming = self._ingest.open(sop_class, sop_instance, syntax)
        except Exception:  # malformed UIDs, which pydicom does not encode
            return _NO_FILE
        self.incoming.write(memoryview(bytes(self._head))[_PREFIX + length :])
        self._head.clear()
        return None

    def outcome(self, result: IngestResult, *, too_large: bool = False) -> PartResult:
        """The result of this part, with the UIDs that its file meta information states."""
        meta = self.meta
        sop_class = "" if meta is None else str(meta.MediaStorageSOPClassUID)
        sop_instance = "" if meta is None else str(meta.MediaStorageSOPInstanceUID)
        return PartResult(result.status, result.why, sop_class, sop_instance, too_large, result.new)

    def discard(self) -> None:
        """Remove what was not stored."""
        if self.incoming is not None:
            self.incoming.discard()
            self.incoming = None


def boundary_of(content_type: str) -> bytes:
    """The boundary named by a content type.

    Raises
    ------
    MediaTypeError
        It is not that of a multipart message.
    PartsError
        It names no boundary.
    """
    message = Message()
    message["Content-Type"] = content_type
    if message.get_content_type() != "multipart/related":
        raise MediaTypeError(f"type {content_type[:80] or 'unknown'} instead of multipart/related")
    boundary = message.get_boundary()
    if not boundary:
        raise PartsError("the content type names no boundary")
    return boundary.encode("latin-1", "replace")
