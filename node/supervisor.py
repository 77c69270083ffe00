"""How does the whole node run as one command? (`cmbnode up`): start every part, restart what dies, stop in order."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import structlog

from node.config import Settings
from node.logs import set_up_logging
from node.processes import Part, alive_file, listens, stop_parts
from node.redis_server import EmbeddedRedis
from pipeline.errors import CmbError

START_LIMIT_S = 120.0
SILENCE_LIMIT_S = 60.0
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""A part that has run for so long starts again without a pause."""

FIRST_USER = "nobody can yet; add the first: cmbnode users add NAME --role administrator"

_log = structlog.get_logger(__name__)


class StartError(CmbError):
    """The node, or one part of it, does not start."""


class PartError(StartError):
    """A part of the node ends or hangs before it is ready; nothing that was asked for wrongly."""

    exit_status = 1


def run_up(settings: Settings) -> None:
    """Run the node until SIGTERM or SIGINT.

    Raises
    ------
    StartError
        If another node uses the data folder, or a part does not start.
    """
    set_up_logging(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with _stop_on_signal() as stop, _only_one(settings.data_dir, settings.queue.grace_s) as lock:
        started = time.monotonic()
        settings = _fill_in(settings)
        _prepare_ledger(settings)
        supervisor = Supervisor(_stages(settings, lock))
        try:
            supervisor.start(stop)
            if not stop.is_set():
                print(_summary(settings, time.monotonic() - started), flush=True)
            while not stop.wait(0.2):
                supervisor.watch()
        finally:
            _log.info("stopping")
            supervisor.stop()
    _log.info("stopped")


@dataclass(frozen=True)
class Supervisor:
    """Parts by stage: started first to last, stopped last to first; those of one stage at the same time."""

    stages: Sequence[Sequence[Part]]

    @property
    def parts(self) -> list[Part]:
        """All parts."""
        return [part for stage in self.stages for part in stage]

    def start(self, stop: threading.Event) -> None:
        """Start the first stage; when it is ready, all the others together.

        Raises
        ------
        StartError
            If a part ends before it is ready, or is not ready in time.
        """
        first, others = self.stages[0], [part for stage in self.stages[1:] for part in stage]
        for parts in (first, others):
            for part in parts:
                part.start()
            for part in parts:
                _wait_ready(part, stop)

    def watch(self) -> None:
        """Look after every part once: restart what has died, kill what hangs."""
        now = time.monotonic()
        for part in self.parts:
            if part.restart_at is not None:
                if now >= part.restart_at:
                    part.start()
            elif (status := part.status) is not None:
                part.failures = 0 if now - part.started > STEADY_S else part.failures + 1
                pause = min(LONGEST_PAUSE_S, 0.5 * 2 ** (part.failures - 1)) if part.failures else 0.0
                part.restart_at = now + pause
                _log.warning("a part died and starts again", part=part.name, status=status, pause_s=pause)
            elif part.silent_for() > SILENCE_LIMIT_S:
                _log.warning("a part hangs and is killed", part=part.name, silent_s=round(part.silent_for()))
                part.kill()

    def stop(self) -> None:
        """Stop every part, in the reverse order."""
        for stage in reversed(self.stages):
            stop_parts(stage)


def _wait_ready(part: Part, stop: threading.Event) -> None:
    """Wait until a part works; one that ends is repaired and tried again once, if it knows how."""
    deadline = time.monotonic() + START_LIMIT_S
    while not part.ready and not stop.wait(0.05):
        if part.status is not None:
            if part.repair is None:
                raise PartError(f"the {part.name} does not start (exit status {part.status}); {part.words}")
            part.repair()
            part.repair = None
            part.start()
        if time.monotonic() > deadline:
            raise PartError(f"the {part.name} is not ready after {START_LIMIT_S:.0f} s")


def _stages(settings: Settings, lock: int) -> list[list[Part]]:
    """Every part of the node. Stopped from the end: nothing new comes in, work ends or goes back, Redis goes last."""
    environment = child_environment(settings)

    def part(name: str, *words: str, port: int | None = None, stop_s: float = 15.0) -> Part:
        return Part(
            name,
            [sys.executable, "-m", "node.cli", *words],
            environment,
            is_ready=lambda pid: port is None or listens(pid, port),
            stop_s=stop_s,
            heartbeat=alive_file(settings.data_dir, name) if port is None else None,
            inherit=(lock,),
        )

    grace_s = settings.queue.grace_s
    stages = [
        [part("sweep", "sweep"), part("worklist", "worklist", port=settings.worklist.port)],
        [part(f"worker-{q}", "worker", "--queue", q, stop_s=grace_s + 10) for q in ("analyse", "deliver")],
        [part("receiver", "receiver", port=settings.receiver.port)],
    ]
    own = EmbeddedRedis(settings.data_dir / "redis")
    if settings.redis_url == own.url:
        own.prepare()

        def put_data_aside() -> None:
            if (kept := own.set_aside()) is not None:
                _log.warning("Redis could not read its data; it starts empty", kept=str(kept))

        is_up = own.answers
        redis = Part("redis", own.command(), environment, is_ready=lambda _pid: is_up())
        redis.repair, redis.inherit, redis.words = put_data_aside, (lock,), f"see {own.log}"
        stages.insert(0, [redis])
    return stages


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment that gives a child exactly these settings, wherever they came from."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("CMBNODE_")}
    document: dict[str, Any] = settings.model_dump(mode="json", exclude_none=True, context={"secrets": True})
    given = {
        f"CMBNODE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in document.items()
    }
    return {**kept, **given, "PYTHONUNBUFFERED": "1"}


def _fill_in(settings: Settings) -> Settings:
    """Settle what was left open: free ports where 0 was given, the node's own Redis where none was."""
    changes: dict[str, Any] = {"data_dir": settings.data_dir.absolute()}
    for name in ("receiver", "worklist"):
        part = getattr(settings, name)
        if part.port == 0:
            changes[name] = part.model_copy(update={"port": _free_port(part.host)})
    if settings.redis_url is None:
        changes["redis_url"] = EmbeddedRedis(settings.data_dir / "redis").url
    return settings.model_copy(update=changes)


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _prepare_ledger(settings: Settings) -> None:
    """Bring the database up to date once, before several processes open it."""
    from node.ledger import Ledger

    ledger = Ledger(settings.ledger_url)
    try:
        ledger.upgrade()
    finally:
        ledger.close()


@contextmanager
def _only_one(data_dir: Path, grace_s: float) -> Iterator[int]:
    """Hold the data folder's lock, or say who does.

    The parts inherit it, so it is free only when the last process of a run has ended. What is left of a run whose
    supervisor was killed stops by itself; that is waited for.
    """
    path = data_dir / "node.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + grace_s + 20
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pid = _read_pid(path)
                if pid is not None or time.monotonic() > deadline:
                    who = f"a node runs on it already (process {pid})" if pid else "parts of an earlier run hold it"
                    raise StartError(
                        who, where=str(data_dir), do="stop that one, or name another with --data"
                    ) from None
                time.sleep(0.2)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _read_pid(path: Path) -> int | None:
    """The supervisor that wrote the lock file, if it lives."""
    try:
        pid = int(path.read_text())
    except (OSError, ValueError):
        return None
    return pid if psutil.pid_exists(pid) else None


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; the handlers of before come back afterwards."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sign_in(settings: Settings) -> str:
    """Who may see the worklist."""
    from node.ledger import Ledger

    if settings.worklist.open_to_all:
        return "switched off: everyone who reaches the worklist sees patients' names"
    if not settings.worklist.requires_sign_in:
        return "none: only this machine reaches the worklist"
    ledger = Ledger(settings.ledger_url)
    try:
        somebody = ledger.has_accounts()
    finally:
        ledger.close()
    return "by name and password" if somebody else FIRST_USER


def _summary(settings: Settings, seconds: float) -> str:
    """What an administrator wants to know after the start."""
    host = "127.0.0.1" if settings.worklist.host in ("0.0.0.0", "::") else settings.worklist.host  # noqa: S104
    to = [f"{name} ({way.address})" for name, way in settings.destinations.items()]
    lines = {
        "worklist": f"http://{f'[{host}]' if ':' in host else host}:{settings.worklist.port}/",
        "sign-in": _sign_in(settings),
        "DICOM": f"{settings.ae_title}@{settings.receiver.host}:{settings.receiver.port}",
        "results to": ", ".join(to) or "nowhere: no destination is set",
        "data": str(settings.data_dir),
    }
    head = f"cmb-node {version('cmb-node')} is ready after {seconds:.1f} s. Research use only; not a medical device."
    return "\n".join([head, *(f"  {name:<11}{value}" for name, value in lines.items()), "Ctrl-C or SIGTERM stops it."])
