"""A part that runs in a fork of the supervisor is as much a process of its own as one that runs a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from node.processes.forked import ForkedProcess
from tests.waiting import wait_for

Start = Callable[[Callable[[], int]], ForkedProcess]
ENVIRONMENT = {"PATH": os.environ["PATH"], "ONLY": "this"}


def sleeps() -> int:
    time.sleep(60)
    return 0


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[ForkedProcess] = []

    def begin(function: Callable[[], int]) -> ForkedProcess:
        made.append(ForkedProcess("cmbnode part --of it", function, ENVIRONMENT))
        return made[-1]

    yield begin
    for one in made:
        if one.poll() is None:
            os.kill(one.pid, signal.SIGKILL)
            one.wait(20)


def test_its_status_is_what_the_function_returns(start: Start) -> None:
    assert [start(lambda: 0).wait(20), start(lambda: 2).wait(20)] == [0, 2]


def test_a_fault_is_a_status_too(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise ValueError("broken")

    assert start(fails).wait(20) == 1
    assert "ValueError: broken" in capfd.readouterr().err


def test_it_has_its_own_session_environment_name_and_no_input(start: Start, tmp_path: Path) -> None:
    said = tmp_path / "said"

    def tells() -> int:
        said.write_text(f"{os.getsid(0) == os.getpid()} {dict(os.environ) == ENVIRONMENT} {os.read(0, 1)!r}")
        return sleeps()

    part = start(tells)
    wait_for(lambda: said.exists() and said.read_text().endswith("b''"))
    assert said.read_text() == "True True b''"
    assert "".join(psutil.Process(part.pid).cmdline()).strip() == "cmbnode part --of it"


def test_it_stops_when_asked_whatever_its_parent_does_with_signals(start: Start) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        part = start(sleeps)
        wait_for(lambda: os.getsid(part.pid) == part.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            part.wait(0.2)
        part.terminate()
        assert part.wait(20) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_it_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "from node.processes.forked import ForkedProcess\n"
        "part = ForkedProcess('part', lambda: time.sleep(60), dict(os.environ))\n"
        "print(part.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    wait_for(lambda: "".join(psutil.Process(pid).cmdline()).strip() == "part")  # after which it only sleeps
    parent.kill()
    parent.wait(20)
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
