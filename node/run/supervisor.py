"""How does the whole node run as one command? (`cmbnode up`): start every part, restart what dies, stop in order.

Only a wrong configuration ends it at the first start. A part that does not start for another reason (a database that
is away, a full disk) is tried again with growing pauses, and the others go on.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import structlog
from pydantic import SecretStr
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from node.logs import set_up_logging
from node.processes.alive import ALIVE_FILE, SILENCE_LIMIT_S, beat
from node.processes.parts import note_not_running, part_file
from node.processes.process import NodeProcess, listens, stop_on_signal, stop_parts
from node.roles import FIRST_ACCOUNT
from node.settings import WHO_MAY_SEND, Settings, is_loopback

from .ports import StartError, check_ports, choose_ports
from .redis_server import EmbeddedRedis, RedisProgram, find_redis_server

START_LIMIT_S = 120.0
"""A part that has not begun its work after this time hangs."""
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
"""A part that has run for at least this long starts again without a pause."""
WRONG_CONFIGURATION = 2
"""Exit status of a part that cannot work with its settings."""


_log = structlog.get_logger(__name__)


def run_up(settings: Settings, main: Callable[[list[str]], int]) -> None:
    """Run the node until SIGTERM or SIGINT.

    Parameters
    ----------
    main : callable
        Runs a command of `cmbnode`, given its words, and returns the exit status; each part does so in a fork.

    Raises
    ------
    StartError
        If another node uses the data folder, a port is in use, or a part cannot work with its settings.
    """
    set_up_logging(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with stop_on_signal() as stop, _only_one(settings.data_dir, settings.queue.grace_s) as lock:
        started = time.monotonic()
        check_ports(settings)
        settings = _fill_in(settings)
        _prepare_ledger(settings)
        _load_parts()
        supervisor = Supervisor(_stages(settings, lock, main), settings.data_dir)
        try:
            supervisor.start(stop)
            if not stop.is_set():
                print(_summary(settings, time.monotonic() - started, supervisor.not_running), flush=True)
            while not stop.wait(0.2):
                supervisor.watch()
        finally:
            _log.info("stopping")
            supervisor.stop()
    _log.info("stopped")


@dataclass(frozen=True)
class Supervisor:
    """Parts by stage: started first to last, stopped last to first; those of one stage at the same time.

    Parameters
    ----------
    data_dir : Path
        Where the parts say that they work, and the supervisor which of them do not run.
    """

    stages: Sequence[Sequence[NodeProcess]]
    data_dir: Path

    @property
    def parts(self) -> list[NodeProcess]:
        """All parts."""
        return [part for stage in self.stages for part in stage]

    @property
    def not_running(self) -> dict[str, str]:
        """Parts that cannot be kept running, and why."""
        return {part.name: part.why for part in self.parts if part.why}

    def start(self, stop: threading.Event) -> None:
        """Start the first stage; when it is ready, or does not start, all the others together.

        Raises
        ------
        StartError
            If a part cannot work with its settings.
        """
        first, others = self.stages[0], [part for stage in self.stages[1:] for part in stage]
        for parts in (first, others):
            for part in parts:
                _start(part)
            for part in parts:
                _wait_ready(part, stop)
        note_not_running(self.data_dir, self.not_running)

    def watch(self) -> None:
        """Look after every part once: restart what has died, kill what hangs."""
        before = self.not_running
        for part in self.parts:
            self._watch(part)
        if self.not_running != before:
            note_not_running(self.data_dir, self.not_running)
        if all(part.restart_at is None for part in self.parts):
            beat()

    def _watch(self, part: NodeProcess) -> None:
        if part.restart_at is not None:
            if time.monotonic() >= part.restart_at:
                _start(part)
            return
        silent_s = part.silent_for()
        if part.status is not None:
            self._forget(part)
            _put_off(part, f"it ended with status {part.status}")
        elif silent_s > (SILENCE_LIMIT_S if part.worked else START_LIMIT_S):
            self._forget(part)
            part.kill()
            _put_off(part, f"it was silent for {silent_s:.0f} s and was killed")
        elif part.worked and part.why:
            part.why = ""
            _log.info("a part works again", part=part.name)

    def _forget(self, part: NodeProcess) -> None:
        """Remove what a process that ended said of itself."""
        if part.process is not None:
            part_file(self.data_dir, part.name, part.process.pid).unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop every part, in the reverse order."""
        for stage in reversed(self.stages):
            stop_parts(stage)
        note_not_running(self.data_dir, {})


