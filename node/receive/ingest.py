"""How does an object that was written to disk become an instance in the archive and the ledger?

Every object is stored here, whether it arrives by C-STORE, STOW-RS or WADO-RS. Its header is read, it is made durable
in the archive, then entered in the ledger; an object that cannot be an instance goes to quarantine. The results are the
statuses of the storage service, see :mod:`node.receive.receiver`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID

from node.archive import Archive, IncomingFile, StoredFile, TooLargeError
from node.ledger import Ledger, NewInstance, StorageOutcome

from .header import Header, NotUnderstoodError, read_header
from .same_image import ImageComparison

_TEXTS = {
    "sop_class_uid": "SOPClassUID",
    "series_instance_uid": "SeriesInstanceUID",
    "study_instance_uid": "StudyInstanceUID",
    "patient_id": "PatientID",
    "issuer_of_patient_id": "IssuerOfPatientID",
    "patient_name": "PatientName",
    "patient_birth_date": "PatientBirthDate",
    "patient_sex": "PatientSex",
    "accession_number": "AccessionNumber",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "study_description": "StudyDescription",
    "referring_physician": "ReferringPhysicianName",
    "modality": "Modality",
    "series_description": "SeriesDescription",
    "manufacturer": "Manufacturer",
    "body_part": "BodyPartExamined",
    "station_name": "StationName",
    "institution": "InstitutionName",
}
"""Fields of a :class:`NewInstance` that hold a value of the header as text."""

SUCCESS, CONFLICT, OUT_OF_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0xB000, 0xA700, 0xA900, 0xC000
PROCESSING_FAILURE = 0x0110
SOP_CLASS_NOT_SUPPORTED, TRANSFER_SYNTAX_NOT_SUPPORTED = 0x0122, 0xC122  # PS3.18 table I.2-2
_OUTCOMES = {
    OUT_OF_RESOURCES: "no_resources",
    CONFLICT: "conflict",
    MISMATCH: "mismatch",
    NOT_UNDERSTOOD: "not_understood",
    PROCESSING_FAILURE: "node_fault",
    SOP_CLASS_NOT_SUPPORTED: "unsupported",
    TRANSFER_SYNTAX_NOT_SUPPORTED: "unsupported",
}


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What the sender states about an object outside its data set, not yet checked.

    Parameters
    ----------
    sop_class_uids : tuple of str
        Every SOP class stated: by the request, the presentation context, or the file meta information.
    association : str
        Name of the association or transfer in the ledger.
    requested : bool or None
        Whether the sender says that the node requested the object; ``None``: it does not say.
    study_instance_uid : str
        The study that the sender names; empty if it names none.
    """

    sop_class_uids: tuple[str, ...]
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    peer: str
    association: str
    requested: bool | None = None
    study_instance_uid: str = ""


@dataclass(frozen=True)
class IngestResult:
    """Status of the storage service for an object, and the reason if it is not success."""

    status: int
    why: str = ""
    series_instance_uid: str = ""
    new: bool = False


def outcome_of(status: int, *, new: bool) -> str:
    """What the metrics call this answer."""
    return _OUTCOMES.get(status, "stored" if new else "repeated")


