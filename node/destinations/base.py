"""What must a way out of the node be able to do? The :class:`Destination` protocol and its answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PATIENCE = 2
"""Objects in a row without an answer, after which the others wait."""


class Unreachable(Exception):  # noqa: N818 - it reads as what happened
    """Nothing could be sent: the text says to whom and why."""


class Unanswered(Exception):  # noqa: N818
    """One object was sent, or partly, and there is no valid answer: the text says what came instead."""


@dataclass(frozen=True)
class Sent:
    """What the far side said about one object; `answer` is in words, `accepted` what they come to."""

    path: Path
    accepted: bool
    status: int | None
    answer: str


async def send_each(
    paths: Sequence[Path], record: Callable[[Sent], None], send: Callable[[Path], Awaitable[Sent]]
) -> None:
    """Send one after the other, as :meth:`Destination.send` has it.

    One object without an answer may be the object's fault, and the others go on; after :data:`PATIENCE` of them in a
    row the far side is taken to be out of order, so that a dead one costs that many waits and no more.

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
            sent = Sent(path, False, None, str(error))
            unanswered += 1
        record(sent)
        if unanswered == PATIENCE:
            raise Unreachable(sent.answer)


class Destination(Protocol):
    """Somewhere that results go.

    Sending the same object twice must be harmless: it has the same UID, and the far side keeps one.
    """

    @property
    def address(self) -> str:
        """The far side, as an administrator would write it."""

    def send(self, paths: Sequence[Path], record: Callable[[Sent], None]) -> None:
        """Send objects in this order; `record` hears each answer before the next object goes.

        Every path gets one answer, also when the connection breaks on the way. No wait is without a limit.

        Raises
        ------
        Unreachable
            If nothing can be sent: no connection, or a far side that answers nothing. What was recorded before stays.
        """

    def check(self) -> str:
        """Ask the far side whether it is there, without sending it anything; says what it answered.

        Raises
        ------
        Unreachable
            If it is not, or does not let the node in.
        """
