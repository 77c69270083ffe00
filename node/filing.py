"""How does an object that was written to disk become an instance of the archive and the ledger?

The one way in, whoever brought it: the receiver by C-STORE, or a fetch by WADO-RS. Its header is read, it is made
durable in the archive, then entered in the ledger; what cannot be an instance is kept aside. The verdicts are the
statuses that a storage SCP answers, see :mod:`node.receiver`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID

from node.archive import Archive, IncomingFile, StoredFile, TooLargeError
from node.header import Header, NotUnderstoodError, read_header
from node.ledger import InstanceRecord, Ledger, Stored
from node.settling import slice_place

SUCCESS, KEPT_ASIDE, OUT_OF_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0xB000, 0xA700, 0xA900, 0xC000


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What is said of an object beside its data set, which nobody has checked yet.

    Parameters
    ----------
    sop_class_uids : tuple of str
        Every SOP class it is said to be of: by the request, by the presentation context, by the file meta information.
    association : str
        Names what brought it, in the ledger.
    asked_for : bool or None
        Whether the sender says that the node asked for it; none: it does not say.
    """

    sop_class_uids: tuple[str, ...]
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    peer: str
    association: str
    asked_for: bool | None = None


@dataclass(frozen=True)
class Filed:
    """What became of an object: a status of the storage service, and why it is not success."""

    status: int
    why: str = ""
    series_instance_uid: str = ""
    new: bool = False


@dataclass(frozen=True)
class Filing:
    """Files objects.

    Parameters
    ----------
    max_instance_bytes : int
        Most that a deflated data set may inflate to.
    """

    ledger: Ledger
    archive: Archive
    max_instance_bytes: int

    def open(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> IncomingFile:
        """Open the file for a data set, with the file meta information (PS3.10 7.1) that goes before it."""
        incoming = self.archive.incoming()
        incoming.write_header(_file_meta(sop_class_uid, sop_instance_uid, transfer_syntax_uid))
        return incoming

    def file(self, incoming: IncomingFile, arrival: Arrival) -> Filed:
        """File an object that is wholly written.

        Raises
        ------
        DiskFullError, OSError, SQLAlchemyError
            It cannot be stored now, and is not; if only the ledger is away, the same object may come again.
        """
        incoming.check()
        record = _bare_record(arrival, incoming)
        try:
            header = read_header(
                incoming.file, incoming.header_size, arrival.transfer_syntax_uid, self.max_instance_bytes
            )
        except NotUnderstoodError as error:
            return self._keep_aside(NOT_UNDERSTOOD, record, incoming, error.what)
        said = {(sop_class, arrival.sop_instance_uid) for sop_class in arrival.sop_class_uids}
        if said != {(header.text("SOPClassUID"), header.text("SOPInstanceUID"))}:
            return self._keep_aside(MISMATCH, record, incoming, "data set, request and context do not match")
        record = _full_record(record, header)
        uids = record.sop_instance_uid, record.series_instance_uid, record.study_instance_uid
        return self._enter(record, self.archive.store(*uids, incoming))

    def note_end(self, series_uids: Iterable[str], association: str, *, whole: bool) -> None:
        """Note that what brought these series brings no more, and whether it came to its proper end."""
        self.ledger.release_series(series_uids, datetime.now(UTC), association=association, aborted=not whole)

    def _enter(self, record: InstanceRecord, stored: StoredFile) -> Filed:
        """Enter a durable file in the ledger. If that fails the file stays: sent again, it is the same file."""
        record = replace(record, path=stored.path, size=stored.size, sha256=stored.sha256)
        verdict = self.ledger.record_instance(record)
        if verdict is not Stored.CONFLICT:
            return Filed(SUCCESS, "", record.series_instance_uid, verdict is Stored.NEW)
        why = "the SOP Instance UID is known with other content, or the series in another study"
        with self.archive.path(stored.path).open("rb") as file, self.archive.incoming() as copy:
            while piece := file.read(2**20):
                copy.write(piece)
            answer = self._keep_aside(KEPT_ASIDE, record, copy, why)
        self.archive.remove(stored.path)
        return answer

    def _keep_aside(self, status: int, record: InstanceRecord, incoming: IncomingFile, why: str) -> Filed:
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
            path, why = "", f"{why}; too large to be kept"
        self.ledger.quarantine(record, path, why)
        return Filed(status, why)


def _bare_record(arrival: Arrival, incoming: IncomingFile) -> InstanceRecord:
    """What is known of an object without its data set."""
    return InstanceRecord(
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
        asked_for=arrival.asked_for,
    )


def _full_record(bare: InstanceRecord, header: Header) -> InstanceRecord:
    """Add what the data set says of itself."""
    orientation, position = slice_place(
        header.numbers("ImageOrientationPatient"), header.numbers("ImagePositionPatient")
    )
    return replace(
        bare,
        sop_instance_uid=header.text("SOPInstanceUID"),
        sop_class_uid=header.text("SOPClassUID"),
        series_instance_uid=header.text("SeriesInstanceUID"),
        study_instance_uid=header.text("StudyInstanceUID"),
        number_of_frames=max(1, header.integer("NumberOfFrames") or 1),
        orientation=orientation,
        position=position,
        patient_id=header.text("PatientID"),
        issuer_of_patient_id=header.text("IssuerOfPatientID"),
        patient_name=header.text("PatientName"),
        patient_birth_date=header.text("PatientBirthDate"),
        patient_sex=header.text("PatientSex"),
        accession_number=header.text("AccessionNumber"),
        study_date=header.text("StudyDate"),
        study_time=header.text("StudyTime"),
        study_description=header.text("StudyDescription"),
        referring_physician=header.text("ReferringPhysicianName"),
        modality=header.text("Modality"),
        series_number=header.integer("SeriesNumber"),
        series_description=header.text("SeriesDescription"),
        manufacturer=header.text("Manufacturer"),
        body_part=header.text("BodyPartExamined"),
        station_name=header.text("StationName"),
        institution=header.text("InstitutionName"),
    )


def _file_meta(sop_class: str, sop_instance: str, syntax: str) -> bytes:
    """Preamble and file meta information."""
    uid = sop_instance.encode("ascii", "replace")
    uid += b"\0" * (len(uid) % 2)
    template, at = _file_meta_template(sop_class, syntax, len(uid))
    return template[:at] + uid + template[at + len(uid) :]


@lru_cache(maxsize=256)
def _file_meta_template(sop_class: str, syntax: str, uid_length: int) -> tuple[bytes, int]:
    """File meta information for a SOP Instance UID of some length, and where it goes; encoding it takes a while."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength, meta.FileMetaInformationVersion = 0, b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID("1" * uid_length)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(syntax), PYDICOM_IMPLEMENTATION_UID
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_file_meta_info(buffer, meta)
    template = bytes(128) + b"DICM" + buffer.getvalue()
    return template, template.index(b"\x02\x00\x03\x00UI") + 8
