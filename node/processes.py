"""How is one part of the node started, watched and stopped as a process of its own?"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import structlog

PR_SET_PDEATHSIG = 1
"""``prctl`` option: a signal to get when the parent dies (Linux, prctl(2))."""

_libc = ctypes.CDLL(None, use_errno=True)
_log = structlog.get_logger(__name__)


def die_with_parent(parent: int, signal_number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent dies, however that dies."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), signal_number)


def alive_file(data_dir: Path, name: str) -> Path:
    """The file that a part touches as long as it does its work."""
    return data_dir / "run" / f"{name}.alive"


def beat(path: Path) -> None:
    """Say that this part is alive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def listens(pid: int, port: int) -> bool:
    """Whether a process listens on a TCP port; asked of the kernel, so that nobody sees a connection."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


@dataclass
class Part:
    """One child process and what is known of it.

    Parameters
    ----------
    name : str
        As in the log.
    command : sequence of str
        What to run.
    environment : mapping
        All of its environment.
    is_ready : callable
        Whether the process of that id does its work now.
    stop_s : float
        How long it may take to stop before it is killed.
    heartbeat : Path, optional
        File that it touches; silence there means that it hangs.
    repair : callable, optional
        What to try once if it does not start.
    inherit : tuple of int
        File descriptors that it keeps open.
    words : str
        Where to read why it did not start.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    is_ready: Callable[[int], bool]
    stop_s: float = 15.0
    heartbeat: Path | None = None
    repair: Callable[[], None] | None = None
    inherit: tuple[int, ...] = ()
    words: str = "its own words are above"
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    started: float = field(default=0.0, init=False)
    failures: int = field(default=0, init=False)
    restart_at: float | None = field(default=None, init=False)
    _last_beat: tuple[float, float] = field(default=(0.0, 0.0), init=False)

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches the supervisor alone."""
        if self.heartbeat is not None:
            self.heartbeat.unlink(missing_ok=True)
        me = os.getpid()
        self.process = subprocess.Popen(
            self.command,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self.inherit,
            preexec_fn=lambda: die_with_parent(me),
        )
        self.started, self.restart_at = time.monotonic(), None
        self._last_beat = (0.0, self.started)

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
        """Seconds since the heartbeat was last seen to change; 0 for a part without one.

        Counted on this process's own clock, which stands still while the machine sleeps.
        """
        if self.heartbeat is None:
            return 0.0
        now = time.monotonic()
        try:
            beaten = self.heartbeat.stat().st_mtime
        except FileNotFoundError:
            beaten = self._last_beat[0]
        if beaten != self._last_beat[0]:
            self._last_beat = (beaten, now)
        return now - self._last_beat[1]

    def kill(self) -> None:
        """End it and everything it started, at once: all of its process group, which the new session made."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def stop_parts(parts: Sequence[Part]) -> None:
    """Ask parts to stop, all at the same time; kill the ones that have not after their time."""
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
