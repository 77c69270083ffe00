"""Where do the demo's results go? A storage SCP that stands for the PACS and keeps what it receives in a folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pynetdicom import AE, StoragePresentationContexts, evt

KINDS = {"1.2.840.10008.5.1.4.1.1.66.4": "seg", "1.2.840.10008.5.1.4.1.1.88.34": "sr"}
"""Segmentation and Comprehensive 3D SR; anything else that comes back is the picture."""


class ReceivedObjects:
    """The objects that have arrived, by kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_kind: dict[str, Path] = {}
        self._change = threading.Condition()

    def store(self, event: Any) -> int:
        """C-STORE handler: keep the object as it came."""
        kind = KINDS.get(event.request.AffectedSOPClassUID, "capture")
        path = self.folder / f"{kind}.dcm"
        path.write_bytes(event.encoded_dataset())
        with self._change:
            self.by_kind[kind] = path
            self._change.notify_all()
        return 0x0000


@contextmanager
def receiving(folder: Path, ae_title: str) -> Iterator[tuple[int, ReceivedObjects]]:
    """Run the SCP on a free loopback port while the block lasts; gives the port and what arrives."""
    folder.mkdir(parents=True, exist_ok=True)
    received = ReceivedObjects(folder)
    entity = AE(ae_title=ae_title)
    entity.supported_contexts = StoragePresentationContexts
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, received.store)])
    assert server is not None  # noqa: S101 - for the type checker: it is none only when it blocks
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()
