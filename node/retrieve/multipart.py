"""How do the parts of a WADO-RS answer become instances?"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from node.archive import IncomingFile, OutOfResourcesError
from node.receive.ingest import CONFLICT, SUCCESS, Arrival, Ingest, IngestResult
from node.receive.multipart import PartResult, PartsError, PartsReader, Sender


@dataclass(frozen=True)
class ReceivedParts:
    """Number of parts stored, in conflict with an instance (quarantined), and refused."""

    stored: int = 0
    conflicts: int = 0
    refused: int = 0

    @property
    def parts(self) -> int:
        """All parts."""
        return self.stored + self.conflicts + self.refused


class MultipartReader:
    """Reads one response, piece by piece, and stores its parts.

    Parameters
    ----------
    content_type : str
        Content type of the response; it names the boundary between the parts.
    ingest : Ingest
        Stores the instances.
    address : str
        Address of the service, recorded with each instance.
    transfer : str
        Its name in the ledger, from :meth:`Ingest.begin`.
    requested : bool
        Whether the images are only to be compared with; otherwise they are treated as if they had been sent.

    Raises
    ------
    PartsError
        Now or while reading: the response is not multipart, is malformed or truncated, or no part of it can be stored
        now.
    """

    def __init__(
        self, content_type: str, ingest: Ingest, address: str, *, transfer: str, requested: bool = True
    ) -> None:
        self._ingest = ingest
        self.delivered = ReceivedParts()
        sender = Sender(
            peer=urlsplit(address).hostname or "",
            association=transfer,
            requested=requested,
        )
        self._reader = PartsReader(content_type, ingest, sender, self._store, self._record)
        self.write, self.end = self._reader.write, self._reader.end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._reader.close()

    def _store(self, incoming: IncomingFile, arrival: Arrival) -> IngestResult:
        try:
            return self._ingest.store(incoming, arrival)
        except OutOfResourcesError as error:
            raise PartsError(str(error)) from error

    def _record(self, result: PartResult) -> None:
        had, status = self.delivered, result.status
        self.delivered = ReceivedParts(
            had.stored + (status == SUCCESS),
            had.conflicts + (status == CONFLICT),
            had.refused + (status not in (SUCCESS, CONFLICT)),
        )
