"""How does the node talk to a worklist manager? By the Worklist Service (UPS-RS, PS3.18 chapter 11)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from pydicom import Dataset

from node.deliver.base import Unanswered, Unreachable
from node.deliver.http import ServiceResponse, signed_in
from node.ledger import WorkItemState
from node.settings.destinations import WebService

JSON: Final = "application/dicom+json"
PAGE: Final = 20
"""Matches of a search that are asked for at once: each may refer to thousands of images."""
MOST_PAGES: Final = 50
"""Most pages that are read; further matches are found when these are no longer scheduled."""


class ManagerAwayError(Exception):
    """The manager cannot be reached, or does not answer; everything is told later."""


class ItemRefusedError(Exception):
    """The manager does not do what was asked, or answers with something else; it may take other requests."""


@dataclass(frozen=True)
class WorklistManager:
    """A worklist manager. Every method raises :class:`ManagerAwayError`."""

    settings: WebService

    @property
    def address(self) -> str:
        """Base address of the manager."""
        return self.settings.address

    def check(self) -> str:
        """Search for one work item, which tests the address and the authorisation."""
        answer = self._ask("GET", f"/workitems?{httpx.QueryParams({'ProcedureStepState': 'SCHEDULED', 'limit': 1})}")
        if answer.status not in (200, 204):
            raise ManagerAwayError(f"{self.address} answers a search with {_words(answer)}")
        return "answers UPS-RS"

    def search(self, match: Mapping[str, str]) -> list[Dataset]:
        """Find work items, by keyword or path of keywords, and value."""
        found: dict[str, Dataset] = {}
        for page in range(MOST_PAGES):
            items = self._search_page({**match, "limit": str(PAGE), "offset": str(page * PAGE)})
            new = {uid: item for item in items if (uid := str(item.get("SOPInstanceUID") or "")) not in found}
            found |= new
            if len(items) < PAGE or not new:  # the last page, or a manager that knows no offset
                break
        return list(found.values())

    def _search_page(self, parameters: Mapping[str, str]) -> list[Dataset]:
        answer = self._ask("GET", f"/workitems?{httpx.QueryParams(parameters)}")
        if answer.status == 204 or (answer.status == 200 and not answer.content):
            return []
        if answer.status != 200:
            raise ItemRefusedError(f"answers a search with {_words(answer)}")
        return _datasets(answer)

    def retrieve(self, uid: str) -> Dataset | None:
        """Get a work item; ``None`` if the manager does not have it (any more)."""
        answer = self._ask("GET", f"/workitems/{uid}")
        if answer.status in (404, 410):
            return None
        if answer.status != 200:
            raise ItemRefusedError(f"answers its retrieval with {_words(answer)}")
        return next(iter(_datasets(answer)), None)

    def create(self, uid: str, item: Dataset) -> None:
        """Create a work item; no error if it exists, as after an answer that was lost."""
        answer = self._ask("POST", f"/workitems?{uid}", item)
        if answer.status not in (200, 201, 409):
            raise ItemRefusedError(f"does not create it: {_words(answer)}")

    def update(self, uid: str, transaction_uid: str, changes: Dataset) -> None:
        """Change attributes of a work item that this node has claimed."""
        answer = self._ask("POST", f"/workitems/{uid}?{transaction_uid}", changes)
        if answer.status not in (200, 202, 204):
            raise ItemRefusedError(f"does not change it: {_words(answer)}")

    def change_state(self, uid: str, transaction_uid: str, state: WorkItemState) -> None:
        """Claim, complete or cancel a work item; no error if it is in that final state already."""
        change = Dataset()
        change.TransactionUID, change.ProcedureStepState = transaction_uid, state.value
        answer = self._ask("PUT", f"/workitems/{uid}/state", change)
        if answer.status not in (200, 202, 204):
            raise ItemRefusedError(f"does not set it to {state.value}: {_words(answer)}")

    def _ask(self, method: str, path: str, dataset: Dataset | None = None) -> ServiceResponse:
        headers = {"Accept": JSON, "Cache-Control": "no-cache"}
        content = b""
        if dataset is not None:
            headers["Content-Type"] = JSON
            content = json.dumps([dataset.to_json_dict()]).encode()

        async def ask() -> ServiceResponse:
            async with signed_in(self.settings) as service:
                return await service.ask(method, path, headers, content)

        try:
            return asyncio.run(ask())
        except Unreachable as error:
            raise ManagerAwayError(str(error)) from error
        except Unanswered as error:
            raise ManagerAwayError(f"{self.address}: {error}") from error


def _datasets(answer: ServiceResponse) -> list[Dataset]:
    document: Any = answer.document
    try:
        return [Dataset.from_json(one) for one in (document if isinstance(document, list) else [document])]
    except Exception as error:  # pydicom raises many types on malformed documents
        raise ItemRefusedError("answers with something other than DICOM JSON") from error


def _words(answer: ServiceResponse) -> str:
    said = answer.warning or answer.excerpt
    return f"{answer.words}: {said}" if said else answer.words
