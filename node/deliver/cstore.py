"""How is a result sent to a DICOM storage SCP?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.settings.destinations import DicomDestination

from .base import SendResult
from .scu import Peer, echo, read_outgoing, send


@dataclass(frozen=True)
class CStore:
    """A storage SCP; satisfies :class:`node.deliver.base.Destination`."""

    settings: DicomDestination
    calling_ae_title: str

    @property
    def peer(self) -> Peer:
        """The storage SCP."""
        return Peer.of(self.settings)

    @property
    def address(self) -> str:
        """``AET@HOST:PORT``."""
        return self.settings.address

    def send(self, paths: Sequence[Path], record: Callable[[SendResult], None]) -> None:
        """Send over one association; see :meth:`node.deliver.base.Destination.send`."""
        files = []
        for path in paths:
            if (outgoing := read_outgoing(path)) is None:
                record(SendResult(path, False, None, "the node can no longer read this result file"))
            else:
                files.append(outgoing)
        if files:
            send(files, self.peer, self.calling_ae_title, self.settings.timeout_s, on_sent=record)

    def check(self) -> str:
        """Send a C-ECHO."""
        echo(self.peer, self.calling_ae_title, self.settings.timeout_s)
        return "answers C-ECHO"


def open_destination(settings: DicomDestination, calling_ae_title: str) -> CStore:
    """Make the destination; connects to nothing yet."""
    return CStore(settings, calling_ae_title)
