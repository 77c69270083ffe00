"""How is a report sent to a FHIR server? One transaction per report; the server's outcome is the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.settings.destinations import FhirDestination
from node.text import one_line
from pipeline.errors import InputError

from .base import SendResult, Unreachable, send_each
from .fhir_bundle import bundle
from .http import Service, ServiceResponse, signed_in
from .report import read_report

_JSON: Final = "application/fhir+json"


@dataclass(frozen=True)
class Fhir:
    """A FHIR R4 server; satisfies :class:`node.deliver.base.Destination`."""

    settings: FhirDestination

    @property
    def address(self) -> str:
        """The base address of the service."""
        return self.settings.address

    def send(self, paths: Sequence[Path], record: Callable[[SendResult], None]) -> None:
        """Send one transaction per report; see :meth:`node.deliver.base.Destination.send`."""
        asyncio.run(self._send_all(paths, record))

    def check(self) -> str:
        """Read the CapabilityStatement, which says which version of FHIR the server supports."""
        return asyncio.run(self._check())

    async def _check(self) -> str:
        async with signed_in(self.settings) as service:
            answer = await service.probe("/metadata", _JSON)
        document = answer.document
        version = document.get("fhirVersion") if isinstance(document, dict) else None
        if answer.status != 200 or not isinstance(version, str):
            raise Unreachable(f"{self.address} answers {answer.words} without a CapabilityStatement")
        if not version.startswith("4."):
            raise Unreachable(f"{self.address} speaks FHIR {version[:20]}; the node speaks R4 (4.0)")
        return f"speaks FHIR {version[:20]}"

    async def _send_all(self, paths: Sequence[Path], record: Callable[[SendResult], None]) -> None:
        async with signed_in(self.settings) as service:
            await send_each(paths, record, lambda path: self._send(service, path))

    async def _send(self, service: Service, path: Path) -> SendResult:
        try:
            transaction = bundle(read_report(path), self.settings)
        except InputError as error:
            return SendResult(path, False, None, str(error))
        content = json.dumps(transaction, ensure_ascii=False).encode("utf-8", "replace")
        headers = {"Accept": _JSON, "Content-Type": f"{_JSON}; charset=utf-8", "Prefer": "return=minimal"}
        answer = await service.ask("POST", "", headers, content)
        return judge(path, len(transaction["entry"]), answer)


def open_destination(settings: FhirDestination, _calling_ae_title: str) -> Fhir:
    """Make the destination; connects to nothing yet."""
    return Fhir(settings)


def judge(path: Path, entries: int, answer: ServiceResponse) -> SendResult:
    """Evaluate the answer to a transaction (FHIR R4, http.html#transaction-response): all of it, or nothing."""
    document = answer.document
    said = outcome(document)
    if not 200 <= answer.status < 300:
        return SendResult(path, False, None, f"refused: {answer.words}" + (f": {said or answer.excerpt}").rstrip(": "))
    statuses = _statuses(document)
    if len(statuses) != entries:
        return SendResult(
            path, False, None, f"answered {answer.words} without the outcome of the transaction. {said}".strip()
        )
    failed = [status for status in statuses if not status.startswith("2")]
    if failed:
        return SendResult(path, False, None, f"refused in part: {', '.join(failed)}")
    made = sum(status.startswith("201") for status in statuses)
    return SendResult(path, True, None, f"accepted: {made} made, {entries - made} updated")


def outcome(document: Any) -> str:
    """The text of an OperationOutcome in one line; empty if it is not one."""
    issues = document.get("issue") if isinstance(document, dict) else None
    if not isinstance(issues, list) or document.get("resourceType") != "OperationOutcome":
        return ""
    return "; ".join(filter(None, (_issue(issue) for issue in issues)))


def _issue(issue: Any) -> str:
    if not isinstance(issue, dict):
        return ""
    details = issue.get("details")
    text = issue.get("diagnostics") or (details.get("text") if isinstance(details, dict) else "") or ""
    words = (str(part) for part in (issue.get("severity"), issue.get("code"), text) if part)
    return one_line(" ".join(words))


def _statuses(document: Any) -> list[str]:
    """The status of each entry of a transaction response."""
    if not isinstance(document, dict) or document.get("resourceType") != "Bundle":
        return []
    entries = document.get("entry")
    responses = [e.get("response") for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    return [str(response.get("status", ""))[:40] for response in responses if isinstance(response, dict)]
