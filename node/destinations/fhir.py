"""How does a report go to a FHIR server? One transaction a report; the server's outcome is the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.destination_settings import FhirDestination
from node.destinations.base import Sent, Unreachable, send_each
from node.destinations.bundle import bundle
from node.destinations.http import Answer, Service, signed_in
from node.report import read_report
from pipeline.errors import InputError

_JSON: Final = "application/fhir+json"


@dataclass(frozen=True)
class Fhir:
    """A FHIR R4 server; satisfies :class:`node.destinations.base.Destination`."""

    settings: FhirDestination

    @property
    def address(self) -> str:
        """The base address of the service."""
        return self.settings.address

    def send(self, paths: Sequence[Path], record: Callable[[Sent], None]) -> None:
        """Send one transaction a report; see :meth:`node.destinations.base.Destination.send`."""
        asyncio.run(self._send_all(paths, record))

    def check(self) -> str:
        """Ask for the server's capabilities: they say which version of FHIR it speaks."""
        return asyncio.run(self._check())

    async def _check(self) -> str:
        async with signed_in(self.settings) as service:
            answer = await service.probe("/metadata", _JSON)
        document = answer.document
        version = document.get("fhirVersion") if isinstance(document, dict) else None
        if answer.status != 200 or not isinstance(version, str):
            raise Unreachable(f"{self.address} answers {answer.words}, and no CapabilityStatement")
        if not version.startswith("4."):
            raise Unreachable(f"{self.address} speaks FHIR {version[:20]}; the node speaks R4 (4.0)")
        return f"speaks FHIR {version[:20]}"

    async def _send_all(self, paths: Sequence[Path], record: Callable[[Sent], None]) -> None:
        async with signed_in(self.settings) as service:
            await send_each(paths, record, lambda path: self._send(service, path))

    async def _send(self, service: Service, path: Path) -> Sent:
        try:
            transaction = bundle(read_report(path), self.settings)
        except InputError as error:
            return Sent(path, False, None, str(error))
        content = json.dumps(transaction, ensure_ascii=False).encode("utf-8", "replace")
        headers = {"Accept": _JSON, "Content-Type": f"{_JSON}; charset=utf-8", "Prefer": "return=minimal"}
        answer = await service.ask("POST", "", headers, content)
        return judge(path, len(transaction["entry"]), answer)


def judge(path: Path, entries: int, answer: Answer) -> Sent:
    """What the server said about a transaction (FHIR R4, http.html#transaction-response): all of it, or nothing."""
    document = answer.document
    said = outcome(document)
    if not 200 <= answer.status < 300:
        return Sent(path, False, None, f"refused: {answer.words}" + (f": {said or answer.excerpt}").rstrip(": "))
    statuses = _statuses(document)
    if len(statuses) != entries:
        return Sent(
            path, False, None, f"answered {answer.words} without the outcome of the transaction. {said}".strip()
        )
    failed = [status for status in statuses if not status.startswith("2")]
    if failed:
        return Sent(path, False, None, f"refused in part: {', '.join(failed)}")
    made = sum(status.startswith("201") for status in statuses)
    return Sent(path, True, None, f"accepted: {made} made, {entries - made} updated")


def outcome(document: Any) -> str:
    """What an OperationOutcome says, in a line; empty if it is none."""
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
    return " ".join("".join(c if c.isprintable() else " " for c in " ".join(words)).split())


def _statuses(document: Any) -> list[str]:
    """The status of each entry of a transaction's answer."""
    if not isinstance(document, dict) or document.get("resourceType") != "Bundle":
        return []
    entries = document.get("entry")
    responses = [e.get("response") for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    return [str(response.get("status", ""))[:40] for response in responses if isinstance(response, dict)]
