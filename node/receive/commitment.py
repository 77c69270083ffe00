"""What is done with the messages of storage commitment that arrive? (PS3.4 annex J)

A destination reports which of the node's results it commits to keep (N-EVENT-REPORT, the node is the SCU). A sender of
images asks which of them the node commits to keep (N-ACTION, the node is the SCP). That request is recorded, and a
worker reports on an association of its own (:mod:`node.deliver.commitment_reports`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from node.commitment import (
    REQUEST_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    CommitmentMessageError,
    decode_report,
    decode_request,
)
from node.ledger import Ledger
from pipeline.errors import type_and_place

SUCCESS, PROCESSING_FAILURE, NO_SUCH_INSTANCE = 0x0000, 0x0110, 0x0112
INVALID_ARGUMENT, UNKNOWN_TRANSACTION = 0x0115, 0x0114
NO_SUCH_ACTION, NOT_AUTHORISED, RESOURCE_LIMITATION = 0x0123, 0x0124, 0x0213

Answer = tuple[int, None]

_log = structlog.get_logger(__name__)


class CommitmentHandlers:
    """Handles the messages of storage commitment.

    Parameters
    ----------
    reachable : collection of str
        AE titles that reports can be sent to.
    """

    def __init__(self, ledger: Ledger, reachable: Collection[str]) -> None:
        self._ledger, self._reachable = ledger, reachable

    def record_report(self, event: Any) -> Answer:
        """Record a destination's report; it is answered with success only when the ledger has it."""
        return _answer(event, self._record_report)

    def record_request(self, event: Any) -> Answer:
        """Record a request for commitment; it is answered with success only when the ledger has it."""
        return _answer(event, self._record_request)

    def _record_report(self, event: Any, facts: Mapping[str, str]) -> int:
        if event.request.AffectedSOPInstanceUID != STORAGE_COMMITMENT_INSTANCE:
            return NO_SUCH_INSTANCE
        report = decode_report(event.event_information)
        known = self._ledger.record_commitment(
            report.transaction_uid, report.committed_uids, report.failures, facts["calling_ae"]
        )
        _log.info("commitment reported", **report.counts, known=known, **facts)
        return SUCCESS if known else UNKNOWN_TRANSACTION

    def _record_request(self, event: Any, facts: Mapping[str, str]) -> int:
        if event.request.RequestedSOPInstanceUID != STORAGE_COMMITMENT_INSTANCE:
            return NO_SUCH_INSTANCE
        if event.action_type != REQUEST_COMMITMENT:
            return NO_SUCH_ACTION
        request = decode_request(event.action_information)
        calling_ae = facts["calling_ae"]
        if calling_ae not in self._reachable:
            why = f"the node does not know where to report to {calling_ae}"
            _log.warning("commitment refused", why=why, do="add it to receiver.commitment", **facts)
            return NOT_AUTHORISED
        references = [(one.sop_class_uid, one.sop_instance_uid) for one in request.references]
        if not self._ledger.add_commitment_request(request.transaction_uid, references, calling_ae, facts["peer"]):
            _log.warning("commitment refused", why="too many requests wait for their report", **facts)
            return RESOURCE_LIMITATION
        _log.info("commitment requested", instances=len(references), **facts)
        return SUCCESS


def _answer(event: Any, record: Callable[[Any, Mapping[str, str]], int]) -> Answer:
    """Answer a message; whatever goes wrong with it is logged."""
    facts = {"calling_ae": event.assoc.calling_ae, "peer": event.assoc.peer}
    try:
        return record(event, facts), None
    except CommitmentMessageError as error:
        _log.warning("commitment message not understood", why=str(error), **facts)
        return INVALID_ARGUMENT, None
    except SQLAlchemyError as error:  # the peer tries again, or the node does
        _log.error("a commitment message could not be recorded", error=type(error).__name__, **facts)
        return PROCESSING_FAILURE, None
    except Exception as error:  # pydicom raises many types on malformed data sets
        _log.warning("commitment message not understood", why=type_and_place(error), **facts)
        return INVALID_ARGUMENT, None
