"""Which of several processes does what is to be done once? The one that holds a lock."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO, Any

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from .engine import Store

_log = structlog.get_logger(__name__)


class Lead:
    """Held by one process at a time, for as long as it lives and reaches the database.

    On PostgreSQL it is an advisory lock of a session of its own, which the server ends when it has not reached the host
    for 19 s (:mod:`.engine`); on SQLite, whose processes share a host, the lock of a file beside the database.

    Parameters
    ----------
    store : Store
        The ledger.
    name : str
        What is done once, in a word.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._engine: Engine = store.engine
        self._name = name
        self._held: bool | None = None
        self._session: Connection | None = None
        self._file: IO[Any] | None = None

    def held(self) -> bool:
        """Whether this process leads now; it does from now on if no other process does."""
        try:
            held = self._lock_file() if self._engine.dialect.name == "sqlite" else self._lock_session()
        except (SQLAlchemyError, OSError) as error:  # an outage of the database or of the disk: asked again next time
            self.close()
            if self._held is not None:
                _log.warning("does not know who leads; it is asked again", what=self._name, why=type(error).__name__)
            self._held = None
            return False
        if held is not self._held:
            _log.info("leads" if held else "stands by: another process leads", what=self._name)
        self._held = held
        return held

    def close(self) -> None:
        """Let another process lead."""
        session, self._session = self._session, None
        if session is not None:
            session.invalidate()  # the connection goes, and its lock with it
            session.close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _lock_session(self) -> bool:
        """Take the lock, or see that the session that holds it is still there."""
        if self._session is None:
            self._session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        elif self._held:
            self._session.execute(text("SELECT 1"))
            return True
        locking = text("SELECT pg_try_advisory_lock(hashtext(:name))")
        return bool(self._session.scalar(locking, {"name": f"cmb-node {self._name}"}))

    def _lock_file(self) -> bool:
        if self._file is None:
            self._file = Path(f"{self._engine.url.database}.{self._name}").open("a")  # noqa: SIM115 - held open
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
