"""How does a part of the node run in a fork of the supervisor, which has loaded every module once for all?"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from subprocess import TimeoutExpired

from setproctitle import setproctitle

from .file_modes import UMASK

PR_SET_PDEATHSIG = 1
"""``prctl`` option: a signal to get when the parent dies (Linux, prctl(2))."""

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, signal_number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent dies, however that dies."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), signal_number)


class ForkedProcess:
    """A child that runs a function; it answers like a `subprocess.Popen` that was given a new session.

    Parameters
    ----------
    title : str
        What ``ps`` calls it.
    function : callable
        What it does; returns its exit status.
    environment : mapping
        All of its environment.

    Raises
    ------
    OSError
        If the system starts no process now.
    """

    def __init__(self, title: str, function: Callable[[], int], environment: Mapping[str, str]) -> None:
        parent = os.getpid()

        def child() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):  # those of the parent stop the parent
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            os.umask(UMASK)
            die_with_parent(parent)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            setproctitle(title)  # before the environment changes: it finds its room beside that
            os.environ.clear()
            os.environ.update(environment)
            sys.exit(function())

        self._process = get_context("fork").Process(target=child)
        self._process.start()
        self.pid = int(self._process.pid or 0)

    def poll(self) -> int | None:
        """Exit status, negative after a signal; ``None`` while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return its exit status.

        Raises
        ------
        TimeoutExpired
            If it still runs after `timeout` seconds.
        """
        self._process.join(timeout)
        if (status := self.poll()) is None:
            raise TimeoutExpired(self._process.name, timeout or 0.0)
        return status

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM)."""
        self._process.terminate()
