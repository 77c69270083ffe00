"""How does a sender learn which of its images the node commits to keep? (storage commitment as SCP, PS3.4 annex J)

Each image that it named is looked at when the report is made: it is committed if its file is there and is what was
received. The node keeps it until retention deletes it (``archive.keep_days`` after its study is finished).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from pynetdicom import build_role

from node.archive import Archive, DamagedFileError
from node.commitment import (
    CLASS_CONFLICT,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    CommitmentReport,
    InstanceReference,
    encode_report,
)
from node.ledger import InstanceRecord, Ledger, ReceivedCommitmentRequest
from node.retry import pause_s, tried_long_enough
from node.settings import QueueSettings
from node.settings.connections import DicomPeerSettings

from .base import Unreachable
from .scu import Peer, associated

LEASE_S = 600.0
"""A report that is being made and sent for longer than this is made again."""
REPORTS = 10
"""Reports of one association."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class CommitmentReporter:
    """Reports to those who asked for commitment.

    Parameters
    ----------
    peers : mapping
        Where to report, by AE title.
    ae_title : str
        The node's own.
    """

    ledger: Ledger
    archive: Archive
    peers: Mapping[str, DicomPeerSettings]
    ae_title: str
    queue: QueueSettings

    def report(self, calling_ae: str) -> int:
        """Send every report that is due to an AE title; returns how many it took."""
        taken = 0
        while requests := self.ledger.claim_commitment_reports(calling_ae, LEASE_S, REPORTS):
            for request in requests:
                try:
                    report = self.assess(request)
                    self._send(calling_ae, report)
                except Unreachable as error:
                    self._postpone(request, str(error))
                    continue
                taken += 1
                _log.info("commitment reported", calling_ae=calling_ae, **report.counts)
                why = f"{len(report.committed)} committed, {len(report.failed)} not"
                self.ledger.end_commitment_request(request.transaction_uid, "reported", why, calling_ae)
        return taken

    def assess(self, request: ReceivedCommitmentRequest) -> CommitmentReport:
        """Look at each image that a request names."""
        kept = self.ledger.stored_instances(uid for _, uid in request.references)
        committed: list[InstanceReference] = []
        failed: dict[InstanceReference, int] = {}
        for sop_class_uid, uid in dict.fromkeys(request.references):
            reference = InstanceReference(sop_class_uid, uid)
            if reason := self._reason_not_to(reference, kept.get(uid)):
                failed[reference] = reason
            else:
                committed.append(reference)
        return CommitmentReport(request.transaction_uid, tuple(committed), failed)

    def _reason_not_to(self, reference: InstanceReference, image: InstanceRecord | None) -> int:
        """Why the node does not commit to an image (PS3.3 C.14.1.1); 0 if it does."""
        if image is None:
            return NO_SUCH_INSTANCE
        if image.sop_class_uid != reference.sop_class_uid:
            return CLASS_CONFLICT
        try:
            self.archive.verify(image)
        except (DamagedFileError, OSError):
            return PROCESSING_FAILURE
        return 0

    def _send(self, calling_ae: str, report: CommitmentReport) -> None:
        settings = self.peers.get(calling_ae)
        if settings is None:
            raise Unreachable(f"the settings no longer say where to report to {calling_ae}")
        peer, roles = Peer.of(settings), [build_role(STORAGE_COMMITMENT, scp_role=True)]
        with associated(peer, [STORAGE_COMMITMENT], self.ae_title, settings.timeout_s, roles=roles) as association:
            try:
                status, _ = association.send_n_event_report(
                    encode_report(report), report.event_type, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
                )
            except RuntimeError as error:  # the association has just ended
                raise Unreachable(f"{peer} closed the association before the report") from error
        answer = getattr(status, "Status", None)
        if answer != 0x0000:
            said = "does not answer" if answer is None else f"answers with status 0x{answer:04X}"
            raise Unreachable(f"{peer} {said} a report on storage commitment")

    def _postpone(self, request: ReceivedCommitmentRequest, why: str) -> None:
        over = tried_long_enough(request.attempts, request.created_at, self.queue)
        _log.warning("commitment not reported", calling_ae=request.calling_ae, why=why, given_up=over)
        if over:
            self.ledger.end_commitment_request(request.transaction_uid, "given up", why, self.ae_title)
            return
        pause = pause_s(request.attempts, self.queue, random.random())
        again = datetime.now(UTC) + timedelta(seconds=pause)
        self.ledger.postpone_commitment_report(request.transaction_uid, again)
