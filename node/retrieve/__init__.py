"""How are studies of another system found and fetched? By C-FIND with C-MOVE or C-GET, or by QIDO-RS with WADO-RS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.receive.ingest import Ingest

from .source import StudySource

if TYPE_CHECKING:
    from node.archive import Archive
    from node.ledger import Ledger
    from node.settings import Settings
    from node.settings.pacs import PacsSettings


def open_source(pacs: PacsSettings, settings: Settings, ledger: Ledger, archive: Archive) -> StudySource:
    """Open the PACS that the settings name; nothing is connected yet."""
    ingest = Ingest(ledger, archive, settings.receiver.max_instance_bytes)
    if pacs.dicom is not None:
        from .dicom_qr import QueryRetrieve

        return QueryRetrieve(pacs.dicom, settings.ae_title, ingest)
    from .dicomweb import DicomWeb

    if pacs.dicomweb is None:
        raise ValueError("no PACS is named")
    return DicomWeb(pacs.dicomweb, ingest)
