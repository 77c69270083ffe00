"""How are studies found by QIDO-RS and fetched by WADO-RS? (PS3.18 chapter 10)

Each part of a response is stored by :mod:`node.receive.ingest`, as the receiver's objects are, while it arrives: a
study of any size needs little memory. Every wait has a limit, also for a service that sends a byte now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from pydicom.dataset import Dataset

from node.deliver.base import Unanswered, Unreachable
from node.deliver.http import Service, signed_in
from node.ledger import TransferCounts
from node.receive.ingest import Ingest
from node.receive.multipart import PartsError
from node.settings.destinations import WebService

from .multipart import MultipartReader, ReceivedParts
from .source import (
    MOST_ANSWERS,
    SERIES_KEYS,
    STUDY_KEYS,
    FoundSeries,
    FoundStudy,
    SourceError,
    StudyQuery,
    TooManyMatchesError,
    TransferLimits,
    TransferTally,
    found_series,
    found_study,
)

_JSON = {"Accept": "application/dicom+json"}
_PARTS = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
_LASTING = (400, 401, 403, 405, 406, 413, 414)
Given = TypeVar("Given")


@dataclass(frozen=True)
class DicomWeb:
    """A PACS with QIDO-RS and WADO-RS; implements :class:`node.retrieve.source.StudySource`."""

    settings: WebService
    ingest: Ingest
    for_comparison: bool = True
    """Whether images are only fetched to be compared with; otherwise they are treated as if they had been sent."""

    @property
    def address(self) -> str:
        """Base address of the service."""
        return self.settings.url

    def studies(self, query: StudyQuery) -> list[FoundStudy]:
        """See :meth:`node.retrieve.source.StudySource.studies`."""
        return [found_study(answer) for answer in self._find(study_search(query))]

    def series(self, study_uid: str) -> list[FoundSeries]:
        """See :meth:`node.retrieve.source.StudySource.series`."""
        search = _search(f"/studies/{study_uid}/series", {}, SERIES_KEYS)
        return [found_series(answer) for answer in self._find(search)]

    def fetch(self, study_uid: str, series_uids: Sequence[str], bounds: TransferLimits) -> TransferCounts:
        """See :meth:`node.retrieve.source.StudySource.fetch`: one retrieval per series."""
        return self.retrieve([f"/studies/{study_uid}/series/{uid}" for uid in series_uids], bounds)

    def retrieve(self, paths: Sequence[str], bounds: TransferLimits) -> TransferCounts:
        """Fetch every image of these resources, named relative to the service's address."""
        tally = TransferTally(bounds)
        for path in paths:
            _run(self._retrieve(path, tally), bounds, tally)
        if tally.counts.failed:
            number = tally.counts.failed
            raise SourceError(f"{number} images of {self.address} cannot be stored", counts=tally.counts)
        return tally.counts

    def _find(self, search: str) -> list[Dataset]:
        async def ask() -> list[Dataset]:
            async with self._service() as service:
                answer = await service.ask("GET", search, _JSON)
            if answer.status == 204 or (answer.status == 200 and not answer.content):
                return []
            if answer.status != 200:
                said = f" ({answer.excerpt})" if answer.excerpt else ""
                what = f"{self.address} answers a search with {answer.words}{said}"
                raise SourceError(what, lasting=answer.status in _LASTING)
            try:
                found = [Dataset.from_json(item) for item in answer.document]
            except Exception as error:  # pydicom raises many types on malformed documents
                raise SourceError(f"{self.address} answers a search with something other than DICOM JSON") from error
            if len(found) >= MOST_ANSWERS or answer.is_incomplete:
                what = f"{self.address} returns only {len(found)} of the matches for QIDO-RS"
                raise TooManyMatchesError(what, found)
            return found

        return asyncio.run(ask())

    async def _retrieve(self, path: str, tally: TransferTally) -> None:
        async with (
            self._service() as service,
            service.client.stream("GET", f"{self.address}{path}", headers=_PARTS) as response,
        ):
            if response.status_code != 200:
                words = f"{response.status_code} {response.reason_phrase}"
                what = f"{self.address} answers a retrieval with {words}"
                raise SourceError(what, lasting=response.status_code in _LASTING, counts=tally.counts)
            before = tally.counts
            content_type = response.headers.get("content-type", "")
            transfer = self.ingest.begin("wado-rs", path.rpartition("/")[2])
            with MultipartReader(
                content_type, self.ingest, self.address, transfer=transfer, requested=self.for_comparison
            ) as reader:
                async for chunk in response.aiter_bytes():
                    reader.write(chunk)
                    self._count(tally, before, reader.delivered)
                reader.end()
                self._count(tally, before, reader.delivered)

    @staticmethod
    def _count(tally: TransferTally, before: TransferCounts, delivered: ReceivedParts) -> None:
        tally.counts = TransferCounts(
            expected=before.expected + delivered.parts,
            completed=before.completed + delivered.stored,
            failed=before.failed + delivered.refused,
            warnings=before.warnings + delivered.conflicts,
        )
        tally.check(tally.counts.expected)

    @asynccontextmanager
    async def _service(self) -> AsyncIterator[Service]:
        """Open the service; each of its errors becomes a :class:`SourceError`."""
        try:
            async with signed_in(self.settings) as service:
                yield service
        except (Unreachable, Unanswered) as error:
            raise SourceError(f"{self.address}: {error}" if isinstance(error, Unanswered) else str(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL, PartsError) as error:
            raise SourceError(f"{self.address}: {error or type(error).__name__}") from error


def study_search(query: StudyQuery) -> str:
    """The search for studies, relative to the service's address."""
    return _search("/studies", query.matching, STUDY_KEYS)


def _search(path: str, match: Mapping[str, str], keys: Sequence[str]) -> str:
    query = httpx.QueryParams(
        [*match.items(), ("limit", str(MOST_ANSWERS)), *(("includefield", keyword) for keyword in keys)]
    )
    return f"{path}?{query}"


def _run(work: Coroutine[Any, Any, Given], bounds: TransferLimits, tally: TransferTally) -> Given:
    """Run until it is done or the limits are reached, however slowly the service sends."""

    async def bounded() -> Given:
        task = asyncio.create_task(work)
        try:
            while not task.done():
                if over := bounds.over:
                    raise SourceError(f"given up: {over}", counts=tally.counts)
                await asyncio.wait([task], timeout=0.2)
            return task.result()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

    return asyncio.run(bounded())
