"""What happens to an object that arrives? The DICOM storage SCP: C-ECHO and C-STORE.

An object is written to disk while it arrives, its header is read, it is made durable in the archive and entered in the
ledger; only then is success answered. The answers (PS3.4 table B.2-1):

====== =================================================================================================
0x0000 durable and in the ledger; also for the same object sent again, which is stored once
0xB000 a warning: the SOP Instance UID is known with other content; the first stays, this one is kept aside
0xA700 out of resources: disk under the guard, or the ledger is away; nothing half-written; send it again
0xA900 SOP class or instance of the data set, the request and the presentation context differ; kept aside
0xC000 not understood: cut off, or without usable UIDs; kept aside
0x0110 a fault of the node (PS3.7 annex C); the log says which
====== =================================================================================================

A conflict is answered with a warning, not a failure: the bytes are safe and an administrator sees them, and a sender
that is told of a failure would repeat it for ever and hold up the studies queued behind. 0xB000 is the only warning of
the storage service that does not say something false about the object.

This process imports neither torch nor SimpleITK.
"""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

import pydicom.config
import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom import _config as pynetdicom_config
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from sqlalchemy.exc import SQLAlchemyError

from node.archive import Archive, DiskFullError, IncomingFile, StoredFile, TooLargeError
from node.association import AssociationHooks, BoundedAssociation, BoundedServer
from node.config import ConfigError, Settings
from node.header import Header, NotUnderstoodError, read_header
from node.ledger import InstanceRecord, Ledger, Stored
from node.settling import slice_place
from node.storage_classes import storage_contexts

GRACE_S = 10.0
"""Time that running associations get to finish when the node stops."""

SUCCESS, KEPT_ASIDE, OUT_OF_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0xB000, 0xA700, 0xA900, 0xC000
PROCESSING_FAILURE = 0x0110
_COMMENT_LENGTH = 64  # VR LO

_log = structlog.get_logger(__name__)


