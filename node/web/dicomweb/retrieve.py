"""How are the node's results fetched by WADO-RS? (PS3.18 10.4) What was received is not served."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from node.archive import DamagedFileError
from node.ledger.access_records import AuditAction
from node.web.auth import address_of

from .media_types import DICOM, DICOM_JSON, MULTIPART, require_json, wants_multipart
from .results import Json, ResultInstance, result_studies
from .services import DicomWebClient, DicomWebServices, RetrievingClient, Shared

router = APIRouter()
_log = structlog.get_logger(__name__)
_PIECE = 1_048_576
_CHARACTER_SET = "00080005"


@router.get("/studies/{study_uid}")
def study(request: Request, services: Shared, client: RetrievingClient, study_uid: str) -> Response:
    """The result objects of a study."""
    return _files(request, services, client, study_uid)


@router.get("/studies/{study_uid}/metadata")
def study_metadata(request: Request, services: Shared, client: RetrievingClient, study_uid: str) -> Response:
    """Their metadata."""
    return _metadata(request, services, client, study_uid)


@router.get("/studies/{study_uid}/series/{series_uid}")
def series(request: Request, services: Shared, client: RetrievingClient, study_uid: str, series_uid: str) -> Response:
    """The result objects of a series."""
    return _files(request, services, client, study_uid, series_uid)


@router.get("/studies/{study_uid}/series/{series_uid}/metadata")
def series_metadata(
    request: Request, services: Shared, client: RetrievingClient, study_uid: str, series_uid: str
) -> Response:
    """Their metadata."""
    return _metadata(request, services, client, study_uid, series_uid)


@router.get("/studies/{study_uid}/series/{series_uid}/instances/{instance_uid}")
def instance(
    request: Request, services: Shared, client: RetrievingClient, study_uid: str, series_uid: str, instance_uid: str
) -> Response:
    """One result object."""
    return _files(request, services, client, study_uid, series_uid, instance_uid)


@router.get("/studies/{study_uid}/series/{series_uid}/instances/{instance_uid}/metadata")
def instance_metadata(
    request: Request, services: Shared, client: RetrievingClient, study_uid: str, series_uid: str, instance_uid: str
) -> Response:
    """Its metadata."""
    return _metadata(request, services, client, study_uid, series_uid, instance_uid)


def _files(request: Request, services: DicomWebServices, client: DicomWebClient, *uids: str) -> Response:
    found = _select(services, *uids)
    as_parts = wants_multipart(request, [ExplicitVRLittleEndian] * len(found))
    _audit(request, services, client, uids[0], f"WADO-RS, {len(found)} objects")
    if not as_parts:
        return FileResponse(found[0].path, media_type=DICOM)
    boundary = secrets.token_hex(16)
    media_type = f'{MULTIPART}; type="{DICOM}"; boundary={boundary}'
    return StreamingResponse(_parts([one.path for one in found], boundary), media_type=media_type)


def _metadata(request: Request, services: DicomWebServices, client: DicomWebClient, *uids: str) -> Response:
    require_json(request)
    found = _select(services, *uids)
    _audit(request, services, client, uids[0], f"WADO-RS, metadata of {len(found)} objects")
    return JSONResponse([_document(one.path) for one in found], media_type=DICOM_JSON)


def _select(
    services: DicomWebServices, study_uid: str, series_uid: str = "", instance_uid: str = ""
) -> list[ResultInstance]:
    """The result objects that an address names, each compared with its digest.

    Raises
    ------
    HTTPException
        404: there are none. 500: one of them is damaged.
    """
    found = [
        one
        for objects in result_studies(services, study_uid)
        for one in objects
        if series_uid in ("", one.series_uid) and instance_uid in ("", one.text("SOPInstanceUID"))
    ]
    if not found:
        raise HTTPException(404, "The node has no such result. Images that it received are not served.")
    for one in found:
        try:
            services.archive.verify(one.file)
        except DamagedFileError as error:
            _log.error("a result file cannot be served", why=str(error))
            raise HTTPException(500, f"A result file is damaged: {one.file.path}.") from error
    return found


def _audit(request: Request, services: DicomWebServices, client: DicomWebClient, study_uid: str, detail: str) -> None:
    services.ledger.record_access(client.audit_name, AuditAction.DOWNLOAD, study_uid, detail, address_of(request))


def _parts(paths: list[Path], boundary: str) -> Iterator[bytes]:
    for path in paths:
        yield f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _document(path: Path) -> Json:
    """The data set as DICOM JSON, which is UTF-8, without pixel data."""
    document: dict[str, Any] = dcmread(path, stop_before_pixels=True).to_json_dict()
    if _CHARACTER_SET in document:
        document[_CHARACTER_SET] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    return document
