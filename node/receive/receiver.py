"""What happens to an object that arrives? The DICOM storage SCP: C-ECHO and C-STORE.

An object is written to disk while it arrives, its header is read, it is made durable in the archive and entered in the
ledger; only then the node answers success. The statuses (PS3.4 table B.2-1):

====== =================================================================================================
0x0000 durable and in the ledger; also for the same object sent again, and for the same image in another encoding,
       which are stored once
0xB000 warning: the SOP Instance UID exists with other content; the first stays, this one goes to quarantine
0xA700 out of resources: too little disk, no file descriptor, or no ledger; nothing is stored, send it again
0xA900 SOP class or instance of data set, request and presentation context differ; quarantine
0xC000 cannot understand: truncated, or without usable UIDs; quarantine
0x0110 processing failure: a fault of the node (PS3.7 annex C); the log says which
====== =================================================================================================

A conflict is a warning, not a failure: the object is kept and shown to an administrator, and a sender that gets a
failure would repeat it for ever and delay the studies behind it. 0xB000 is the only warning of the storage service that
does not say something false about the object.

This process imports neither torch nor SimpleITK.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pydicom.config
import structlog
from pynetdicom import AE, evt
from pynetdicom import _config as pynetdicom_config
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext
from sqlalchemy.exc import SQLAlchemyError

from node.archive import Archive, IncomingFile, OutOfResourcesError
from node.ledger import Ledger, TallyBuffer
from node.ledger.metrics import INSTANCES, REFUSALS
from node.processes.process import stop_on_signal
from node.settings import WHO_MAY_SEND, ConfigError, Settings, is_loopback
from node.tls.contexts import ServerContext

from .admission import Admission
from .commitment import CommitmentHandlers
from .connections import AssociationHooks, BoundedAssociation, BoundedServer
from .ingest import (
    NOT_UNDERSTOOD,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SUCCESS,
    Arrival,
    Ingest,
    IngestResult,
    outcome_of,
)
from .presentation_contexts import storage_contexts

GRACE_S = 10.0
"""Time for running associations to finish when the node stops."""

_COMMENT_LENGTH = 64  # VR LO
COUNT_EVERY_S = 5.0
"""Pause between two writes of what was counted for the metrics."""

_log = structlog.get_logger(__name__)


class Receiver:
    """The storage SCP of the node.

    Parameters
    ----------
    settings : Settings
        ``ae_title`` and ``receiver`` are read.
    ledger : Ledger
        Ledger that instances are entered in.
    archive : Archive
        Archive that their files go to.
    """

    def __init__(self, settings: Settings, ledger: Ledger, archive: Archive) -> None:
        self._settings, self._ledger, self._archive = settings, ledger, archive
        self._ingest = Ingest(ledger, archive, settings.receiver.max_instance_bytes)
        self._tallies = TallyBuffer(ledger)
        self._servers: list[BoundedServer] = []
        self._admission = Admission(settings.receiver)
        self._prefix = (
            f"{socket.gethostname()[:64]}:{settings.receiver.port}/"  # of the names of its associations in the ledger
        )

    @property
    def port(self) -> int:
        """The port that it listens on; the one without TLS if there are two."""
        return self._port_of(self._servers[:1])

    @property
    def tls_port(self) -> int:
        """The port for TLS."""
        return self._port_of([server for server in self._servers if server.tls is not None])

    @staticmethod
    def _port_of(servers: Sequence[BoundedServer]) -> int:
        if not servers:
            raise RuntimeError("the receiver is not running, or has no such port")
        return int(servers[0].server_address[1])

    @property
    def connections(self) -> int:
        """Number of connections."""
        return len(self._admission)

    def start(self) -> None:
        """Start to listen, in threads of its own."""
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
        tls = ServerContext(limits.tls) if limits.tls is not None else None
        if tls is None or not tls.settings.only:
            self._listen(ae, limits.port, "receiver.port", None)
        if tls is not None:
            self._listen(ae, tls.settings.port, "receiver.tls.port", tls)
        if is_loopback(limits.listen_host):
            _log.warning("only this machine can send", do=WHO_MAY_SEND)

    def _listen(self, ae: AE, port: int, setting: str, tls: ServerContext | None) -> None:
        """Listen on one port, in a thread of its own."""
        limits = self._settings.receiver
        commitment = CommitmentHandlers(self._ledger, self._settings.dicom_peers)
        try:
            server = BoundedServer(
                ae,
                (limits.listen_host, port),
                self._settings.ae_title,
                storage_contexts(limits.extra_sop_classes),
                settings=limits,
                hooks=AssociationHooks(
                    self._open_incoming, self._answer_store, self._association_ended, self._count_refusal
                ),
                admission=self._admission,
                tls=tls,
                evt_handlers=[
                    (evt.EVT_C_ECHO, lambda _: SUCCESS),
                    (evt.EVT_N_EVENT_REPORT, commitment.record_report),
                    (evt.EVT_N_ACTION, commitment.record_request),
                ],
            )
        except OSError as error:
            self.stop(grace_s=0)
            raise ConfigError(
                f"cannot listen ({error.strerror or error})",
                where=f"receiver: {limits.listen_host} port {port}",
                do=f"set receiver.host and {setting} to a free address",
            ) from error
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.1,), name="receiver", daemon=True).start()
        address = {"host": limits.listen_host, "port": server.server_address[1], "tls": tls is not None}
        _log.info("receiver listens", ae_title=self._settings.ae_title, **address)

    def _callers(self) -> list[str]:
        """AE titles that may call: those of the settings, and of systems whose calls the node expects; empty: any."""
        named = self._settings.receiver.calling_ae_titles
        return list(dict.fromkeys([*named, *self._settings.expected_callers])) if named else []

    def stop(self, grace_s: float = GRACE_S) -> None:
        """Stop listening; give associations `grace_s` seconds to end, then abort them."""
        deadline = time.monotonic() + grace_s
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        for server in servers:
            server.end_associations(deadline)
        self.write_tallies()
        if servers:
            _log.info("receiver stopped")

    def write_tallies(self) -> None:
        """Write what was counted for the metrics."""
        self._tallies.flush()

    def _count_refusal(self, reason: str) -> None:
        self._tallies.count(REFUSALS, reason=reason)

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(grace_s=0)

    def _open_incoming(self, association: Any, context_id: int, request: C_STORE) -> IncomingFile:
        """Open the file for a data set that is about to arrive."""
        syntax = association._accepted_cx[context_id].transfer_syntax[0]
        return self._ingest.open(str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID), syntax)

    def _answer_store(self, association: BoundedAssociation, context_id: int, request: C_STORE) -> C_STORE:
        """Store the object of a C-STORE request, and make the response (PS3.7 9.1.1)."""
        try:
            result = self._store(association, association._accepted_cx[context_id], request)
        except OutOfResourcesError as error:
            result = IngestResult(OUT_OF_RESOURCES, error.what)
        except (SQLAlchemyError, OSError) as error:
            result = IngestResult(OUT_OF_RESOURCES, f"the node cannot store it now ({type(error).__name__})")
        except Exception:  # a fault of the node must not look like one of the object
            _log.error("an object could not be processed", association=association.identity, exc_info=True)
            result = IngestResult(PROCESSING_FAILURE, "the node could not process the object")
        if result.status != SUCCESS:
            _log.warning(
                "not stored",
                status=f"{result.status:04X}",
                why=result.why,
                calling_ae=association.calling_ae,
                peer=association.peer,
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
            )
        self._tallies.count(INSTANCES, outcome=outcome_of(result.status, new=result.new))
        response = C_STORE()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        response.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
        response.Status = result.status
        if result.why:
            response.ErrorComment = result.why[:_COMMENT_LENGTH]  # type: ignore[assignment]
        return response

    def _store(self, association: BoundedAssociation, context: PresentationContext, request: C_STORE) -> IngestResult:
        """Store the object of a C-STORE request."""
        incoming = association.dimse.incoming
        if incoming is None:
            return IngestResult(NOT_UNDERSTOOD, "request without a data set")
        originator = str(request.MoveOriginatorApplicationEntityTitle or "").strip()
        arrival = Arrival(
            sop_class_uids=(str(request.AffectedSOPClassUID), str(context.abstract_syntax)),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(context.transfer_syntax[0]),
            calling_ae=association.calling_ae,
            peer=association.peer,
            association=self._prefix + association.identity,
            requested=originator == self._settings.ae_title if originator else None,
        )
        result = self._ingest.store(incoming, arrival)
        if result.status == SUCCESS:
            association.series.add(result.series_instance_uid)
            association.stored += result.new
        return result

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
        except SQLAlchemyError as error:  # its series then settle after settling.limit_s
            _log.error(
                "the end of an association could not be recorded",
                association=association.identity,
                error=type(error).__name__,
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
    pynetdicom_config.LOG_HANDLER_LEVEL = "none"  # its handlers format every PDU for a log that is not written
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings quote header values
    if ledger is None:
        ledger = Ledger(settings.ledger_url)
        ledger.upgrade()
    archive = archive or Archive(settings.data_dir, settings.archive.free_disk_mb)
    receiver = Receiver(settings, ledger, archive)
    with stop_on_signal() as stop:
        receiver.start()
        try:
            while not stop.wait(COUNT_EVERY_S):
                receiver.write_tallies()
        finally:
            receiver.stop()
            with suppress(SQLAlchemyError):
                ledger.close()