@dataclass(frozen=True)
class Ingest:
    """Stores objects.

    Parameters
    ----------
    max_instance_bytes : int
        Largest size that a deflated data set may inflate to.
    comparison : ImageComparison
        Recognises a stored image in another encoding.
    """

    ledger: Ledger
    archive: Archive
    max_instance_bytes: int
    comparison: ImageComparison = field(default_factory=ImageComparison)

    def open(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> IncomingFile:
        """Open the file for a data set and write its file meta information (PS3.10 7.1)."""
        incoming = self.archive.incoming()
        incoming.write_header(_file_meta(sop_class_uid, sop_instance_uid, transfer_syntax_uid))
        return incoming

    def store(self, incoming: IncomingFile, arrival: Arrival) -> IngestResult:
        """Store an object that is completely written.

        Raises
        ------
        OutOfResourcesError, OSError, SQLAlchemyError
            It cannot be stored now. Its file may remain without a row; the same object sent again replaces it.
        """
        incoming.check()
        record = _bare_record(arrival, incoming)
        try:
            header = read_header(
                incoming.file, incoming.header_size, arrival.transfer_syntax_uid, self.max_instance_bytes
            )
        except NotUnderstoodError as error:
            return self._quarantine(NOT_UNDERSTOOD, record, incoming, error.what)
        stated = {(sop_class, arrival.sop_instance_uid) for sop_class in arrival.sop_class_uids}
        if stated != {(header.text("SOPClassUID"), header.text("SOPInstanceUID"))}:
            return self._quarantine(MISMATCH, record, incoming, "data set, request and context do not match")
        if arrival.study_instance_uid not in ("", header.text("StudyInstanceUID")):
            return self._quarantine(MISMATCH, record, incoming, "the object belongs to another study than stated")
        record = _full_record(record, header)
        uids = record.sop_instance_uid, record.series_instance_uid, record.study_instance_uid
        with self.archive.study_lock(record.study_instance_uid):
            return self._enter(record, self.archive.store(*uids, incoming), incoming)

    def begin(self, service: str, uid: str) -> str:
        """Name a transfer that the node requests; one of the same study or series that a killed process began ends.

        While that stayed open, the series would wait for images that nobody sends.
        """
        prefix = f"{service}/{uid}/"
        self.ledger.abandon_associations(datetime.now(UTC), prefix)
        return prefix + secrets.token_hex(8)

    def note_end(self, series_uids: Iterable[str], association: str, *, whole: bool) -> None:
        """Record that an association or transfer of these series has ended, and whether it ended properly."""
        self.ledger.release_series(series_uids, datetime.now(UTC), association=association, aborted=not whole)

    def _enter(self, record: NewInstance, stored: StoredFile, incoming: IncomingFile) -> IngestResult:
        """Enter a durable file in the ledger. If that fails the file stays; the same object sent again replaces it."""
        record = replace(record, path=stored.path, size=stored.size, sha256=stored.sha256)
        outcome = self.ledger.record_instance(record)
        if outcome is not StorageOutcome.CONFLICT:
            return IngestResult(SUCCESS, "", record.series_instance_uid, outcome is StorageOutcome.NEW)
        if self._is_stored(record):
            self.archive.remove(stored.path)
            return IngestResult(SUCCESS, "", record.series_instance_uid)
        why = "the SOP Instance UID exists with other content, or the series in another study"
        incoming.file.seek(0)  # not by its path: another sender of the same object may just have removed that
        with self.archive.incoming() as copy:
            while piece := incoming.file.read(2**20):
                copy.write(piece)
            answer = self._quarantine(CONFLICT, record, copy, why)
        self.archive.remove(stored.path)
        return answer

    def _is_stored(self, record: NewInstance) -> bool:
        """Whether the archive has this image in another encoding; the first stays."""
        known = self.ledger.instance(record.sop_instance_uid)
        if known is None or known.removed_at is not None or known.series_instance_uid != record.series_instance_uid:
            return False
        return self.comparison.same(self.archive.path(known.path), self.archive.path(record.path))

    def _quarantine(self, status: int, record: NewInstance, incoming: IncomingFile, why: str) -> IngestResult:
        facts = {
            "at": record.received_at.isoformat(),
            "status": f"{status:04X}",
            "calling_ae": record.calling_ae,
            "peer": record.peer,
            "transfer_syntax_uid": record.transfer_syntax_uid,
            "sop_class_uid": record.sop_class_uid,
            "sop_instance_uid": record.sop_instance_uid,
        }
        try:
            path = self.archive.quarantine(incoming, why, facts).path
        except TooLargeError:
            path, why = "", f"{why}; too large for quarantine"
        self.ledger.quarantine(record, path, why)
        return IngestResult(status, why)


def _bare_record(arrival: Arrival, incoming: IncomingFile) -> NewInstance:
    """The record of an object before its data set is read."""
    return NewInstance(
        sop_instance_uid=arrival.sop_instance_uid[:64],
        sop_class_uid=arrival.sop_class_uids[0][:64],
        transfer_syntax_uid=arrival.transfer_syntax_uid,
        series_instance_uid="",
        study_instance_uid="",
        path="",
        size=incoming.size,
        sha256=incoming.sha256,
        received_at=datetime.now(UTC),
        calling_ae=arrival.calling_ae,
        peer=arrival.peer,
        association=arrival.association,
        requested=arrival.requested,
    )


def _full_record(bare: NewInstance, header: Header) -> NewInstance:
    """Add the values of the data set."""
    texts: dict[str, Any] = dict(zip(_TEXTS, header.texts(tuple(_TEXTS.values())), strict=True))
    orientation, position = slice_place(
        header.numbers("ImageOrientationPatient"), header.numbers("ImagePositionPatient")
    )
    return replace(
        bare,
        sop_instance_uid=header.text("SOPInstanceUID"),
        number_of_frames=max(1, header.integer("NumberOfFrames") or 1),
        orientation=orientation,
        position=position,
        series_number=header.integer("SeriesNumber"),
        **texts,
    )


def slice_place(orientation: Sequence[float] | None, position: Sequence[float] | None) -> tuple[str, float | None]:
    """Find the stack of parallel slices that an image belongs to, and its position in it.

    Parameters
    ----------
    orientation : sequence of 6 floats or None
        Image Orientation (Patient).
    position : sequence of 3 floats or None
        Image Position (Patient), mm.

    Returns
    -------
    key : str
        Equal for parallel slices (their normals agree within about half a degree); empty if no plane is given.
    position : float or None
        Along the normal, mm.
    """
    if orientation is None or position is None or len(orientation) != 6 or len(position) != 3:
        return "", None
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)  # PS3.3 C.7.6.2.1.1
    length = math.hypot(*normal)
    place = sum(n * p for n, p in zip(normal, position, strict=True))
    if not math.isfinite(length) or length < 0.5 or not math.isfinite(place):  # a header may hold any number
        return "", None
    return ",".join(f"{round(n / length, 2) + 0.0:.2f}" for n in normal), place / length  # no negative zero


def _file_meta(sop_class: str, sop_instance: str, syntax: str) -> bytes:
    """Encode preamble and file meta information."""
    uid = sop_instance.encode("ascii", "replace")
    uid += b"\0" * (len(uid) % 2)
    template, at = _file_meta_template(sop_class, syntax, len(uid))
    return template[:at] + uid + template[at + len(uid) :]


@lru_cache(maxsize=256)
def _file_meta_template(sop_class: str, syntax: str, uid_length: int) -> tuple[bytes, int]:
    """Encode file meta information for a SOP Instance UID of this length, and find its place; cached, as it is slow."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength, meta.FileMetaInformationVersion = 0, b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID("1" * uid_length)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(syntax), PYDICOM_IMPLEMENTATION_UID
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_file_meta_info(buffer, meta)
    template = bytes(128) + b"DICM" + buffer.getvalue()
    return template, template.index(b"\x02\x00\x03\x00UI") + 8
