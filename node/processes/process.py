"""How is one part of the node started, watched and stopped as a process of its own?"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil
import structlog

from .file_modes import UMASK
from .forked import ForkedProcess, die_with_parent

ASK_EVERY_S = 5.0

_log = structlog.get_logger(__name__)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and SIGINT set; the previous handlers come back afterwards.

    Every part of the node stops this way.
    """
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listens(pid: int, port: int) -> bool:
    """Whether a process listens on a TCP port; asked of the kernel, so that nobody sees a connection."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


@dataclass
class NodeProcess:
    """One child process and what is known of it.

    Parameters
    ----------
    name : str
        As in the log.
    command : sequence of str
        What to run.
    function : callable, optional
        What to run in a fork of this process instead of the command, which then only names it; returns the exit status.
    environment : mapping
        All of its environment.
    is_ready : callable
        Whether the process of that id does its work now.
    stop_s : float
        How long it may take to stop before it is killed.
    heartbeat : Path, optional
        The file that it touches while it works; without one, `is_ready` is asked now and then.
    repair : callable, optional
        What to try once if it does not start.
    inherit : tuple of int
        File descriptors that the command keeps open; a fork keeps all.
    words : str
        Where to read why it did not start.

    Attributes
    ----------
    why : str
        Why it does not run; empty while it does.
    worked : bool
        Whether it has shown that it works since it was last started.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    is_ready: Callable[[int], bool]
    function: Callable[[], int] | None = None
    stop_s: float = 15.0
    heartbeat: Path | None = None
    repair: Callable[[], None] | None = None
    inherit: tuple[int, ...] = ()
    words: str = "its own messages are above"
    process: subprocess.Popen[bytes] | ForkedProcess | None = field(default=None, init=False)
    started: float = field(default=0.0, init=False)
    failures: int = field(default=0, init=False)
    restart_at: float | None = field(default=None, init=False)
    why: str = field(default="", init=False)
    worked: bool = field(default=False, init=False)
    _seen: float = field(default=0.0, init=False)
    _asked: float = field(default=0.0, init=False)
    _touched: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches the supervisor alone.

        Raises
        ------
        OSError
            If the system starts no process now.
        """
        self.process, self.worked, self._touched = None, False, 0.0
        self.started = self._seen = self._asked = time.monotonic()
        if self.heartbeat is not None:
            self.heartbeat.unlink(missing_ok=True)
        self.process = self._run_command() if self.function is None else self._fork(self.function)
        self.restart_at = None

    def _run_command(self) -> subprocess.Popen[bytes]:
        me = os.getpid()
        return subprocess.Popen(
            self.command,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self.inherit,
            umask=UMASK,
            preexec_fn=lambda: die_with_parent(me),
        )

    def _fork(self, function: Callable[[], int]) -> ForkedProcess:
        return ForkedProcess(" ".join(self.command), function, self.environment)

    @property
    def status(self) -> int | None:
        """Exit status, ``None`` while it runs."""
        return None if self.process is None else self.process.poll()

    @property
    def ready(self) -> bool:
        """Whether it runs and does its work."""
        if self.process is None or self.status is not None:
            return False
        if self.heartbeat is not None and not self.heartbeat.exists():
            return False
        return self.is_ready(self.process.pid)

    def silent_for(self) -> float:
        """Seconds since it last showed that it works.

        Counted on this process's own clock, which stands still while the machine sleeps and does not jump.
        """
        now = time.monotonic()
        if self._shows_work(now):
            self._seen, self.worked = now, True
        return now - self._seen

    def _shows_work(self, now: float) -> bool:
        if self.process is None:
            return False
        if self.heartbeat is None:
            if now - self._asked < ASK_EVERY_S:
                return False
            self._asked = now
            return self.is_ready(self.process.pid)
        try:
            touched = self.heartbeat.stat().st_mtime
        except FileNotFoundError:
            return False
        changed, self._touched = touched != self._touched, touched
        return changed

    def kill(self) -> None:
        """End it and everything it started, at once: all of its process group, which the new session made."""
        if self.process is None:
            return
        if self.status is None:  # a fork that has just begun has no group of its own yet
            os.kill(self.process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def stop_parts(parts: Sequence[NodeProcess]) -> None:
    """Ask parts to stop, all at the same time; kill those that have not stopped in their time."""
    running = [part for part in parts if part.process is not None and part.status is None]
    for part in running:
        part.process.terminate()  # type: ignore[union-attr]
    asked = time.monotonic()
    for part in running:
        try:
            part.process.wait(max(0.1, asked + part.stop_s - time.monotonic()))  # type: ignore[union-attr]
        except subprocess.TimeoutExpired:
            _log.warning("killed: it did not stop in time", part=part.name, after_s=part.stop_s)
            part.kill()
