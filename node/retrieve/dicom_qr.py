"""How are studies found by C-FIND and fetched by C-MOVE or C-GET? (Study Root Query/Retrieve as SCU, PS3.4 annex C)

By C-MOVE the PACS sends the images to the node's receiver by C-STORE, as any other sender does. By C-GET it sends them
on the association that the node has opened, see :mod:`node.retrieve.c_get`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when imported
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from node.deliver.base import Unreachable
from node.deliver.scu import Peer, associated
from node.ledger import TransferCounts
from node.receive.ingest import Ingest
from node.settings.priors import DicomPacs

from .c_get import ReceivedImages, get_contexts, get_roles
from .source import (
    MOST_ANSWERS,
    SERIES_KEYS,
    STUDY_KEYS,
    FoundSeries,
    FoundStudy,
    SourceError,
    StudyQuery,
    TooManyMatchesError,
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
_INCOMPLETE = (0xA700, 0xA701, 0xFE00)
"""With these a PACS ends a query of which it does not return every match."""
_PASSING = {
    0xA700: "is out of resources",
    0xA701: "is out of resources",
    0xA702: "is out of resources, or cannot send to this node",
    0xFE00: "cancelled the request",
}


@dataclass(frozen=True)
class QueryRetrieve:
    """A PACS with Study Root query and retrieve; implements :class:`node.retrieve.source.StudySource`.

    Parameters
    ----------
    ae_title : str
        The node's own: calling AE title and move destination.
    ingest : Ingest, optional
        Stores what is fetched by C-GET; C-MOVE needs none.
    """

    settings: DicomPacs
    ae_title: str
    ingest: Ingest | None = None

    @property
    def peer(self) -> Peer:
        """The peer that is called."""
        return Peer.of(self.settings)

    @property
    def address(self) -> str:
        """``AET@HOST:PORT``."""
        return str(self.peer)

    def studies(self, query: StudyQuery) -> list[FoundStudy]:
        """See :meth:`node.retrieve.source.StudySource.studies`."""
        return [found_study(answer) for answer in self._find(study_query(query))]

    def series(self, study_uid: str) -> list[FoundSeries]:
        """See :meth:`node.retrieve.source.StudySource.series`."""
        query = _query("SERIES", SERIES_KEYS)
        query.StudyInstanceUID = study_uid
        return [found_series(answer) for answer in self._find(query)]

    def fetch(self, study_uid: str, series_uids: Sequence[str], bounds: TransferLimits) -> TransferCounts:
        """See :meth:`node.retrieve.source.StudySource.fetch`: one request per series, all over one association."""
        tally = TransferTally(bounds)
        with self._retrieving(study_uid) as association:
            # A PACS need not send anything between the request and the final response (PS3.4 C.4.2.3.1).
            association.dimse_timeout = association.network_timeout = bounds.left_s + self.settings.timeout_s
            with _bounded(association, bounds):
                for uid in series_uids:
                    query = _query("SERIES", ())
                    query.StudyInstanceUID, query.SeriesInstanceUID = study_uid, uid
                    self._retrieve(association, query, tally)
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
                        raise TooManyMatchesError(f"{self.address} returns too many matches for C-FIND", answers)
                elif code in _INCOMPLETE and answers:
                    what = f"{self.address} returns only {len(answers)} of the matches for C-FIND"
                    raise TooManyMatchesError(what, answers)
                elif code != 0x0000:
                    raise self._refusal("C-FIND", code, status)
        return answers

    @contextmanager
    def _retrieving(self, study_uid: str) -> Iterator[Any]:
        """An association for C-MOVE, or one for C-GET that stores what the PACS sends on it."""
        if self.settings.retrieve == "c-move":
            with self._associated(StudyRootQueryRetrieveInformationModelMove) as association:
                yield association
            return
        if self.ingest is None:
            raise ValueError("C-GET needs an ingest, which stores the images")
        images = ReceivedImages(self.ingest, self.settings.ae_title, self.settings.host, study_uid)
        with (
            images,
            self._associated(
                StudyRootQueryRetrieveInformationModelGet,
                handlers=images.handlers,
                roles=get_roles(),
                storage=get_contexts(),
            ) as association,
        ):
            yield association
            images.note_whole()

    def _retrieve(self, association: Any, query: Dataset, tally: TransferTally) -> None:
        """Retrieve one series and add its sub-operations to the tally."""
        before, code, status = tally.counts, None, Dataset()
        if not association.is_established:
            raise SourceError(
                f"{self.address} ended the association: {tally.bounds.over or 'by itself'}", counts=before
            )
        service = self.settings.retrieve.upper()
        for status, _ in self._request(association, query):
            code = getattr(status, "Status", None)
            done = _counted(status, tally.counts, before)
            tally.counts = done
            tally.check(done.completed + done.failed + done.warnings + _number(status, "Remaining"))
        if code not in (0x0000, 0xB000):
            over = tally.bounds.over
            raise (
                SourceError(f"given up: {over}", counts=tally.counts)
                if over
                else self._refusal(service, code, status, tally.counts)
            )

    def _request(self, association: Any, query: Dataset) -> Iterator[tuple[Dataset, Dataset | None]]:
        if self.settings.retrieve == "c-get":
            yield from association.send_c_get(query, StudyRootQueryRetrieveInformationModelGet)
        else:
            yield from association.send_c_move(query, self.ae_title, StudyRootQueryRetrieveInformationModelMove)

    def _refusal(
        self, service: str, code: int | None, status: Dataset, counts: TransferCounts | None = None
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
    def _associated(
        self,
        sop_class: str,
        *,
        handlers: Sequence[Any] = (),
        roles: Sequence[Any] = (),
        storage: Sequence[tuple[str, str]] = (),
    ) -> Iterator[Any]:
        try:
            with associated(
                self.peer,
                [sop_class],
                self.ae_title,
                self.settings.timeout_s,
                handlers=handlers,
                roles=roles,
                storage=storage,
            ) as association:
                if not any(context.abstract_syntax == sop_class for context in association.accepted_contexts):
                    service = UID(sop_class).name.removesuffix(" Class")
                    raise SourceError(f"{self.address} does not offer {service}", lasting=True)
                try:
                    yield association
                except SourceError:
                    if association.is_established:  # a release would wait for the rest
                        association.abort()
                    raise
        except Unreachable as error:
            raise SourceError(str(error)) from error


def study_query(query: StudyQuery) -> Dataset:
    """The identifier of a C-FIND for studies."""
    identifier = _query("STUDY", STUDY_KEYS)
    for keyword, value in query.matching.items():
        setattr(identifier, keyword, value)
    if not query.patient_id.isascii():
        identifier.SpecificCharacterSet = "ISO_IR 192"
    return identifier


def _query(level: str, keys: Sequence[str]) -> Dataset:
    """An identifier that requests these attributes (universal matching)."""
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword in keys:
        setattr(query, keyword, "")
    return query


def _number(status: Dataset, which: str) -> int:
    return int(getattr(status, f"NumberOf{which}Suboperations", None) or 0)


def _counted(status: Dataset, now: TransferCounts, before: TransferCounts) -> TransferCounts:
    """Counts after a response; a final response without counts (PS3.4 C.4.2.1.6) keeps the previous ones."""
    if "NumberOfCompletedSuboperations" not in status:
        return now
    numbers = {name: _number(status, name) for name in ("Remaining", "Completed", "Failed", "Warning")}
    return TransferCounts(
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
                # pynetdicom's own loop may have taken the message by which an abort wakes who waits for an answer.
                association.dimse.msg_queue.put((None, None))

    watcher = threading.Thread(target=watch, name="bounds", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
