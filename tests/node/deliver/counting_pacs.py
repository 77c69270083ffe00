"""A PACS that counts what it is sent, and a runner that sends to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pydicom.uid import SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from node.deliver import open_destination
from node.deliver.delivery import DeliveryRunner
from node.settings import DicomDestination


class Pacs:
    """A storage SCP that counts what it took, and answers what it is told to."""

    def __init__(self, answer: Callable[[str], int]) -> None:
        self.answer, self.taken, self.associations = answer, [], 0
        self.entity = AE(ae_title="PACS")
        self.entity.add_supported_context(SecondaryCaptureImageStorage)
        self.server = self.entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._accepted)],
        )

    def _store(self, event: Any) -> int:
        status = self.answer(event.request.AffectedSOPInstanceUID)
        if status == 0:
            self.taken.append(str(event.request.AffectedSOPInstanceUID))
        return status

    def _accepted(self, _event: Any) -> None:
        self.associations += 1

    @property
    def settings(self) -> DicomDestination:
        port = self.server.server_address[1]
        return DicomDestination(ae_title="PACS", host="127.0.0.1", port=port, timeout_s=5)


@contextmanager
def pacs(answer: Callable[[str], int] = lambda _uid: 0x0000) -> Iterator[Pacs]:
    server = Pacs(answer)
    try:
        yield server
    finally:
        threading.Thread(target=server.server.shutdown).start()  # half a second that nobody needs to wait for


def to(runner: DeliveryRunner, settings: DicomDestination) -> DeliveryRunner:
    return replace(runner, destination=open_destination(settings, "CMBNODE"))
