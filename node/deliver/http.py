"""How does the node talk to a web service? One request at a time, with limits on time, size and redirects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httpx

from node.settings.destinations import WebService

from .base import Unanswered, Unreachable
from .tls import tls_context

ANSWER_BYTES: Final = 4_194_304
"""Longest answer that is read, bytes."""

_OUT_OF_ORDER: Final = (401, 407, 408, 429, 502, 503, 504)
"""Status codes that concern the service and not the object."""


@dataclass(frozen=True)
class ServiceResponse:
    """The answer of a web service."""

    status: int
    content_type: str
    content: bytes
    warning: str = ""
    """Header `Warning`, which says in words what is wrong (PS3.18 chapter 11)."""

    @property
    def is_incomplete(self) -> bool:
        """Whether the service says that it has more than it returns (PS3.18)."""
        return self.warning.startswith("299")

    @property
    def document(self) -> Any:
        """The answer as JSON; ``None`` if it is not JSON."""
        if "json" not in self.content_type:
            return None
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None

    @property
    def words(self) -> str:
        """``409 Conflict``."""
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return str(self.status)

    @property
    def excerpt(self) -> str:
        """The beginning of a text answer, for a person."""
        if not self.content_type.startswith(("text/plain", "application/json")):
            return ""
        return " ".join(self.content[:300].decode("utf-8", "replace").split())


@dataclass(frozen=True)
class Service:
    """A web service with the node's credentials, within :func:`signed_in`."""

    settings: WebService
    client: httpx.AsyncClient

    async def ask(self, method: str, path: str, headers: Mapping[str, str], content: bytes = b"") -> ServiceResponse:
        """Send a request; redirects are not followed, because it contains patient data.

        Raises
        ------
        Unreachable
            If it cannot be reached, does not authorise the node, or answers that it is unavailable.
        Unanswered
            If it was reached, but there is no complete answer in time.
        """
        limit_s, address = self.settings.timeout_s, self.settings.address
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._ask(method, f"{address}{path}", headers, content)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise Unreachable(f"{address} cannot be reached: {error or type(error).__name__}") from error
        except TimeoutError as error:
            raise Unanswered(f"no answer within {limit_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # What the client itself refuses to send may quote the credentials.
            quoting = isinstance(error, httpx.LocalProtocolError | httpx.InvalidURL)
            raise Unanswered(f"no answer: {(not quoting and str(error)) or type(error).__name__}") from error
        if answer.status in _OUT_OF_ORDER:
            said = f": {answer.excerpt}" if answer.excerpt else ""
            raise Unreachable(f"{address} answers {answer.words}{said}")
        return answer

    async def probe(self, path: str, accept: str) -> ServiceResponse:
        """Test the connection; raises :class:`Unreachable` also if there is no answer."""
        try:
            return await self.ask("GET", path, {"Accept": accept})
        except Unanswered as error:
            raise Unreachable(f"{self.settings.address}: {error}") from error

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> ServiceResponse:
        async with self.client.stream(method, url, headers=headers, content=content) as response:
            received = bytearray()
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > ANSWER_BYTES:
                    raise Unanswered(f"its answer is longer than {ANSWER_BYTES} bytes")
            return ServiceResponse(
                response.status_code,
                response.headers.get("content-type", "").lower(),
                bytes(received),
                " ".join(response.headers.get("warning", "").split())[:300],
            )


@asynccontextmanager
async def signed_in(settings: WebService) -> AsyncIterator[Service]:
    """Open a service with the credentials and certificates of its settings; connects to nothing yet.

    Proxies, credentials and certificates in the environment are ignored.
    """
    secret = settings.token.get_secret_value() if settings.token is not None else ""
    password = settings.password.get_secret_value() if settings.password is not None else ""
    auth = httpx.BasicAuth(settings.username, password) if settings.username is not None else None
    async with httpx.AsyncClient(
        headers={"Authorization": f"Bearer {secret}"} if secret else {},
        auth=auth,
        verify=tls_context(settings) if settings.url.startswith("https:") else False,
        timeout=settings.timeout_s,
        trust_env=False,
    ) as client:
        yield Service(settings, client)
