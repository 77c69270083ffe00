"""How does a report go to a RIS? One ORU^R01 over MLLP, one connection a message, and its acknowledgement checked."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hl7
from hl7.mllp import HL7StreamReader, HL7StreamWriter, InvalidBlockError, open_hl7_connection

from node.destination_settings import Hl7Destination
from node.destinations.base import Sent, Unanswered, Unreachable, send_each
from node.destinations.oru import control_id, oru
from node.destinations.tls import tls_context
from node.report import read_report
from pipeline.errors import InputError

ANSWER_BYTES: Final = 65_536
"""Longest acknowledgement that is read."""

_ACCEPTED: Final = {"AA": "accepted", "CA": "received"}
_REFUSED: Final = {"AE": "error", "AR": "rejected", "CE": "error", "CR": "rejected"}
_GOODBYE_S: Final = 1.0


@dataclass(frozen=True)
class Mllp:
    """A RIS; satisfies :class:`node.destinations.base.Destination`."""

    settings: Hl7Destination

    @property
    def address(self) -> str:
        """``mllp://HOST:PORT``."""
        return self.settings.address

    def send(self, paths: Sequence[Path], record: Callable[[Sent], None]) -> None:
        """Send one message a report; see :meth:`node.destinations.base.Destination.send`."""
        asyncio.run(send_each(paths, record, self._send))

    def check(self) -> str:
        """Connect and hang up: MLLP has no message that asks for nothing."""
        asyncio.run(self._knock())
        return "takes connections; MLLP has no way to ask for more"

    async def _knock(self) -> None:
        async with self._connection():
            pass

    async def _send(self, path: Path) -> Sent:
        try:
            report = read_report(path)
        except InputError as error:
            return Sent(path, False, None, str(error))
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
        """Send a block and read one back; the limit of time is for both together."""
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
            raise Unanswered(f"it hung up {what}") from error
        except InvalidBlockError as error:
            raise Unanswered("it answered with something that is no MLLP block") from error
        except ValueError as error:  # the reader's way to say that its limit was passed
            raise Unanswered(f"its acknowledgement is longer than {ANSWER_BYTES} bytes") from error
        except OSError as error:
            raise Unanswered(f"the connection broke before it acknowledged: {error}") from error
        return block


def judge(path: Path, block: bytes, expected: str) -> Sent:
    """What an acknowledgement comes to (HL7 2.5.1, 2.9.2; table 0008).

    Raises
    ------
    Unanswered
        If it is none.
    """
    try:
        answer = hl7.parse(re.sub("\r?\n", "\r", block.decode("utf-8", "replace")))
        msa = answer.segment("MSA")
    except Exception as error:  # whatever `hl7` makes of what a stranger sends
        raise Unanswered("it answered with something that is no HL7 acknowledgement") from error
    code, about, text = (_text(msa, number) for number in (1, 2, 3))
    said = "; ".join(filter(None, [text, *(_error(segment) for segment in answer if _text(segment, 0) == "ERR")]))
    words = f"{code} ({_ACCEPTED.get(code) or _REFUSED.get(code) or 'unknown code'})" + (f": {said}" if said else "")
    if about != expected:
        return Sent(path, False, None, f"it acknowledged another message ({about!r}, not {expected!r}): {words}")
    return Sent(path, code in _ACCEPTED, None, words)


def _error(segment: hl7.Segment) -> str:
    """What an ERR segment says: the code, then the texts for people (ERR-3, ERR-7, ERR-8)."""
    texts = [_text(segment, number).replace("^", " ") for number in (3, 7, 8)]
    return " ".join(filter(None, texts))


def _text(segment: hl7.Segment, number: int) -> str:
    """A field in one printable line."""
    text = str(segment[number]) if number < len(segment) else ""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
