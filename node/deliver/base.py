"""What must a destination be able to do? The :class:`Destination` protocol and its answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from node.logs import explain

PATIENCE = 2
"""After this many objects in a row without an answer, the others wait."""

_log = structlog.get_logger(__name__)


class Unreachable(Exception):  # noqa: N818 - it reads as what happened
    """Nothing could be sent; the text says where and why."""


class Unanswered(Exception):  # noqa: N818
    """An object was sent, at least in part, without a valid answer; the text says what came instead."""


class StopSending(Exception):  # noqa: N818 - not an error
    """Raised by the recorder of answers: no more objects are to be sent."""


@dataclass(frozen=True)
class SendResult:
    """The answer to one object: `answer` in words, `accepted` whether the destination has stored it."""

    path: Path
    accepted: bool
    status: int | None
    answer: str


async def send_each(
    paths: Sequence[Path], record: Callable[[SendResult], None], send: Callable[[Path], Awaitable[SendResult]]
) -> None:
    """Send files one after the other, as :meth:`Destination.send` requires.

    One object without an answer may be the fault of that object, so the others are still sent. After :data:`PATIENCE`
    of them in a row the destination counts as down, so that it costs no more than that many timeouts.

    Parameters
    ----------
    send : callable
        Sends one file. May raise :class:`Unreachable` and :class:`Unanswered`.
    """
    unanswered = 0
    for path in paths:
        try:
            sent = await send(path)
            unanswered = 0
        except Unanswered as error:
            sent = SendResult(path, False, None, str(error))
            unanswered += 1
        record(sent)
        if unanswered == PATIENCE:
            raise Unreachable(sent.answer)


class Destination(Protocol):
    """Somewhere that results are sent.

    Sending the same object twice must be harmless: it has the same UID, and the destination keeps one.
    """

    @property
    def address(self) -> str:
        """The destination as an administrator would write it."""

    def send(self, paths: Sequence[Path], record: Callable[[SendResult], None]) -> None:
        """Send objects in this order, and pass each answer to `record` before the next object is sent.

        Every path gets one answer, even if the connection breaks. Every wait has a limit.

        Raises
        ------
        Unreachable
            If nothing can be sent: there is no connection, or no answer. What was recorded before remains.
        """

    def check(self) -> str:
        """Test the connection without sending a result; returns what the destination answered.

        Raises
        ------
        Unreachable
            If there is no connection, or the node is not authorised.
        """


def send_all(destination: Destination, paths: Sequence[Path], record: Callable[[SendResult], None]) -> None:
    """Send files as :meth:`Destination.send` does; a file that raises an error fails, and the others are still sent.

    Raises
    ------
    Unreachable
        If nothing can be sent.
    """
    left = dict.fromkeys(paths)

    def note(sent: SendResult) -> None:
        del left[sent.path]
        record(sent)

    def send(batch: Sequence[Path]) -> str:
        try:
            destination.send(batch, note)
        except (Unreachable, StopSending):
            raise
        except Exception as error:
            if not left.keys() & batch:  # all were recorded: the error is the recorder's
                raise
            _log.exception("files could not be sent", address=destination.address, files=len(batch))
            return f"the node cannot send this file ({explain(error)})"
        return ""

    if send(paths):  # one of them is at fault: send each on its own
        for path in list(left):
            if why := send([path]):
                note(SendResult(path, False, None, why))
