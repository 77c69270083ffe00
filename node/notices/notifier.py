"""When is somebody told? The sweep notes what happened, and a thread sends what is to be told."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from node.archive import DiskSpace
from node.archive.qa_runs import last_run
from node.ledger import Ledger, NoticeCondition
from node.retry import pause_s
from node.settings import Settings
from node.tls.certificates import certificate_expiries

from .channels import Channel, NotSentError, open_channels
from .message import write_message

KEEP = timedelta(days=30)
"""What was told is forgotten after this time."""

_log = structlog.get_logger(__name__)


@dataclass
class Notifier:
    """Notes what is to be told and tells it.

    Parameters
    ----------
    settings : Settings
        ``notices`` says whom, of what.
    ledger : Ledger
        Keeps what is to be told until it was sent.
    """

    settings: Settings
    ledger: Ledger
    channels: dict[str, Channel] = field(init=False)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.channels = open_channels(self.settings)

    def note(self, now: datetime, disk: DiskSpace) -> None:
        """Note what happened since the last time.

        Parameters
        ----------
        disk : DiskSpace
            Of the data folder.
        """
        if not self.channels:
            return
        conditions = [*self._destinations(now), *self._certificates(now), *self._qa()]
        if disk.fills_up:
            conditions.append(NoticeCondition("disk", "the disk is filling up", str(disk)))
        if disk.refuses:
            conditions.append(NoticeCondition("disk", "images are refused", str(disk)))
        for channel in self.channels:
            self.ledger.note(channel, self.settings.notices.about, conditions)

    def _destinations(self, now: datetime) -> Iterator[NoticeCondition]:
        least = timedelta(seconds=self.settings.notices.destination_down_s)
        for name, failing in self.ledger.failing_destinations().items():
            if name in self.settings.destinations and now - failing.since >= least:
                since = failing.since.astimezone(self.settings.zone).isoformat(timespec="minutes")
                detail = f"{name} has accepted nothing since {since}; {failing.waiting} results wait and are sent again"
                yield NoticeCondition("destination", name, detail)

    def _certificates(self, now: datetime) -> Iterator[NoticeCondition]:
        for expiry in certificate_expiries(self.settings):
            if text := expiry.notice(now):
                yield NoticeCondition("certificate", expiry.setting, text)
            if expiry.expires_at is not None and expiry.expires_at <= now:
                yield NoticeCondition("certificate", f"{expiry.setting} (expired)", text)

    def _qa(self) -> Iterator[NoticeCondition]:
        if (run := last_run(self.settings.data_dir)) is not None and not run.good:
            at = run.at.astimezone(self.settings.zone).isoformat(timespec="minutes")
            yield NoticeCondition("qa", "site QA", f"the QA run of {at} was not good: {run.alarm}")

    def start_sending(self) -> None:
        """Send what is due, in a thread, so that a mail server that hangs holds nothing up."""
        if self.channels and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._send_all, name="notices", daemon=True)
            self._thread.start()

    def _send_all(self) -> None:
        try:
            self.send()
        except SQLAlchemyError as error:  # the next round tries again
            _log.warning("notices cannot be read or recorded now", error=type(error).__name__)

    def send(self) -> int:
        """Send what is due; returns the number of messages sent."""
        sent = 0
        for name, channel in self.channels.items():
            while (message := self.ledger.next_message(name, self.settings.notices.gather_s)) is not None:
                facts = {"channel": name, "notices": len(message.notices), "message": message.id}
                try:
                    channel.send(write_message(message, self.settings))
                except NotSentError as error:
                    pause = pause_s(message.attempts, self.settings.queue, 0.5 + random.random() / 2)
                    self.ledger.postpone_message(message.id, pause)
                    _log.warning("notice not sent", address=channel.address, why=str(error), **facts)
                    break
                self.ledger.message_sent(message.id)
                _log.info("notice sent", **facts)
                sent += 1
        return sent

    def forget_old(self, now: datetime) -> None:
        """Forget what was told long ago."""
        self.ledger.forget_notices(now - KEEP, tuple(self.channels))
