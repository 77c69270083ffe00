"""A real Orthanc (Debian's) on free loopback ports: the PACS of the integration tests."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from .ports import free_port

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
ONE_CALL_EACH = httpx.Limits(max_keepalive_connections=0)
"""Orthanc closes an idle connection without a word, at times just as the next call goes out on it."""


class Orthanc:
    """A running Orthanc.

    Attributes
    ----------
    ae_title, dicom_port
        Where it takes C-STORE.
    http : httpx.Client
        Its REST API; DICOMweb is below ``/dicom-web``.
    """

    ae_title = "ORTHANC"

    def __init__(self, dicom_port: int, http_port: int) -> None:
        self.dicom_port = dicom_port
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{http_port}", timeout=30, trust_env=False, limits=ONE_CALL_EACH
        )

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON document at `path`."""
        answer = self.http.get(path, params=parameters)
        answer.raise_for_status()
        return answer.json()

    def upload(self, *paths: Path) -> None:
        """Store files as a modality would, without DICOM's network."""
        for path in paths:
            self.http.post("/instances", content=path.read_bytes()).raise_for_status()

    def find_series(self, study_instance_uid: str) -> list[dict[str, Any]]:
        """Return the main tags of each series of a study, by Orthanc's own DICOMweb (QIDO-RS)."""
        return [
            {name: (value.get("Value") or [None])[0] for name, value in series.items()}
            for series in self.get(f"/dicom-web/studies/{study_instance_uid}/series", includefield="all")
        ]

    def instances(self, study_instance_uid: str, modality: str | None = None) -> list[bytes]:
        """Return the files of a study as Orthanc keeps them, of one modality if given."""
        query = {"StudyInstanceUID": study_instance_uid} | ({"Modality": modality} if modality else {})
        found = self.http.post("/tools/find", json={"Level": "Instance", "Query": query}).json()
        return [self.http.get(f"/instances/{uid}/file").content for uid in found]


@contextmanager
def run_orthanc(
    folder: Path,
    *,
    node: tuple[str, int] | None = None,
    lua: Path | None = None,
    ports: tuple[int, int] | None = None,
    stable_age_s: int = 1,
    **more: Any,
) -> Iterator[Orthanc]:
    """Run Orthanc in `folder` until the block ends.

    Parameters
    ----------
    folder : Path
        Its database and log; kept between two runs with the same folder.
    node : tuple of (AE title, port), optional
        The node under test, known to Orthanc as ``cmbnode``.
    lua : Path, optional
        A script to load, such as the routing script of ``deploy/orthanc``.
    ports : tuple of (DICOM, HTTP), optional
        Fixed ports, to start the same PACS again.
    stable_age_s : int
        Quiet seconds before Orthanc calls a study stable.
    **more
        Further settings of ``orthanc.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dicom_port, http_port = ports or (free_port(), free_port())
    configuration = {
        "Name": "PACS",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAet": Orthanc.ae_title,
        "DicomPort": dicom_port,
        "HttpPort": http_port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StableAge": stable_age_s,
        "OverwriteInstances": False,
        "Plugins": [PLUGIN],
        "LuaScripts": [str(lua)] if lua else [],
        "DicomModalities": {"cmbnode": [node[0], "127.0.0.1", node[1]]} if node else {},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **more,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("ab") as log:
        process = subprocess.Popen(
            ["/usr/sbin/Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder
        )
    orthanc = Orthanc(dicom_port, http_port)
    try:
        _wait_until_up(orthanc, process, folder / "orthanc.log")
        yield orthanc
    finally:
        orthanc.http.close()
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(orthanc: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            orthanc.get("/system")
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"Orthanc did not start:\n{log.read_text()[-2000:]}")
