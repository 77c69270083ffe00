"""How do the images that a PACS sends for a C-GET become instances? (PS3.4 C.4.3)

The PACS sends them by C-STORE on the association that the node has opened. Each is stored by
:mod:`node.receive.ingest`, as the receiver's objects are, before it is answered.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import structlog
from pynetdicom import build_role, evt

from node.archive import OutOfResourcesError
from node.receive.ingest import NOT_UNDERSTOOD, OUT_OF_RESOURCES, SUCCESS, Arrival, Ingest, IngestResult
from node.receive.presentation_contexts import TRANSFER_SYNTAXES

IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image
)
"""What the node accepts by C-GET: the images that it can analyse."""

_log = structlog.get_logger(__name__)


def get_contexts() -> list[tuple[str, str]]:
    """SOP classes and transfer syntaxes, one presentation context for each pair: so the PACS need not transcode."""
    return [(sop_class, syntax) for sop_class in IMAGE_CLASSES for syntax in TRANSFER_SYNTAXES]


def get_roles() -> list[Any]:
    """Role selections: the node is the SCP of the storage classes on an association that it opens (PS3.7 D.3.3.4)."""
    return [build_role(sop_class, scp_role=True) for sop_class in IMAGE_CLASSES]


class ReceivedImages:
    """Stores what arrives on one association.

    Parameters
    ----------
    ae_title, peer : str
        AE title and host of the PACS, recorded with each instance.
    study_uid : str
        The study that is requested.
    """

    def __init__(self, ingest: Ingest, ae_title: str, peer: str, study_uid: str) -> None:
        self._ingest, self._ae_title, self._peer = ingest, ae_title, peer
        self._association = ingest.begin("c-get", study_uid)
        self._series: set[str] = set()
        self._whole = False
        self.handlers = [(evt.EVT_C_STORE, self._handle_store)]

    def note_whole(self) -> None:
        """Note that every request of the association was answered."""
        self._whole = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._series:
            self._ingest.note_end(self._series, self._association, whole=self._whole)

    def _handle_store(self, event: Any) -> int:
        try:
            result = self._store(event)
        except OutOfResourcesError as error:
            result = IngestResult(OUT_OF_RESOURCES, error.what)
        except Exception as error:  # the database is away; pynetdicom would answer with a status that says nothing
            result = IngestResult(OUT_OF_RESOURCES, f"the node cannot store it now ({type(error).__name__})")
        if result.series_instance_uid:
            self._series.add(result.series_instance_uid)
        if result.status != SUCCESS:
            uid = str(event.request.AffectedSOPInstanceUID)
            who = {"calling_ae": self._ae_title, "peer": self._peer}
            _log.warning("not stored", status=f"{result.status:04X}", why=result.why, sop_instance_uid=uid, **who)
        return result.status

    def _store(self, event: Any) -> IngestResult:
        request, context = event.request, event.context
        if request.DataSet is None:
            return IngestResult(NOT_UNDERSTOOD, "request without a data set")
        data = request.DataSet.getbuffer()
        if data.nbytes > self._ingest.max_instance_bytes:
            return IngestResult(OUT_OF_RESOURCES, f"larger than {self._ingest.max_instance_bytes} bytes")
        arrival = Arrival(
            sop_class_uids=(str(request.AffectedSOPClassUID), str(context.abstract_syntax)),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(context.transfer_syntax),
            calling_ae=self._ae_title,
            peer=self._peer,
            association=self._association,
            requested=True,
        )
        names = arrival.sop_class_uids[0], arrival.sop_instance_uid, arrival.transfer_syntax_uid
        with self._ingest.open(*names) as incoming:
            incoming.write(data)
            return self._ingest.store(incoming, arrival)
