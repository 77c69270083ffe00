"""A node with DICOMweb clients, and what they send, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset

from node.settings import Settings, load_settings
from tests.dicom_factory import encode

SENDER, VIEWER = "s" * 32, "v" * 32
CLIENTS = {
    "mr1": {"ae_title": "MR1", "token": SENDER},
    "viewer": {"ae_title": "VIEWER", "token": VIEWER, "store": False, "retrieve": True},
}
TYPE = 'multipart/related; type="application/dicom"; boundary=XbX'


def settings_with_clients(folder: Path, **more: Any) -> Settings:
    """Settings of a node that a sender and a viewer may use."""
    limits = more.pop("dicomweb", {})
    values = {"archive": {"free_disk_mb": 0}, **more, "dicomweb": {"clients": CLIENTS, **limits}}
    return load_settings(None, data_dir=folder, **values)


def as_file(dataset: Dataset, syntax: str = "explicit") -> bytes:
    """A DICOM file."""
    buffer = BytesIO()
    encode(dataset, syntax).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def body(*parts: bytes, end: bytes = b"\r\n--XbX--\r\n") -> bytes:
    """A multipart message of files."""
    head = b"--XbX\r\nContent-Type: application/dicom\r\n\r\n"
    return b"\r\n".join(head + part for part in parts) + end


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


def uids(document: dict[str, Any], sequence: str) -> dict[str, int | None]:
    """Instances in a sequence of a Store Instances Response, with failure or warning reason."""
    items: Sequence[dict[str, Any]] = document.get(sequence, {}).get("Value", ())
    found = {}
    for number, item in enumerate(items):
        reason = item.get("00081197", item.get("00081196", {})).get("Value", [None])[0]
        found[item["00081155"]["Value"][0] if "00081155" in item else str(number)] = reason
    return found
