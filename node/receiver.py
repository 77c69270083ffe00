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
from datetime import UTC, datetime
from typing import Any, cast

import pydicom.config
import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom import _config as pynetdicom_config
from pynetdicom.dimse_primitives import C_STORE
from sqlalchemy.exc import SQLAlchemyError

from node.archive import Archive, DiskFullError, IncomingFile
from node.association import AssociationHooks, BoundedAssociation, BoundedServer
from node.config import ConfigError, Settings
from node.filing import NOT_UNDERSTOOD, OUT_OF_RESOURCES, SUCCESS, Arrival, Filed, Filing
from node.ledger import Ledger
from node.storage_classes import storage_contexts

GRACE_S = 10.0
"""Time that running associations get to finish when the node stops."""

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
        self._filing = Filing(ledger, archive, settings.receiver.max_instance_bytes)
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
        ae.require_calling_aet = self._callers()
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

    def _callers(self) -> list[str]:
        """Who may call: whoever is named, and the PACS that earlier studies are asked of; empty: anyone."""
        named = self._settings.receiver.calling_ae_titles
        asked = self._settings.priors.dicom
        return [*named, asked.ae_title] if named and asked is not None else list(named)

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
        """Open the file for a data set that is about to arrive."""
        syntax = association._accepted_cx[context_id].transfer_syntax[0]
        return self._filing.open(str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID), syntax)

    def _handle_store(self, event: evt.Event) -> Dataset:
        association = cast(BoundedAssociation, event.assoc)
        try:
            filed = self._store(association, event)
        except DiskFullError as error:
            filed = Filed(OUT_OF_RESOURCES, error.what)
        except (SQLAlchemyError, OSError) as error:
            filed = Filed(OUT_OF_RESOURCES, f"the node cannot store now ({type(error).__name__})")
        except Exception:  # a fault of ours must not look like one of the object's
            _log.error("failed on an object", association=association.identity, exc_info=True)
            filed = Filed(PROCESSING_FAILURE, "the node failed on this object")
        if filed.status != SUCCESS:
            _log.warning(
                "not stored",
                status=f"{filed.status:04X}",
                why=filed.why,
                calling_ae=association.calling_ae,
                peer=association.peer,
                sop_instance_uid=str(cast(Any, event.request).AffectedSOPInstanceUID),
            )
        answer = Dataset()
        answer.Status = filed.status
        if filed.why:
            answer.ErrorComment = filed.why[:_COMMENT_LENGTH]
        return answer

    def _store(self, association: BoundedAssociation, event: evt.Event) -> Filed:
        """Store the object of a C-STORE request."""
        request, incoming = cast(Any, event.request), association.dimse.incoming
        if incoming is None:
            return Filed(NOT_UNDERSTOOD, "a request without a data set")
        originator = str(request.MoveOriginatorApplicationEntityTitle or "").strip()
        arrival = Arrival(
            sop_class_uids=(str(request.AffectedSOPClassUID), str(event.context.abstract_syntax)),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            calling_ae=association.calling_ae,
            peer=association.peer,
            association=self._prefix + association.identity,
            asked_for=originator == self._settings.ae_title if originator else None,
        )
        filed = self._filing.file(incoming, arrival)
        if filed.status == SUCCESS:
            association.series.add(filed.series_instance_uid)
            association.stored += filed.new
        return filed

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