class Receiver:
    """The storage SCP of the node.

    Parameters
    ----------
    settings : Settings
        ``ae_title`` and ``receiver`` are read.
    ledger : Ledger
        Where instances are entered.
    archive : Archive
        Where their bytes go.
    """

    def __init__(self, settings: Settings, ledger: Ledger, archive: Archive) -> None:
        self._settings, self._ledger, self._archive = settings, ledger, archive
        self._server: BoundedServer | None = None
        self._prefix = f"{socket.gethostname()[:64]}:{settings.receiver.port}/"  # of its associations in the ledger

    @property
    def port(self) -> int:
        """The port that is listened on."""
        if self._server is None:
            raise RuntimeError("the receiver does not run")
        return int(self._server.server_address[1])

    @property
    def connections(self) -> int:
        """How many peers are connected."""
        return len(self._server.connections) if self._server else 0

    def start(self) -> None:
        """Listen, in threads of its own."""
        for name, removed in (
            ("half-written files removed", self._archive.clean_incoming()),
            ("associations of an earlier run ended", self._ledger.abandon_associations(_now(), self._prefix)),
        ):
            if removed:
                _log.info(name, count=removed)
        limits = self._settings.receiver
        ae = AE(ae_title=self._settings.ae_title)
        ae.maximum_pdu_size = limits.max_pdu_bytes
        ae.require_calling_aet = list(limits.calling_ae_titles)
        ae.require_called_aet = limits.require_called_ae_title
        ae.maximum_associations = 1_000_000  # `BoundedServer.admit` counts; pynetdicom counts the half-open ones, too
        contexts = storage_contexts(limits.extra_sop_classes)
        try:
            self._server = BoundedServer(
                ae,
                (limits.host, limits.port),
                self._settings.ae_title,
                contexts,
                settings=limits,
                hooks=AssociationHooks(self._open_incoming, self._association_ended),
                evt_handlers=[(evt.EVT_C_STORE, self._handle_store), (evt.EVT_C_ECHO, lambda _: SUCCESS)],
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen ({error.strerror or error})",
                where=f"receiver: {limits.host} port {limits.port}",
                do="set receiver.port and receiver.host to an address that is free",
            ) from error
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="receiver", daemon=True).start()
        _log.info("receiver listens", ae_title=self._settings.ae_title, host=limits.host, port=self.port)

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Listen no more, let associations finish for `grace_s` seconds, then abort them."""
        if self._server is not None:
            self._server.stop(grace_s)
            _log.info("receiver stopped")
        self._server = None

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(grace_s=0)

    def _open_incoming(self, association: Any, context_id: int, request: C_STORE) -> IncomingFile:
        """Open the file for a data set, with the file meta information (PS3.10 7.1) that the request implies."""
        syntax = association._accepted_cx[context_id].transfer_syntax[0]
        incoming = self._archive.incoming()
        incoming.write_header(_file_meta(str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID), syntax))
        return incoming

    def _handle_store(self, event: evt.Event) -> Dataset:
        association = cast(BoundedAssociation, event.assoc)
        try:
            status, why = self._store(association, event)
        except DiskFullError as error:
            status, why = OUT_OF_RESOURCES, error.what
        except (SQLAlchemyError, OSError) as error:
            status, why = OUT_OF_RESOURCES, f"the node cannot store now ({type(error).__name__})"
        except Exception:  # a fault of ours must not look like one of the object's
            _log.error("failed on an object", association=association.identity, exc_info=True)
            status, why = PROCESSING_FAILURE, "the node failed on this object"
        if status != SUCCESS:
            _log.warning(
                "not stored",
                status=f"{status:04X}",
                why=why,
                calling_ae=association.calling_ae,
                peer=association.peer,
                sop_instance_uid=str(cast(Any, event.request).AffectedSOPInstanceUID),
            )
        answer = Dataset()
        answer.Status = status
        if why:
            answer.ErrorComment = why[:_COMMENT_LENGTH]
        return answer

    def _store(self, association: BoundedAssociation, event: evt.Event) -> tuple[int, str]:
        """Store the object of a C-STORE request; the status to answer, and why."""
        request, incoming = cast(Any, event.request), association.dimse.incoming
        if incoming is None:
            return NOT_UNDERSTOOD, "a request without a data set"
        incoming.check()
        record = self._bare_record(association, event, incoming)
        limit = self._settings.receiver.max_instance_bytes
        try:
            header = read_header(incoming.file, incoming.header_size, event.context.transfer_syntax, limit)
        except NotUnderstoodError as error:
            return self._keep_aside(NOT_UNDERSTOOD, record, incoming, error.what)
        claimed = (request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, event.context.abstract_syntax)
        sop_class = header.text("SOPClassUID")
        if claimed != (sop_class, header.text("SOPInstanceUID"), sop_class):
            return self._keep_aside(MISMATCH, record, incoming, "data set, request and context do not match")
        record = _full_record(record, header)
        uids = record.sop_instance_uid, record.series_instance_uid, record.study_instance_uid
        stored = self._archive.store(*uids, incoming)
        return self._enter(association, record, stored)

    def _enter(self, association: BoundedAssociation, record: InstanceRecord, stored: StoredFile) -> tuple[int, str]:
        """Enter a durable file in the ledger. If that fails the file stays: sent again, it is the same file."""
        record = replace(record, path=stored.path, size=stored.size, sha256=stored.sha256)
        verdict = self._ledger.record_instance(record)
        if verdict is Stored.CONFLICT:
            why = "the SOP Instance UID is known with other content, or the series in another study"
            with self._archive.path(stored.path).open("rb") as file, self._archive.incoming() as copy:
                while piece := file.read(2**20):
                    copy.write(piece)
                answer = self._keep_aside(KEPT_ASIDE, record, copy, why)
            self._archive.remove(stored.path)
            return answer
        association.series.add(record.series_instance_uid)
        association.stored += verdict is Stored.NEW
        return SUCCESS, ""

    def _keep_aside(self, status: int, record: InstanceRecord, incoming: IncomingFile, why: str) -> tuple[int, str]:
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
            path = self._archive.quarantine(incoming, why, facts).path
        except TooLargeError:
            path, why = "", f"{why}; too large to be kept"
        self._ledger.quarantine(record, path, why)
        return status, why

    def _bare_record(self, association: BoundedAssociation, event: evt.Event, incoming: IncomingFile) -> InstanceRecord:
        """What is known of an object without its data set: what the request says, which nobody has checked."""
        request = cast(Any, event.request)
        return InstanceRecord(
            sop_instance_uid=str(request.AffectedSOPInstanceUID)[:64],
            sop_class_uid=str(request.AffectedSOPClassUID)[:64],
            transfer_syntax_uid=str(event.context.transfer_syntax),
            series_instance_uid="",
            study_instance_uid="",
            path="",
            size=incoming.size,
            sha256=incoming.sha256,
            received_at=_now(),
            calling_ae=association.calling_ae,
            peer=association.peer,
            association=self._prefix + association.identity,
        )

    def _association_ended(self, association: BoundedAssociation) -> None:
        if not association.series:
            return
        try:
            self._ledger.release_series(
                association.series,
                _now(),
                association=self._prefix + association.identity,
                aborted=not association.is_released,
            )
        except SQLAlchemyError as error:  # the series then settle after the longer silence
            _log.error(
                "end of an association not entered", association=association.identity, error=type(error).__name__
            )


def _now() -> datetime:
    return datetime.now(UTC)


def _file_meta(sop_class: str, sop_instance: str, syntax: str) -> bytes:
    """Preamble and file meta information."""
    uid = sop_instance.encode("ascii", "replace")
    uid += b"\0" * (len(uid) % 2)
    template, at = _file_meta_template(sop_class, syntax, len(uid))
    return template[:at] + uid + template[at + len(uid) :]


@lru_cache(maxsize=256)
def _file_meta_template(sop_class: str, syntax: str, uid_length: int) -> tuple[bytes, int]:
    """File meta information for a SOP Instance UID of some length, and where it goes; encoding it takes a while."""
    meta = create_file_meta(
        sop_class_uid=UID(sop_class), sop_instance_uid=UID("1" * uid_length), transfer_syntax=UID(syntax)
    )
    template = bytes(128) + b"DICM" + encode_file_meta(meta)
    return template, template.index(b"\x02\x00\x03\x00UI") + 8


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


def run_receiver(settings: Settings, ledger: Ledger | None = None, archive: Archive | None = None) -> None:
    """Receive until SIGTERM or SIGINT, then let running associations finish and return.

    Parameters
    ----------
    settings : Settings
        All settings.
    ledger, archive : optional
        Those of the settings by default.
    """
    from node.logs import set_up_logging

    set_up_logging(settings)
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"  # its handlers format every PDU for a log nobody reads
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings quote patients' data
    if ledger is None:
        ledger = Ledger(settings.ledger_url)
        ledger.upgrade()
    archive = archive or Archive(settings.data_dir, settings.archive.free_disk_mb)
    wake = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: wake.set())
    receiver = Receiver(settings, ledger, archive)
    receiver.start()
    try:
        wake.wait()
    finally:
        receiver.stop()
        with suppress(SQLAlchemyError):
            ledger.close()
