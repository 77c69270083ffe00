"""How is a report sent to a RIS? As ORU^R01 over MLLP, one connection per message, with its acknowledgement checked."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hl7
from hl7.mllp import HL7StreamReader, HL7StreamWriter, InvalidBlockError, open_hl7_connection

from node.settings.destinations import Hl7Destination
from node.text import one_line
from node.tls.contexts import explain_tls
from pipeline.errors import InputError

from .base import SendResult, Unanswered, Unreachable, send_each
from .oru import control_id, oru
from .report import read_report
from .tls import tls_context

ANSWER_BYTES: Final = 65_536
"""Longest acknowledgement that is read, bytes."""

_ACCEPTED: Final = {"AA": "accepted", "CA": "received"}
_REFUSED: Final = {"AE": "error", "AR": "rejected", "CE": "error", "CR": "rejected"}
_GOODBYE_S: Final = 1.0


@dataclass(frozen=True)
class Mllp:
    """A RIS; satisfies :class:`node.deliver.base.Destination`."""

    settings: Hl7Destination

    @property
    def address(self) -> str:
        """``mllp://HOST:PORT``."""
        return self.settings.address

    def send(self, paths: Sequence[Path], record: Callable[[SendResult], None]) -> None:
        """Send one message per report; see :meth:`node.deliver.base.Destination.send`."""
        asyncio.run(send_each(paths, record, self._send))

    def check(self) -> str:
        """Connect and close the connection: MLLP has no message for a test."""
        asyncio.run(self._knock())
        return "accepts connections; MLLP cannot be tested further"

    async def _knock(self) -> None:
        async with self._connection():
            pass

    async def _send(self, path: Path) -> SendResult:
        try:
            report = read_report(path)
        except InputError as error:
            return SendResult(path, False, None, str(error))
        message = str(oru(report, self.settings)).encode()
        async with self._connection() as (reader, writer):
            answer = await self._exchange(reader, writer, message)
        return judge(path, answer, control_id(report))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[HL7StreamReader, HL7StreamWriter]]:
        settings = self.settings
        tls = {"ssl": tls_context(settings), "server_hostname": settings.host} if settings.tls else {}
        try:
            async with asyncio.timeout(settings.timeout_s):
                reader, writer = await open_hl7_connection(settings.host, settings.port, limit=ANSWER_BYTES, **tls)
        except TimeoutError as error:
            raise Unreachable(f"{self.address} does not answer within {settings.timeout_s:g} s") from error
        except ssl.SSLError as error:
            raise Unreachable(f"{self.address} cannot be reached: {explain_tls(error)}") from error
        except OSError as error:
            raise Unreachable(f"{self.address} cannot be reached: {error}") from error
        try:
            yield reader, writer
            writer.close()
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(_GOODBYE_S):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()

    async def _exchange(self, reader: HL7StreamReader, writer: HL7StreamWriter, message: bytes) -> bytes:
        """Send a block and read one; the time limit covers both."""
        limit_s = self.settings.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                writer.writeblock(message)
                await writer.drain()
                block: bytes = await reader.readblock()
        except TimeoutError as error:
            raise Unanswered(f"no acknowledgement within {limit_s:g} s; the connection was closed") from error
        except asyncio.IncompleteReadError as error:
            what = "in the middle of its acknowledgement" if error.partial else "without an acknowledgement"
            raise Unanswered(f"it closed the connection {what}") from error
        except InvalidBlockError as error:
            raise Unanswered("its answer is not an MLLP block") from error
        except ValueError as error:  # raised by the reader when its limit is exceeded
            raise Unanswered(f"its acknowledgement is longer than {ANSWER_BYTES} bytes") from error
        except OSError as error:
            raise Unanswered(f"the connection broke before it acknowledged: {error}") from error
        return block


def open_destination(settings: Hl7Destination, _calling_ae_title: str) -> Mllp:
    """Make the destination; connects to nothing yet."""
    return Mllp(settings)


def judge(path: Path, block: bytes, expected: str) -> SendResult:
    """Evaluate an acknowledgement (HL7 2.5.1, 2.9.2; table 0008).

    Raises
    ------
    Unanswered
        If it is not an acknowledgement.
    """
    try:
        answer = hl7.parse(re.sub("[\r\n]+", "\r", block.decode("utf-8", "replace")))  # blank lines raise
        msa = answer.segment("MSA")
    except Exception as error:  # `hl7` raises many types on a malformed message
        raise Unanswered("its answer is not an HL7 acknowledgement") from error
    code, about, text = (_text(msa, number) for number in (1, 2, 3))
    said = "; ".join(filter(None, [text, *(_error(segment) for segment in answer if _text(segment, 0) == "ERR")]))
    words = f"{code} ({_ACCEPTED.get(code) or _REFUSED.get(code) or 'unknown code'})" + (f": {said}" if said else "")
    if about != expected:
        return SendResult(path, False, None, f"it acknowledged another message ({about!r}, not {expected!r}): {words}")
    return SendResult(path, code in _ACCEPTED, None, words)


def _error(segment: hl7.Segment) -> str:
    """The text of an ERR segment: the code, then the texts for people (ERR-3, ERR-7, ERR-8)."""
    texts = [_text(segment, number).replace("^", " ") for number in (3, 7, 8)]
    return " ".join(filter(None, texts))


def _text(segment: hl7.Segment, number: int) -> str:
    """A field in one printable line."""
    text = str(segment[number]) if number < len(segment) else ""
    return one_line(text)