def _start(part: NodeProcess) -> None:
    try:
        part.start()
    except OSError as error:  # no memory, no free process number
        _put_off(part, f"the system does not start it ({error.strerror})")


def _put_off(part: NodeProcess, why: str) -> None:
    """Plan the next start of a part that does not run: at once after a long run, later each time after short ones."""
    now = time.monotonic()
    part.failures = 0 if part.worked and now - part.started > STEADY_S else part.failures + 1
    pause_s = min(LONGEST_PAUSE_S, 0.5 * 2 ** min(part.failures - 1, 10)) if part.failures else 0.0
    part.restart_at, part.why = now + pause_s, why
    _log.warning("a part does not run and is started again", part=part.name, why=why, pause_s=pause_s)


def _wait_ready(part: NodeProcess, stop: threading.Event) -> None:
    """Wait until a part works, or is to be started again later.

    One that ends is repaired and tried again once, if it knows how.
    """
    while part.restart_at is None and not part.ready and not stop.wait(0.05):
        status = part.status
        if status is not None and part.repair is not None:
            part.repair()
            part.repair = None
            _start(part)
        elif status == WRONG_CONFIGURATION and part.heartbeat is not None:
            raise StartError(f"the {part.name} does not start (exit status {status}); {part.words}")
        elif status is not None:
            _put_off(part, f"it ended with status {status}; {part.words}")
        elif time.monotonic() > part.started + START_LIMIT_S:
            return  # `watch` ends it


def _load_parts() -> None:
    """Import what the parts need, so that they share its memory and a part that is started again works at once."""
    for module in ("node.receive.receiver", "node.run.sweep", "node.run.workers", "node.web.app"):
        import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a part would write to, and so copy, every page that it shares


def _stages(settings: Settings, lock: int, main: Callable[[list[str]], int]) -> list[list[NodeProcess]]:
    """Every part of the node. They stop from the end: no images come in, work ends or is given back, Redis is last."""
    environment = child_environment(settings)

    def part(name: str, *words: str, ports: Sequence[int] = (), stop_s: float = 15.0) -> NodeProcess:
        alive = settings.data_dir / "run" / "alive" / name
        return NodeProcess(
            name,
            ["cmbnode", *words],
            {**environment, ALIVE_FILE: str(alive)},
            is_ready=lambda pid: all(listens(pid, port) for port in ports),
            function=lambda: main(list(words)),
            stop_s=stop_s,
            heartbeat=alive,
        )

    grace_s = settings.queue.grace_s
    stages = [
        [part("sweep", "sweep"), part("worklist", "worklist", ports=[settings.worklist.port])],
        [part(f"worker-{q}", "worker", "--queue", q, stop_s=grace_s + 10) for q in ("analyse", "deliver")],
        [part("receiver", "receiver", ports=settings.receiver.ports)],
    ]
    own = EmbeddedRedis(settings.data_dir / "redis")
    if settings.broker_url == own.url:
        own.prepare()
        _say_which(find_redis_server())

        def start_empty() -> None:
            if (kept := own.move_data_away()) is not None:
                _log.warning("Redis cannot read its data and starts empty", kept=str(kept))

        is_up = own.answers
        redis = NodeProcess("redis", own.command(), environment, is_ready=lambda _pid: is_up())
        redis.repair, redis.inherit, redis.words = start_empty, (lock,), f"see {own.log}"
        stages.insert(0, [redis])
    return stages


def _say_which(program: RedisProgram) -> None:
    version_text = ".".join(map(str, program.version))
    _log.info("Redis", program=program.path, version=version_text)
    if not program.supported:
        _log.warning(
            "this Redis no longer gets security updates; only the node's own user reaches it, through a private socket",
            version=version_text,
            do="install redis-server 7 or newer, or set CMBNODE_REDIS_URL",
        )


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment that gives a child exactly these settings, wherever they came from."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("CMBNODE_")}
    document: dict[str, Any] = settings.model_dump(mode="json", exclude_none=True, context={"secrets": True})
    given = {
        f"CMBNODE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in document.items()
    }
    return {**kept, **given}


