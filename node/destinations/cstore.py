"""How does a result go to a DICOM storage SCP?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.destination_settings import DicomDestination
from node.destinations.base import Sent
from node.destinations.scu import Peer, echo, read_outgoing, send


@dataclass(frozen=True)
class CStore:
    """A storage SCP; satisfies :class:`node.destinations.base.Destination`."""

    settings: DicomDestination
    calling_ae_title: str

    @property
    def peer(self) -> Peer:
        """Whom to call."""
        return Peer(self.settings.ae_title, self.settings.host, self.settings.port)

    @property
    def address(self) -> str:
        """``AET@HOST:PORT``."""
        return self.settings.address

    def send(self, paths: Sequence[Path], record: Callable[[Sent], None]) -> None:
        """Send over one association; see :meth:`node.destinations.base.Destination.send`."""
        files = []
        for path in paths:
            if (outgoing := read_outgoing(path)) is None:
                record(Sent(path, False, None, "the node cannot read its own result file any more"))
            else:
                files.append(outgoing)
        if files:
            send(files, self.peer, self.calling_ae_title, self.settings.timeout_s, on_sent=record)

    def check(self) -> str:
        """Send a C-ECHO."""
        echo(self.peer, self.calling_ae_title, self.settings.timeout_s)
        return "answers C-ECHO"
