"""When is the audit repository told? Every few seconds the sweep has a thread send what the ledger has recorded."""

from __future__ import annotations

import random
import socket
import threading
import time
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import SQLAlchemyError

from node.ledger import AuditEvent, FeedBatch, Ledger
from node.ledger.access_records import AuditAction
from node.retry import pause_s
from node.settings import ConfigError, Settings

from .events import MessageWriter
from .syslog import NotReceivedError, SyslogMessage, SyslogRepository

AGAIN_S = 0.5
"""Pause before the second attempt when the node stops."""
AT_ONCE_S = 2.0
"""A repository that takes longer to fail would hold up the stop a second time."""

_log = structlog.get_logger(__name__)


@dataclass
class AuditSender:
    """Tells the audit repository what the ledger has recorded.

    Parameters
    ----------
    settings : Settings
        ``audit_repository`` says where it is; if it is not set, nothing happens.
    ledger : Ledger
        Knows what the repository was told.
    """

    settings: Settings
    ledger: Ledger
    repository: SyslogRepository | None = field(init=False)
    _writer: MessageWriter = field(init=False)
    _thread: threading.Thread | None = None
    _failing: str = ""

    def __post_init__(self) -> None:
        where = self.settings.audit_repository
        self.repository = SyslogRepository(where) if where is not None else None
        self._writer = MessageWriter(self.settings)

    @property
    def _name(self) -> str:
        """Who starts and stops the node, in the audit. No account can have a name with a colon."""
        return f"node:{self.settings.ae_title}"

    def start(self) -> None:
        """Begin to tell, first of all that the node has started."""
        if self.repository is None:
            self.ledger.end_feed()
            return
        self.ledger.begin_feed()
        self.ledger.record_access(self._name, AuditAction.START, detail=f"on {socket.gethostname()}")

    def stop(self) -> None:
        """Tell that the node stops; if the repository is down, it is told after the next start."""
        if self.repository is None:
            return
        if self._thread is not None:
            self._thread.join(self.settings.queue.grace_s)
        try:
            self.ledger.record_access(self._name, AuditAction.STOP, detail=f"on {socket.gethostname()}")
            self.send(last=True)
        except SQLAlchemyError as error:
            _log.warning("the stop is not in the audit: the database does not answer", error=type(error).__name__)

    def start_sending(self) -> None:
        """Send what is due, in a thread, so that a repository that hangs holds nothing up."""
        if self.repository is not None and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._send_all, name="audit", daemon=True)
            self._thread.start()

    def _send_all(self) -> None:
        try:
            self.send()
        except SQLAlchemyError as error:  # the next round tries again
            _log.warning("audit messages cannot be read or recorded now", error=type(error).__name__)

    def send(self, *, last: bool = False) -> int:
        """Send what is due; returns the number of messages sent. The node stops if it is the `last` time."""
        sent = 0
        while self.repository is not None and (batch := self.ledger.claim_feed()) is not None:
            messages = self._write(batch)
            try:
                if messages:
                    self._tell(self.repository, messages, last=last)
            except (NotReceivedError, ConfigError) as error:
                self._postpone(batch, str(error))
                break
            self.ledger.feed_sent(batch)
            if self._failing:
                _log.info("the audit repository takes messages again", address=self.repository.settings.address)
            self._failing = ""
            sent += len(messages)
        return sent

    @staticmethod
    def _tell(repository: SyslogRepository, messages: list[SyslogMessage], *, last: bool) -> None:
        """Send messages; when it is the last chance and the connection fails at once, try again."""
        began = time.monotonic()
        try:
            repository.send(messages)
        except NotReceivedError:
            if not last or time.monotonic() - began > AT_ONCE_S:
                raise
            time.sleep(AGAIN_S)
            repository.send(messages)

    def _write(self, batch: FeedBatch) -> list[SyslogMessage]:
        return [message for event in batch.events if (message := self._write_one(event)) is not None]

    def _write_one(self, event: AuditEvent) -> SyslogMessage | None:
        where = self.settings.audit_repository
        try:
            message = self._writer.write(event)
            if message is None or where is None:
                return None
            content = message.to_xml(where.source_id or self.settings.ae_title, where.site_id)
            return SyslogMessage(content, message.outcome)
        except Exception:  # one that cannot be written must not hold up the others for ever
            _log.exception("an audit message cannot be written; it is left out", event_type=type(event).__name__)
            return None

    def _postpone(self, batch: FeedBatch, why: str) -> None:
        """Send it again later; the log says so when it begins, and when the reason changes."""
        pause = pause_s(batch.attempts, self.settings.queue, 0.5 + random.random() / 2)
        self.ledger.postpone_feed(batch, pause, why)
        if self._failing != why and self.settings.audit_repository is not None:
            address = self.settings.audit_repository.address
            _log.warning("audit messages are not sent now; they are kept and sent later", address=address, why=why)
        self._failing = why