def _fill_in(settings: Settings) -> Settings:
    """Choose what the settings leave open: free ports for 0, and the node's own Redis where no other is named."""
    changes: dict[str, Any] = {"data_dir": settings.data_dir.absolute()}
    if settings.redis_url is None:
        changes["redis_url"] = SecretStr(EmbeddedRedis(settings.data_dir / "redis").url)
    return choose_ports(settings.model_copy(update=changes))


def _prepare_ledger(settings: Settings) -> None:
    """Bring the database up to date once, before several processes open it.

    If it is away or locked, each part tries again by itself.
    """
    from node.ledger import Ledger

    ledger = Ledger(settings.ledger_url)
    try:
        ledger.upgrade()
    except (OperationalError, InterfaceError) as error:
        _log.error("the database does not answer; the parts are started and try again", error=type(error).__name__)
    finally:
        ledger.close()


@contextmanager
def _only_one(data_dir: Path, grace_s: float) -> Iterator[int]:
    """Hold the data folder's lock, or say who does.

    The parts inherit it, so it is free only when the last process of a run has ended. Parts whose supervisor was killed
    stop by themselves: this waits for them, and kills those that do not, because they hang.
    """
    path = data_dir / "node.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline, killed = time.monotonic() + grace_s + 20, False
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _refuse_a_running_node(path, gave_up=killed and time.monotonic() > deadline)
                if time.monotonic() > deadline:
                    _kill_parts_of_an_earlier_run(path)
                    deadline, killed = time.monotonic() + 10, True
                time.sleep(0.2)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _refuse_a_running_node(lock: Path, *, gave_up: bool) -> None:
    with suppress(OSError, ValueError, psutil.Error):
        pid = int(lock.read_text())
        if pid != os.getpid() and _holds(psutil.Process(pid), lock):  # else the number means another process by now
            raise StartError(
                f"a node is already running on it (process {pid})",
                where=str(lock.parent),
                do="stop that node, or name another folder with --data",
            )
    if gave_up:
        raise StartError(
            "it is in use, by a node on another machine or in another container",
            where=str(lock.parent),
            do="stop that node, or name another folder with --data",
        )


def _kill_parts_of_an_earlier_run(lock: Path) -> None:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and _holds(process, lock):
                _log.warning("a part of an earlier run hangs and is killed", process=process.pid)
                process.kill()


def _holds(process: psutil.Process, lock: Path) -> bool:
    return any(file.path == str(lock.resolve()) for file in process.open_files())


def _sign_in(settings: Settings) -> str:
    """Who may see the worklist."""
    from node.ledger import Ledger

    if not settings.worklist.sign_in:
        return "switched off: everyone on this machine is an administrator"
    ledger = Ledger(settings.ledger_url)
    try:
        somebody = ledger.has_accounts()
    except SQLAlchemyError:
        return "unknown: the database does not answer"
    finally:
        ledger.close()
    return "by name and password" if somebody else f"there is no account yet; add the first: {FIRST_ACCOUNT}"


def _dicom(settings: Settings) -> str:
    """Where the receiver listens."""
    receiver = settings.receiver
    address = f"{settings.ae_title}@{receiver.listen_host}:{receiver.ports[0]}"
    if receiver.tls is not None:
        address += " with TLS" if receiver.tls.only else f", with TLS port {receiver.tls.port}"
    return f"{address} (only this machine: {WHO_MAY_SEND})" if is_loopback(receiver.listen_host) else address


def _summary(settings: Settings, seconds: float, not_running: Mapping[str, str]) -> str:
    """What an administrator wants to know after the start."""
    host = "127.0.0.1" if settings.worklist.host in ("0.0.0.0", "::") else settings.worklist.host  # noqa: S104
    to = [f"{name} ({way.address})" for name, way in settings.destinations.items()]
    lines = {
        "worklist": f"http://{f'[{host}]' if ':' in host else host}:{settings.worklist.port}/",
        "sign-in": _sign_in(settings),
        "DICOM": _dicom(settings),
        "results to": ", ".join(to) or "nowhere: no destination is set",
        "data": str(settings.data_dir),
    }
    if not_running:
        lines["not running"] = "; ".join(f"{part}: {why}" for part, why in not_running.items()) + " (tried again)"
    head = f"cmb-node {version('cmb-node')} is ready after {seconds:.1f} s. Research use only; not a medical device."
    return "\n".join([head, *(f"  {name:<11}{value}" for name, value in lines.items()), "Ctrl-C or SIGTERM stops it."])
