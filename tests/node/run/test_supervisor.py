"""The supervisor, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from node.cli import main
from node.processes.alive import ALIVE_FILE
from node.processes.parts import read_not_running
from node.processes.process import NodeProcess, listens, stop_on_signal, stop_parts
from node.run import supervisor as module
from node.run.supervisor import StartError, Supervisor, _only_one, child_environment, run_up
from node.settings import DicomDestination, Settings, WorklistSettings, load_settings
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
FOREVER = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def parts() -> Iterator[Callable[..., NodeProcess]]:
    made: list[NodeProcess] = []

    def make(
        script: str = FOREVER, name: str = "part", is_ready: Callable[[int], bool] | None = None, **more: Any
    ) -> NodeProcess:
        command = [sys.executable, "-c", script]
        made.append(NodeProcess(name, command, dict(os.environ), is_ready or (lambda _pid: True), **more))
        return made[-1]

    yield make
    for part in made:
        part.kill()


def watch_until(supervisor: Supervisor, what: Callable[[], Any]) -> None:
    def step() -> Any:
        supervisor.watch()
        return what()

    wait_for(step)


def test_a_part_that_dies_starts_again(parts: Callable[..., NodeProcess], tmp_path: Path) -> None:
    part = parts()
    supervisor = Supervisor([[part]], tmp_path)
    supervisor.start(threading.Event())
    first = part.process
    assert first is not None
    first.kill()
    watch_until(supervisor, lambda: part.process is not first and part.ready)


def test_one_that_dies_repeatedly_waits_longer_each_time(parts: Callable[..., NodeProcess], tmp_path: Path) -> None:
    part = parts("raise SystemExit(3)")
    supervisor = Supervisor([[part]], tmp_path)
    part.start()
    pauses = []
    for _ in range(3):
        watch_until(supervisor, lambda: part.restart_at is not None)
        assert part.restart_at is not None
        pauses.append(part.restart_at - time.monotonic())
        part.start()
    assert pauses == sorted(pauses)
    assert pauses[-1] > 1


def test_a_node_is_healthy_as_long_as_every_part_runs(
    parts: Callable[..., NodeProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALIVE_FILE, str(tmp_path / "alive"))
    runs, ends = parts(), parts("raise SystemExit(3)")
    Supervisor([[runs]], tmp_path).start(threading.Event())
    Supervisor([[runs]], tmp_path).watch()
    assert (tmp_path / "alive").exists()
    (tmp_path / "alive").unlink()
    ends.start()
    supervisor = Supervisor([[runs, ends]], tmp_path)
    watch_until(supervisor, lambda: ends.restart_at is not None)
    (tmp_path / "alive").unlink(missing_ok=True)
    supervisor.watch()
    assert not (tmp_path / "alive").exists()


def test_a_part_that_hangs_is_killed_and_starts_again(
    parts: Callable[..., NodeProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_LIMIT_S", 0.5)
    heartbeat = tmp_path / "alive"
    part = parts(
        f"import pathlib, time; pathlib.Path({str(heartbeat)!r}).touch(); time.sleep(600)", heartbeat=heartbeat
    )
    supervisor = Supervisor([[part]], tmp_path)
    supervisor.start(threading.Event())
    first = part.process
    watch_until(supervisor, lambda: part.process is not first and part.ready)


def test_a_part_that_cannot_work_with_its_settings_ends_the_start(
    parts: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    part = parts("raise SystemExit(2)", name="receiver", is_ready=lambda _pid: False, heartbeat=tmp_path / "alive")
    with pytest.raises(StartError, match=r"receiver does not start \(exit status 2\)"):
        Supervisor([[part]], tmp_path).start(threading.Event())


def test_a_part_that_does_not_start_is_tried_again_while_the_others_run(
    parts: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    flag = tmp_path / "the database is back"
    script = f"import pathlib, time, sys; pathlib.Path({str(flag)!r}).exists() or sys.exit(1); time.sleep(600)"
    late, other = parts(script, name="sweep", is_ready=lambda _pid: flag.exists()), parts(name="receiver")
    supervisor = Supervisor([[late], [other]], tmp_path)
    supervisor.start(threading.Event())
    assert other.ready
    assert "ended with status 1" in read_not_running(tmp_path)["sweep"]
    flag.touch()
    watch_until(supervisor, lambda: late.ready and not read_not_running(tmp_path))


def test_a_process_that_the_system_does_not_start_is_tried_again(
    parts: Callable[..., NodeProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    part = parts()
    supervisor = Supervisor([[part]], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        supervisor.start(threading.Event())
    assert supervisor.not_running == {"part": "the system does not start it (Cannot allocate memory)"}
    watch_until(supervisor, lambda: part.ready)


def test_a_part_that_stands_still_is_started_again(
    parts: Callable[..., NodeProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_LIMIT_S", 1.0)
    alive = tmp_path / "alive"
    script = f"import pathlib, time\nwhile True:\n    pathlib.Path({str(alive)!r}).touch()\n    time.sleep(0.05)"
    part = parts(script, heartbeat=alive)
    supervisor = Supervisor([[part]], tmp_path)
    supervisor.start(threading.Event())
    first = part.process
    assert first is not None
    os.kill(first.pid, signal.SIGSTOP)
    watch_until(supervisor, lambda: part.process is not first and part.ready)


def test_a_part_without_a_file_is_asked_whether_it_works(
    parts: Callable[..., NodeProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_LIMIT_S", 0.5)
    monkeypatch.setattr("node.processes.process.ASK_EVERY_S", 0.05)
    answers = True
    part = parts(is_ready=lambda _pid: answers)
    supervisor = Supervisor([[part]], tmp_path)
    supervisor.start(threading.Event())
    first = part.process
    watch_until(supervisor, lambda: part.worked)
    answers = False
    watch_until(supervisor, lambda: part.process is not first)


def test_a_part_that_can_be_repaired_is_tried_once_more(parts: Callable[..., NodeProcess], tmp_path: Path) -> None:
    flag = tmp_path / "repaired"
    script = f"import pathlib, time, sys; pathlib.Path({str(flag)!r}).exists() or sys.exit(1); time.sleep(600)"
    part = parts(script, is_ready=lambda _pid: flag.exists(), repair=flag.touch)
    Supervisor([[part]], tmp_path).start(threading.Event())
    assert part.ready


def test_parts_stop_in_the_reverse_order_of_their_stages(parts: Callable[..., NodeProcess], tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = (
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n"
        "    with open({log!r}, 'a') as file: file.write({name!r} + '\\n')\n"
        "    sys.exit(0)\n"
        "signal.signal(15, stop); pathlib.Path({log!r} + {name!r}).touch(); time.sleep(600)"
    )

    def part(name: str) -> NodeProcess:
        on = Path(str(log) + name)
        return parts(script.format(log=str(log), name=name), name=name, is_ready=lambda _pid: on.exists())

    supervisor = Supervisor([[part("redis")], [part("worker")], [part("receiver")]], tmp_path)
    supervisor.start(threading.Event())
    supervisor.stop()
    assert log.read_text().split() == ["receiver", "worker", "redis"]


def test_one_that_does_not_stop_is_killed_with_all_it_started(parts: Callable[..., NodeProcess]) -> None:
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {STUBBORN!r}])"
    part = parts(script, stop_s=0.2)
    part.start()
    assert part.process is not None
    parent = psutil.Process(part.process.pid)
    wait_for(parent.children)
    (grandchild,) = parent.children()
    parent.suspend()
    wait_for(lambda: parent.status() == psutil.STATUS_STOPPED)  # SIGTERM has no effect on it now
    stop_parts([part])
    assert gone(parent.pid)
    wait_for(lambda: gone(grandchild.pid))


def test_children_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from node.processes.process import NodeProcess\n"
        f"part = NodeProcess('p', [sys.executable, '-c', {FOREVER!r}], dict(os.environ), lambda _: True)\n"
        "part.start(); print(part.process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.kill()
    parent.wait(timeout=20)
    wait_for(lambda: gone(child))


def test_ctrl_c_reaches_no_child(parts: Callable[..., NodeProcess]) -> None:
    part = parts()
    part.start()
    assert part.process is not None
    assert os.getpgid(part.process.pid) != os.getpgid(0)


def test_listening_is_seen_without_a_connection(parts: Callable[..., NodeProcess]) -> None:
    script = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); "
    process = subprocess.Popen([sys.executable, "-c", script + "time.sleep(600)"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert listens(process.pid, port)
        assert not listens(os.getpid(), port)
    finally:
        process.kill()
        process.wait(timeout=20)


def test_a_second_node_on_the_same_folder_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from node.run.supervisor import _only_one\n"
        f"with _only_one(Path({str(tmp_path)!r}), 1): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(StartError, match=rf"process {holder.pid}\); stop that node"):
            run_up(Settings(data_dir=tmp_path), main)
    finally:
        holder.kill()
        holder.wait(timeout=20)


def test_a_child_gets_exactly_the_settings_of_its_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMBNODE_RECEIVER__PORT", "11113")
    monkeypatch.setenv("CMBNODE_CONFIG", "/nonexistent.toml")
    settings = load_settings(
        None,
        data_dir=tmp_path,
        worklist=WorklistSettings(port=9999),
        destinations={"pacs": DicomDestination(ae_title="PACS", host="pacs.example", port=104)},
    )
    environment = child_environment(settings)
    for name in [name for name in os.environ if name.startswith("CMBNODE_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings().model_dump() == settings.model_dump()
    assert "CMBNODE_CONFIG" not in environment


def test_signals_work_as_before_after_it_stopped() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_parts_get_the_secrets_that_nobody_else_is_shown() -> None:
    given = {"url": "http://pacs.example/dicom-web", "username": "node", "password": "geheim"}
    settings = Settings(priors={"dicomweb": given}, destinations={"ris": {**given, "kind": "fhir"}})  # type: ignore[arg-type]
    environment = child_environment(settings)
    assert json.loads(environment["CMBNODE_PRIORS"])["dicomweb"]["password"] == "geheim"
    assert json.loads(environment["CMBNODE_DESTINATIONS"])["ris"]["password"] == "geheim"
    assert "geheim" not in settings.model_dump_json() + repr(settings)


def test_a_part_of_an_earlier_run_that_hangs_is_killed_and_the_node_starts(tmp_path: Path) -> None:
    script = (
        "import fcntl, os, time\n"
        f"lock = os.open({str(tmp_path / 'node.lock')!r}, os.O_RDWR | os.O_CREAT); fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('held', flush=True); time.sleep(600)"
    )
    hanging = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert hanging.stdout is not None
        hanging.stdout.readline()
        (tmp_path / "node.lock").write_text(f"{os.getpid()}\n")  # a number that another process has got since
        with _only_one(tmp_path, grace_s=-20):
            assert hanging.wait(timeout=20) == -signal.SIGKILL
    finally:
        hanging.kill()
        hanging.wait(timeout=20)


def test_what_the_parts_share_starts_no_thread_that_a_fork_would_lose() -> None:
    code = (
        "import threading; from node.run.supervisor import _load_parts; _load_parts(); print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "1"
