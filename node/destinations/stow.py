"""How does a result go to a DICOMweb service? STOW-RS (PS3.18 10.5), one object a request."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.destination_settings import StowDestination
from node.destinations.base import Sent, Unreachable, send_each
from node.destinations.http import Answer, Service, signed_in
from node.destinations.scu import read_outgoing
from node.destinations.statuses import in_words, is_accepted

_JSON: Final = "application/dicom+json"
_FAILED, _REFERENCED = "00081198", "00081199"  # Failed SOP Sequence, Referenced SOP Sequence
_FAILURE, _WARNING = "00081197", "00081196"  # Failure Reason, Warning Reason
_INSTANCE = "00081155"  # Referenced SOP Instance UID


@dataclass(frozen=True)
class Stow:
    """A DICOMweb service; satisfies :class:`node.destinations.base.Destination`."""

    settings: StowDestination

    @property
    def address(self) -> str:
        """The base address of the service."""
        return self.settings.address

    def send(self, paths: Sequence[Path], record: Callable[[Sent], None]) -> None:
        """Send over one connection; see :meth:`node.destinations.base.Destination.send`."""
        asyncio.run(self._send(paths, record))

    def check(self) -> str:
        """Search for one study (QIDO-RS): it shows that the address is right and that the node is let in."""
        return asyncio.run(self._check())

    async def _check(self) -> str:
        async with signed_in(self.settings) as service:
            answer = await service.probe("/studies?limit=1", _JSON)
        if answer.status not in (200, 204):
            raise Unreachable(f"{self.address} answers {answer.words} when it is searched")
        return "answers QIDO-RS"

    async def _send(self, paths: Sequence[Path], record: Callable[[Sent], None]) -> None:
        async with signed_in(self.settings) as service:
            await send_each(paths, record, lambda path: _store(service, path))


async def _store(service: Service, path: Path) -> Sent:
    outgoing = read_outgoing(path)
    if outgoing is None:
        return Sent(path, False, None, "the node cannot read its own result file any more")
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


def judge(path: Path, uid: str, answer: Answer) -> Sent:
    """What the service said about this instance (PS3.18 10.5.3, Store Instances Response of annex I).

    It counts as stored only if the answer names it among the stored ones: a page in between, of a proxy that asks for a
    password, answers 200 as well.
    """
    document = answer.document
    document = document[0] if isinstance(document, list) and document else document
    failed, stored = _item(document, _FAILED, uid), _item(document, _REFERENCED, uid)
    if failed is not None:
        reason = _number(failed, _FAILURE)
        if reason is None:
            return Sent(path, False, None, f"refused without a reason ({answer.words})")
        return Sent(path, is_accepted(reason), reason, in_words(reason))
    if answer.status in (200, 202) and stored is not None:
        warning = _number(stored, _WARNING) or 0
        words = in_words(warning) if is_accepted(warning) else f"stored with a warning (0x{warning:04X})"
        return Sent(path, True, warning, words)
    if answer.status in (200, 202):
        return Sent(path, False, None, f"answered {answer.words} without saying that it stored the object")
    return Sent(path, False, None, f"refused: {answer.words}" + (f": {answer.excerpt}" if answer.excerpt else ""))


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
