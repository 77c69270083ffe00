"""What do the DICOMweb services share, and who may use them? A client is known by its token."""

from __future__ import annotations

import hashlib
import secrets
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, cast

import anyio
import structlog
from fastapi import Depends, HTTPException, Request

from node.archive import Archive
from node.ledger import Ledger, TallyBuffer
from node.receive.ingest import Ingest
from node.receive.presentation_contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from node.settings import DicomWebClientSettings, Settings
from node.web.auth import address_of, bearer_token

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class DicomWebServices:
    """The services of one process.

    Parameters
    ----------
    tallies : TallyBuffer
        Counts what is received, for the metrics.
    prefix : str
        Start of the names of this process's requests in the ledger, in place of associations.
    threads : CapacityLimiter
        Threads that write and store what is received, so that the pages keep theirs.
    uploads : int
        Requests that are being received.
    """

    settings: Settings
    ledger: Ledger
    archive: Archive
    ingest: Ingest
    tallies: TallyBuffer
    prefix: str
    threads: anyio.CapacityLimiter
    sop_classes: frozenset[str]
    transfer_syntaxes: frozenset[str] = frozenset(TRANSFER_SYNTAXES)
    uploads: int = 0
    _tokens: dict[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, settings: Settings, ledger: Ledger) -> DicomWebServices:
        """Make them; requests that an earlier run did not finish count as aborted."""
        archive = Archive(settings.data_dir, settings.archive.free_disk_mb)
        prefix = f"{socket.gethostname()[:40]}:{settings.worklist.port}/stow-rs/"
        if ended := ledger.abandon_associations(datetime.now(UTC), prefix):
            _log.info("STOW-RS requests of an earlier run ended", count=ended)
        return cls(
            settings,
            ledger,
            archive,
            Ingest(ledger, archive, settings.receiver.max_instance_bytes),
            TallyBuffer(ledger),
            prefix,
            anyio.CapacityLimiter(settings.dicomweb.max_uploads),
            frozenset({*STORAGE_CLASSES, *settings.receiver.extra_sop_classes}),
            _tokens={
                name: _digest(client.token.get_secret_value()) for name, client in settings.dicomweb.clients.items()
            },
        )

    def client(self, token: str) -> DicomWebClient | None:
        """The client with this token. Every token is compared in full, so that the time taken tells nothing."""
        given = _digest(token)
        found = [name for name, digest in self._tokens.items() if secrets.compare_digest(digest, given)]
        return DicomWebClient(found[0], self.settings.dicomweb.clients[found[0]]) if found else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True)
class DicomWebClient:
    """A system that has shown its token."""

    name: str
    settings: DicomWebClientSettings

    @property
    def audit_name(self) -> str:
        """Its name in the audit. No account can have this name: it contains a space."""
        return f"dicomweb {self.name}"


def services_of(request: Request) -> DicomWebServices:
    """The services of the application that serves this request."""
    return cast(DicomWebServices, request.app.state.dicomweb)


async def _client(request: Request) -> DicomWebClient:
    client = services_of(request).client(bearer_token(request))
    if client is None:
        _log.warning("DICOMweb request refused", why="no valid token", peer=address_of(request))
        what = "Send the bearer token of a client in dicomweb.clients."
        raise HTTPException(401, what, {"WWW-Authenticate": "Bearer"})
    return client


AnyClient = Annotated[DicomWebClient, Depends(_client)]


async def _storing(request: Request, client: AnyClient) -> DicomWebClient:
    return _permitted(request, client, client.settings.store, "store")


async def _retrieving(request: Request, client: AnyClient) -> DicomWebClient:
    return _permitted(request, client, client.settings.retrieve, "retrieve")


def _permitted(request: Request, client: DicomWebClient, may: bool, setting: str) -> DicomWebClient:
    if not may:
        what = f"dicomweb.clients.{client.name}.{setting} is false"
        _log.warning("DICOMweb request refused", why=what, client=client.name, peer=address_of(request))
        raise HTTPException(403, f"This client may not do this: {what}.")
    return client


Shared = Annotated[DicomWebServices, Depends(services_of)]
StoringClient = Annotated[DicomWebClient, Depends(_storing)]
RetrievingClient = Annotated[DicomWebClient, Depends(_retrieving)]
