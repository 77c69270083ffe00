"""What must a way out of the node be able to do? The :class:`Destination` protocol and its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Unreachable(Exception):  # noqa: N818 - it reads as what happened
    """Nothing could be sent: the text says to whom and why."""


@dataclass(frozen=True)
class Sent:
    """What the far side said about one object; `answer` is in words, `accepted` what they come to."""

    path: Path
    accepted: bool
    status: int | None
    answer: str


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
            If no connection could be made, so that nothing was sent.
        """
