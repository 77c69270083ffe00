"""How do the images of a claimed work item get here? They are in the archive already, or are retrieved by WADO-RS."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field

import structlog

from node.archive import Archive
from node.ledger import Ledger, WorkItem, WorkItemInput
from node.logs import explain
from node.receive.ingest import Ingest
from node.retrieve.dicomweb import DicomWeb
from node.retrieve.source import SourceError, TransferLimits
from node.retry import pause_s
from node.settings import Settings
from node.settings.destinations import WebService
from node.settings.work_items import WorkItemSettings

from .progress import NOT_FETCHED

_RESOURCE = re.compile(r"/studies/[0-9.]+(/series/[0-9.]+(/instances/[0-9.]+)?)?")
_log = structlog.get_logger(__name__)


@dataclass
class WorkItemFetcher:
    """Fetches the images of claimed items, one item after the other."""

    settings: Settings
    manager: WorkItemSettings
    ledger: Ledger
    archive: Archive
    stopping: threading.Event = field(default_factory=threading.Event)

    def fetch_due(self) -> None:
        """Fetch the images of every item that is due."""
        for item in self.ledger.due_fetches():
            if not self.stopping.is_set() and self.ledger.take_fetch(item, self.manager.fetch_s + 60):
                self._fetch(item)

    def _fetch(self, item: WorkItem) -> None:
        try:
            images = self._retrieve(item)
        except SourceError as error:
            self._failed(item, str(error), lasting=error.lasting)
        except Exception as error:  # the disk is full, the database away
            _log.exception("the images of a work item could not be fetched", work_item=item.workitem_uid)
            self._failed(item, explain(error), lasting=False)
        else:
            _log.info("the images of a work item are here", work_item=item.workitem_uid, fetched=images)
            self.ledger.fetch_ended(item)

    def _retrieve(self, item: WorkItem) -> int:
        """Retrieve what is missing; returns the number of images."""
        missing = self.ledger.missing_inputs(item.inputs)
        if not missing:
            return 0
        service = self.manager.image_service
        ingest = Ingest(self.ledger, self.archive, self.settings.receiver.max_instance_bytes)
        limits = TransferLimits(
            time.monotonic() + self.manager.fetch_s, self._stopped, self.manager.max_instances, "work_items"
        )
        paths = list(dict.fromkeys(_path(service, one) for one in missing))
        counts = DicomWeb(service, ingest, for_comparison=False).retrieve(paths, limits)
        if left := self.ledger.missing_inputs(item.inputs):
            what = f"{service.address} sent {counts.completed} images, but not all that the work item refers to"
            raise SourceError(f"{what} (series {left[0].series_instance_uid or 'of the study'})")
        return counts.completed

    def _stopped(self) -> str:
        return "the node stops" if self.stopping.is_set() else ""

    def _failed(self, item: WorkItem, why: str, *, lasting: bool) -> None:
        attempts = item.fetch_attempts + 1
        if self.stopping.is_set():
            self.ledger.fetch_ended(item, 0.0)
            return
        again = not lasting and attempts < self.settings.queue.max_attempts
        _log.warning("a work item's images could not be fetched", work_item=item.workitem_uid, why=why, again=again)
        if again:
            self.ledger.fetch_ended(item, pause_s(attempts, self.settings.queue, 1.0))
        else:
            self.ledger.fetch_ended(item, failure=f"{NOT_FETCHED}: {why}")


def _path(service: WebService, wanted: WorkItemInput) -> str:
    """Where to retrieve images, relative to the service: no other is asked for images, or shown credentials."""
    if not wanted.url:
        series = f"/series/{wanted.series_instance_uid}" if wanted.series_instance_uid else ""
        return f"/studies/{wanted.study_instance_uid}{series}"
    path = wanted.url.rstrip("/").removeprefix(service.address)
    if not wanted.url.startswith(service.address) or not _RESOURCE.fullmatch(path):
        what = f"its images are at {wanted.url}, and the node may only ask {service.address}"
        raise SourceError(f"{what}; set work_items.images.url", lasting=True)
    return path
