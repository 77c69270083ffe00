"""What do other systems send and fetch by DICOMweb? STOW-RS for images; QIDO-RS and WADO-RS for the node's results."""

from __future__ import annotations

from fastapi import FastAPI

from node.ledger import Ledger
from node.settings import Settings
from node.web.security import DICOMWEB

from . import retrieve, search, store
from .services import DicomWebServices


def add_dicomweb(app: FastAPI, settings: Settings, ledger: Ledger) -> None:
    """Add the services to the application, below :data:`node.web.security.DICOMWEB`."""
    app.state.dicomweb = DicomWebServices.of(settings, ledger)
    for module in (store, search, retrieve):
        app.include_router(module.router, prefix=DICOMWEB)
