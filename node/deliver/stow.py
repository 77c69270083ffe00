"""How is a result sent to a DICOMweb service? By STOW-RS (PS3.18 10.5), one object per request."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.settings.destinations import StowDestination

from .base import SendResult, Unreachable, send_each
from .http import Service, ServiceResponse, signed_in
from .scu import read_outgoing
from .storage_status import in_words, is_accepted

_JSON: Final = "application/dicom+json"
_FAILED, _REFERENCED = "00081198", "00081199"  # Failed SOP Sequence, Referenced SOP Sequence
_FAILURE, _WARNING = "00081197", "00081196"  # Failure Reason, Warning Reason
_INSTANCE = "00081155"  # Referenced SOP Instance UID


@dataclass(frozen=True)
class Stow:
    """A DICOMweb service; satisfies :class:`node.deliver.base.Destination`."""

    settings: StowDestination

    @property
    def address(self) -> str:
        """The base address of the service."""
        return self.settings.address

    def send(self, paths: Sequence[Path], record: Callable[[SendResult], None]) -> None:
        """Send over one connection; see :meth:`node.deliver.base.Destination.send`."""
        asyncio.run(self._send(paths, record))

    def check(self) -> str:
        """Search for one study (QIDO-RS), which tests the address and the authorisation."""
        return asyncio.run(self._check())

    async def _check(self) -> str:
        async with signed_in(self.settings) as service:
            answer = await service.probe("/studies?limit=1", _JSON)
        if answer.status not in (200, 204):
            raise Unreachable(f"{self.address} answers a search with {answer.words}")
        return "answers QIDO-RS"

    async def _send(self, paths: Sequence[Path], record: Callable[[SendResult], None]) -> None:
        async with signed_in(self.settings) as service:
            await send_each(paths, record, lambda path: _store(service, path))


async def _store(service: Service, path: Path) -> SendResult:
    outgoing = read_outgoing(path)
    if outgoing is None:
        return SendResult(path, False, None, "the node can no longer read this result file")
    boundary = secrets.token_hex(16)
    # Without the optional transfer-syntax parameter: Orthanc leaves out a part that has one, and answers 200.
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n"
    content = head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    headers = {
        "Accept": _JSON,
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
    }
    answer = await service.ask("POST", "/studies", headers, content)
    return judge(path, outgoing.sop_instance_uid, answer)


def open_destination(settings: StowDestination, _calling_ae_title: str) -> Stow:
    """Make the destination; connects to nothing yet."""
    return Stow(settings)


def judge(path: Path, uid: str, answer: ServiceResponse) -> SendResult:
    """Evaluate the answer about this instance (PS3.18 10.5.3, Store Instances Response of annex I).

    It counts as stored only if the answer lists it as stored: the login page of a proxy answers 200 as well.
    """
    document = answer.document
    document = document[0] if isinstance(document, list) and document else document
    failed, stored = _item(document, _FAILED, uid), _item(document, _REFERENCED, uid)
    if failed is not None:
        reason = _number(failed, _FAILURE)
        if reason is None:
            return SendResult(path, False, None, f"refused without a reason ({answer.words})")
        return SendResult(path, is_accepted(reason), reason, in_words(reason))
    if answer.status in (200, 202) and stored is not None:
        warning = _number(stored, _WARNING) or 0
        words = in_words(warning) if is_accepted(warning) else f"stored with a warning (0x{warning:04X})"
        return SendResult(path, True, warning, words)
    if answer.status in (200, 202):
        return SendResult(path, False, None, f"answered {answer.words} without saying that it stored the object")
    return SendResult(path, False, None, f"refused: {answer.words}" + (f": {answer.excerpt}" if answer.excerpt else ""))


def _item(document: Any, sequence: str, uid: str) -> dict[str, Any] | None:
    """The item of a sequence that is about this instance (DICOM JSON model, PS3.18 F.2)."""
    for item in _values(document, sequence):
        if isinstance(item, dict) and uid in _values(item, _INSTANCE):
            return item
    return None


def _number(item: dict[str, Any], tag: str) -> int | None:
    return next((value for value in _values(item, tag) if isinstance(value, int) and 0 <= value <= 0xFFFF), None)


def _values(item: Any, tag: str) -> list[Any]:
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []
