"""How is a destination asked to commit to what it stored? (Storage Commitment Push Model as SCU, PS3.4 annex J)

The report comes on the same association, if the destination sends it at once, or later on an association that it opens
to the node's receiver.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pynetdicom import evt

from node.commitment import (
    REQUEST_COMMITMENT,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    CommitmentMessageError,
    CommitmentReport,
    CommitmentRequest,
    decode_report,
    encode_request,
)
from node.settings import DicomDestination
from node.settings.destinations import DestinationSettings

from .base import Unreachable
from .scu import Peer, associated

SAME_ASSOCIATION_S = 1.0
"""How long the association stays open for a report."""
_SUCCESS, _PROCESSING_FAILURE = 0x0000, 0x0110


@dataclass(frozen=True)
class CommitmentScu:
    """Requests commitment from a destination."""

    settings: DicomDestination
    calling_ae_title: str

    @property
    def within_s(self) -> float:
        """The destination must have committed after this many seconds."""
        return self.settings.commit_within_s or 0.0

    @property
    def peer(self) -> Peer:
        """The storage commitment SCP."""
        given, storage = self.settings, Peer.of(self.settings)
        return replace(
            storage,
            ae_title=given.commit_ae_title or storage.ae_title,
            host=given.commit_host or storage.host,
            port=given.commit_port or storage.port,
        )

    def request(self, request: CommitmentRequest, record: Callable[[CommitmentReport], bool]) -> None:
        """Request commitment.

        Parameters
        ----------
        record : callable
            Records a report that comes on the same association; returns whether the transaction is known.

        Raises
        ------
        Unreachable
            If the request was not accepted.
        """
        reported = threading.Event()
        answering: list[threading.Thread] = []

        def on_report(event: Any) -> tuple[int, None]:
            try:
                known = record(decode_report(event.event_information))
            except CommitmentMessageError:
                known = False
            answering.append(threading.current_thread())
            reported.set()
            return (_SUCCESS if known else _PROCESSING_FAILURE), None

        handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
        with associated(
            self.peer, [STORAGE_COMMITMENT], self.calling_ae_title, self.settings.timeout_s, handlers=handlers
        ) as association:
            try:
                status, _ = association.send_n_action(
                    encode_request(request), REQUEST_COMMITMENT, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
                )
            except RuntimeError as error:  # the association has just ended
                raise Unreachable(f"{self.peer} closed the association before the request") from error
            answer = getattr(status, "Status", None)
            if answer is None:
                raise Unreachable(f"{self.peer} gives no answer to a request for storage commitment")
            if answer != _SUCCESS:
                raise Unreachable(f"{self.peer} refuses storage commitment with status 0x{answer:04X}")
            if reported.wait(SAME_ASSOCIATION_S):
                answering[0].join(self.settings.timeout_s)  # the answer to the report goes before the release


def open_commitment(settings: DestinationSettings | None, calling_ae_title: str) -> CommitmentScu | None:
    """Make what requests commitment from a destination, if its settings say so; connects to nothing yet."""
    if isinstance(settings, DicomDestination) and settings.commit_within_s is not None:
        return CommitmentScu(settings, calling_ae_title)
    return None
