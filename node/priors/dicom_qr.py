"""How are earlier studies found by C-FIND and fetched by C-MOVE? (Study Root Query/Retrieve as SCU, PS3.4 annex C)

The PACS sends the images to the node's receiver by C-STORE, as any other sender does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when imported
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from node.deliver.base import Unreachable
from node.deliver.scu import Peer, associated
from node.ledger import PriorCounts
from node.settings.priors import DicomPacs

from .source import (
    MOST_ANSWERS,
    SERIES_KEYS,
    STUDY_KEYS,
    FoundSeries,
    FoundStudy,
    SourceError,
    TransferLimits,
    TransferTally,
    found_series,
    found_study,
)

_PENDING = (0xFF00, 0xFF01)
_LASTING = {
    0x0122: "does not offer that service (SOP class not supported)",
    0x0124: "does not authorise this node to query",
    0xA801: "does not know this node as a destination",
    0xA900: "does not understand the request (identifier does not match SOP class)",
}
_PASSING = {
    0xA700: "is out of resources",
    0xA701: "is out of resources",
    0xA702: "is out of resources, or cannot send to this node",
    0xFE00: "cancelled the request",
}


@dataclass(frozen=True)
class QueryRetrieve:
    """A PACS with Study Root query and retrieve; implements :class:`node.priors.source.PriorSource`.

    Parameters
    ----------
    ae_title : str
        The node's own: calling AE title and move destination.
    """

    settings: DicomPacs
    ae_title: str

    @property
    def peer(self) -> Peer:
        """The peer that is called."""
        return Peer.of(self.settings)

    @property
    def address(self) -> str:
        """``AET@HOST:PORT``."""
        return str(self.peer)

    def studies(self, patient_id: str, first: date, last: date) -> list[FoundStudy]:
        """See :meth:`node.priors.source.PriorSource.studies`."""
        return [found_study(answer) for answer in self._find(study_query(patient_id, first, last))]

    def series(self, study_uid: str) -> list[FoundSeries]:
        """See :meth:`node.priors.source.PriorSource.series`."""
        query = _query("SERIES", SERIES_KEYS)
        query.StudyInstanceUID = study_uid
        return [found_series(answer) for answer in self._find(query)]

    def fetch(self, study_uid: str, series_uids: Sequence[str], bounds: TransferLimits) -> PriorCounts:
        """See :meth:`node.priors.source.PriorSource.fetch`: one C-MOVE per series, all over one association."""
        tally = TransferTally(bounds)
        with self._associated(StudyRootQueryRetrieveInformationModelMove) as association:
            # A PACS need not send anything between the request and the final response (PS3.4 C.4.2.3.1).
            association.dimse_timeout = association.network_timeout = bounds.left_s + self.settings.timeout_s
            with _bounded(association, bounds):
                for uid in series_uids:
                    query = _query("SERIES", ())
                    query.StudyInstanceUID, query.SeriesInstanceUID = study_uid, uid
                    self._move(association, query, tally)
        if tally.counts.failed:
            number = tally.counts.failed
            raise SourceError(f"{self.address} could not send {number} of its images", counts=tally.counts)
        return tally.counts

    def _find(self, query: Dataset) -> list[Dataset]:
        answers: list[Dataset] = []
        with self._associated(StudyRootQueryRetrieveInformationModelFind) as association:
            for status, answer in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
                code = getattr(status, "Status", None)
                if code in _PENDING and answer is not None:
                    answers.append(answer)
                    if len(answers) > MOST_ANSWERS:
                        raise SourceError(f"{self.address} returns too many matches for C-FIND", lasting=True)
                elif code != 0x0000:
                    raise self._refusal("C-FIND", code, status)
        return answers

    def _move(self, association: Any, query: Dataset, tally: TransferTally) -> None:
        """Move one series and add its sub-operations to the tally."""
        before, code, status = tally.counts, None, Dataset()
        if not association.is_established:
            raise SourceError(
                f"{self.address} ended the association: {tally.bounds.over or 'by itself'}", counts=before
            )
        for status, _ in association.send_c_move(query, self.ae_title, StudyRootQueryRetrieveInformationModelMove):
            code = getattr(status, "Status", None)
            done = _counted(status, tally.counts, before)
            tally.counts = done
            tally.check(done.completed + done.failed + done.warnings + _number(status, "Remaining"))
        if code not in (0x0000, 0xB000):
            over = tally.bounds.over
            raise (
                SourceError(f"given up: {over}", counts=tally.counts)
                if over
                else self._refusal("C-MOVE", code, status, tally.counts)
            )

    def _refusal(
        self, service: str, code: int | None, status: Dataset, counts: PriorCounts | None = None
    ) -> SourceError:
        """Turn a status other than success into an error."""
        if code is None:
            lost = f"{self.address} gives no answer to {service}, or closes the connection"
            return SourceError(f"{lost}; does it know {self.ae_title}?", counts=counts)
        words = _LASTING.get(code) or _PASSING.get(code) or f"fails with status 0x{code:04X}"
        comment = str(getattr(status, "ErrorComment", None) or "").strip()
        said = f" ({comment})" if comment else ""
        advice = f"; enter {self.ae_title} there with this node's host and port" if code == 0xA801 else ""
        return SourceError(
            f"{self.address} {words}, asked by {service}{said}{advice}", lasting=code in _LASTING, counts=counts
        )

    @contextmanager
    def _associated(self, sop_class: str) -> Iterator[Any]:
        try:
            with associated(self.peer, [sop_class], self.ae_title, self.settings.timeout_s) as association:
                if not any(context.abstract_syntax == sop_class for context in association.accepted_contexts):
                    raise SourceError(f"{self.address} offers no Study Root query and retrieve", lasting=True)
                try:
                    yield association
                except SourceError:
                    if association.is_established:  # a release would wait for the rest
                        association.abort()
                    raise
        except Unreachable as error:
            raise SourceError(str(error)) from error


def study_query(patient_id: str, first: date, last: date) -> Dataset:
    """The identifier of a C-FIND for the MR studies of a patient between two dates."""
    query = _query("STUDY", STUDY_KEYS)
    query.PatientID, query.ModalitiesInStudy = patient_id, "MR"
    query.StudyDate = f"{first:%Y%m%d}-{last:%Y%m%d}"
    if not patient_id.isascii():
        query.SpecificCharacterSet = "ISO_IR 192"
    return query


def _query(level: str, keys: Sequence[str]) -> Dataset:
    """An identifier that requests these attributes (universal matching)."""
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword in keys:
        setattr(query, keyword, "")
    return query


def _number(status: Dataset, which: str) -> int:
    return int(getattr(status, f"NumberOf{which}Suboperations", None) or 0)


def _counted(status: Dataset, now: PriorCounts, before: PriorCounts) -> PriorCounts:
    """Counts after a response; a final response without counts (PS3.4 C.4.2.1.6) keeps the previous ones."""
    if "NumberOfCompletedSuboperations" not in status:
        return now
    numbers = {name: _number(status, name) for name in ("Remaining", "Completed", "Failed", "Warning")}
    return PriorCounts(
        expected=before.expected + sum(numbers.values()),
        completed=before.completed + numbers["Completed"],
        failed=before.failed + numbers["Failed"],
        warnings=before.warnings + numbers["Warning"],
    )


@contextmanager
def _bounded(association: Any, bounds: TransferLimits) -> Iterator[None]:
    """Abort the association when the limits are reached."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            if bounds.over:
                association.abort()
                return

    watcher = threading.Thread(target=watch, name="bounds", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
