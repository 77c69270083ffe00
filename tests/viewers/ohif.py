"""The built OHIF viewer on a loopback port, with Orthanc's DICOMweb behind the same address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse

from tests.orthanc import Orthanc
from tests.web_server import served

_SOURCE = "@ohif/extension-default.dataSourcesModule.dicomweb"


@contextmanager
def ohif(built: Path, pacs: Orthanc) -> Iterator[str]:
    """Serve OHIF until the block ends; gives its address."""
    app, client = FastAPI(), httpx.AsyncClient(base_url=pacs.http.base_url, timeout=60, trust_env=False)

    @app.get("/dicom-web/{path:path}")
    async def dicomweb(request: Request, path: str) -> Response:
        headers = {"Accept": request.headers.get("Accept", "*/*"), "Host": request.headers["Host"]}
        answer = await client.get(f"/dicom-web/{path}", params=request.query_params, headers=headers)
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("Content-Type"))

    @app.get("/app-config.js")
    def configuration(request: Request) -> Response:
        text = f"window.config = {json.dumps(_configuration(str(request.base_url)))};"
        return Response(text, media_type="text/javascript")

    @app.get("/{path:path}")
    def file(path: str) -> FileResponse:
        found = built / path
        return FileResponse(found if found.is_file() else built / "index.html")

    with served(app) as address:
        yield address


def _configuration(address: str) -> dict[str, object]:
    root = f"{address}dicom-web"
    source = {
        "name": "pacs",
        "friendlyName": "pacs",
        "qidoRoot": root,
        "wadoRoot": root,
        "wadoUriRoot": root,
        "qidoSupportsIncludeField": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "omitQuotationForMultipartRequest": True,
    }
    return {
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "maxNumberOfWebWorkers": 2,
        "investigationalUseDialog": {"option": "never"},
        "defaultDataSourceName": "pacs",
        "dataSources": [{"namespace": _SOURCE, "sourceName": "pacs", "configuration": source}],
    }
