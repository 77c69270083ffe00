"""How does a study arrive by STOW-RS? (PS3.18 10.5)

A request is received as the receiver receives an association: each part goes to disk while it arrives, and is durable
and in the ledger before the request is answered. Limits on size, disk, SOP classes and transfer syntaxes are the
receiver's, and so are the statuses; see :mod:`node.receive.receiver`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from email.message import Message

import anyio
import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import ClientDisconnect

from node.archive import IncomingFile, OutOfResourcesError, is_uid
from node.ledger.metrics import INSTANCES
from node.receive.ingest import (
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    TRANSFER_SYNTAX_NOT_SUPPORTED,
    Arrival,
    IngestResult,
    outcome_of,
)
from node.receive.multipart import MediaTypeError, PartResult, PartsError, PartsReader, Sender
from node.web.auth import address_of
from node.web.connections import UPLOAD

from .media_types import DICOM, json_or_xml
from .services import DicomWebClient, DicomWebServices, Shared, StoringClient
from .store_response import RETRY_S, store_response

BLOCK_BYTES = 262_144
"""A block of this size, or the rest, must arrive within ``receiver.idle_timeout_s``."""
MOST_PARTS = 20_000
"""Most parts of one request."""

router = APIRouter()
_log = structlog.get_logger(__name__)


class _TooLargeError(Exception):
    """The request, or an instance in it, is too large; the text says which."""


@router.post("/studies")
async def store(request: Request, services: Shared, client: StoringClient) -> Response:
    """Store instances."""
    return await _receive(request, services, client, "")


@router.post("/studies/{study_uid}")
async def store_in_study(request: Request, services: Shared, client: StoringClient, study_uid: str) -> Response:
    """Store instances of one study."""
    if not is_uid(study_uid):
        raise HTTPException(400, "The address names a malformed Study Instance UID.")
    return await _receive(request, services, client, study_uid)


async def _receive(request: Request, services: DicomWebServices, client: DicomWebClient, study_uid: str) -> Response:
    media_type = json_or_xml(request)
    upload = _Upload(services, client, address_of(request), study_uid)
    try:
        _check_headers(request, services.settings.dicomweb.max_request_bytes)
        reader = upload.reader(request.headers.get("content-type", ""))
        if services.uploads >= services.settings.dicomweb.max_uploads:
            what = "Too many requests are being received (dicomweb.max_uploads)."
            raise HTTPException(503, what, {"Retry-After": str(RETRY_S)})
    except HTTPException as error:
        upload.log("STOW-RS request refused", str(error.detail), error.status_code)
        raise
    services.uploads += 1
    try:
        problem = await upload.receive(request, reader)
    finally:
        services.uploads -= 1
    response = store_response(upload.results, media_type, problem)
    upload.log("STOW-RS request received", problem[1] if problem else "", response.status_code)
    return response


def _check_headers(request: Request, max_bytes: int) -> None:
    """Refuse what can be refused before a byte of the body is read."""
    message = Message()
    message["Content-Type"] = request.headers.get("content-type", "")
    kind = str(message.get_param("type") or DICOM).lower()
    if kind != DICOM:
        raise HTTPException(415, f"Parts of type {kind[:80]} are not supported: send {DICOM}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "Content-Encoding is not supported: send the request without it.")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > max_bytes:
        raise HTTPException(413, f"The request is larger than {max_bytes} bytes (dicomweb.max_request_bytes).")


class _Upload:
    """One request, from its first to its last byte."""

    def __init__(self, services: DicomWebServices, client: DicomWebClient, peer: str, study_uid: str) -> None:
        self._services, self._client = services, client
        self.results: list[PartResult] = []
        self._sender = Sender(
            peer=peer,
            association=services.prefix + secrets.token_hex(16),
            calling_ae=client.settings.ae_title,
            study_instance_uid=study_uid,
        )

    def log(self, event: str, why: str, status: int | None = None) -> None:
        """Say how the request ended; without a status if there is nobody to answer."""
        stored = sum(one.status == SUCCESS for one in self.results)
        facts = {name: value for name, value in (("status", status), ("why", why)) if value}
        write = _log.info if status == 200 else _log.warning
        write(event, stored=stored, parts=len(self.results), **self._who, **facts)

    @property
    def _who(self) -> dict[str, str]:
        return {"client": self._client.name, "calling_ae": self._sender.calling_ae, "peer": self._sender.peer}

    def reader(self, content_type: str) -> PartsReader:
        """Open the reader of the body; answer 415 or 400 if it cannot be read."""
        try:
            return PartsReader(
                content_type, self._services.ingest, self._sender, self._store, self._record, self._refusal
            )
        except MediaTypeError as error:
            raise HTTPException(415, f"Cannot be stored: {error}.") from error
        except PartsError as error:
            raise HTTPException(400, f"Cannot be read: {error}.") from error

    async def receive(self, request: Request, reader: PartsReader) -> tuple[int, str] | None:
        """Read the body; return the status and the reason if it cannot be read to its end."""
        if (lift_limit := request.scope.get("extensions", {}).get(UPLOAD)) is not None:
            lift_limit()
        threads, limits = self._services.threads, self._services.settings
        idle_s = limits.receiver.idle_timeout_s
        try:
            async for block in _blocks(request, idle_s, limits.dicomweb.max_request_bytes):
                await anyio.to_thread.run_sync(reader.write, block, limiter=threads)
            await anyio.to_thread.run_sync(reader.end, limiter=threads)
        except PartsError as error:
            return 400, str(error)
        except _TooLargeError as error:
            return 413, str(error)
        except TimeoutError:
            return 408, f"too little data within {idle_s:g} s (receiver.idle_timeout_s)"
        except ClientDisconnect:
            self.log("STOW-RS request not complete", "the sender closed the connection")
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._close, reader, limiter=threads)
        return None

    def _close(self, reader: PartsReader) -> None:
        try:
            reader.close()
        except SQLAlchemyError as error:  # its series then settle after settling.limit_s
            _log.error("the end of a STOW-RS request could not be recorded", error=type(error).__name__, **self._who)
        self._services.tallies.flush()

    def _refusal(self, sop_class_uid: str, transfer_syntax_uid: str) -> IngestResult | None:
        """Why no such object is accepted, as the receiver would not accept its presentation context."""
        if sop_class_uid not in self._services.sop_classes:
            return IngestResult(SOP_CLASS_NOT_SUPPORTED, "SOP class not accepted (receiver.extra_sop_classes)")
        if transfer_syntax_uid not in self._services.transfer_syntaxes:
            return IngestResult(TRANSFER_SYNTAX_NOT_SUPPORTED, "transfer syntax not accepted")
        return None

    def _store(self, incoming: IncomingFile, arrival: Arrival) -> IngestResult:
        try:
            return self._services.ingest.store(incoming, arrival)
        except OutOfResourcesError as error:
            return IngestResult(OUT_OF_RESOURCES, error.what)
        except (SQLAlchemyError, OSError) as error:
            return IngestResult(OUT_OF_RESOURCES, f"the node cannot store it now ({type(error).__name__})")
        except Exception:  # a fault of the node must not look like one of the object
            _log.error("an object could not be processed", exc_info=True, **self._who)
            return IngestResult(PROCESSING_FAILURE, "the node could not process the object")

    def _record(self, result: PartResult) -> None:
        self.results.append(result)
        self._services.tallies.count(INSTANCES, outcome=outcome_of(result.status, new=result.new))
        if result.status != SUCCESS:
            uid = result.sop_instance_uid
            facts = {"sop_instance_uid": uid} if is_uid(uid) else {}
            _log.warning("not stored", status=f"{result.status:04X}", why=result.why, **facts, **self._who)
        if result.too_large:
            raise _TooLargeError(f"an instance is {result.why} (receiver.max_instance_bytes)")
        if len(self.results) > MOST_PARTS:
            raise _TooLargeError(f"the request has more than {MOST_PARTS} parts")


async def _blocks(request: Request, limit_s: float, max_bytes: int) -> AsyncIterator[bytes]:
    """The body in blocks, each within the time limit.

    Raises
    ------
    TimeoutError
        A block is not complete in time.
    _TooLargeError
        The body is larger than `max_bytes`.
    """
    pieces, received, ended = request.stream(), 0, False
    while not ended:
        block = bytearray()
        async with asyncio.timeout(limit_s):
            while len(block) < BLOCK_BYTES and not ended:
                piece = await anext(pieces, None)
                ended = piece is None
                block += piece or b""
        received += len(block)
        if received > max_bytes:
            raise _TooLargeError(f"the request is larger than {max_bytes} bytes (dicomweb.max_request_bytes)")
        yield bytes(block)
