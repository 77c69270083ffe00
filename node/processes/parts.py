"""Which parts of the node do their work, and for how long has one been silent?

Each running part touches a file of its own in the data folder, which all parts share: ``run/parts/PART@HOST-PID``. So
one of two workers that hangs is seen though the other one works. `cmbnode up` writes beside them which of its parts
do not run, and why.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .alive import SILENCE_LIMIT_S

RECEIVER, SWEEP, WORKLIST, FETCHER, PULLER = "receiver", "sweep", "worklist", "prior-fetcher", "puller"
PARTS = (RECEIVER, "worker-analyse", "worker-deliver", SWEEP, WORKLIST)
"""What every node runs; the prior fetcher and the puller belong to those that ask a PACS for studies."""
TOUCH_EVERY_S = 2.0
FORGET_AFTER_S = 600.0
"""What has been silent for longer is not there any more."""
_NOT_RUNNING, _CLOCK = "not-running.json", "clock.json"


@dataclass(frozen=True)
class PartLife:
    """One process of the node, and how long ago it last said that it works."""

    part: str
    instance: str  # HOST-PID
    age_s: float

    @property
    def works(self) -> bool:
        """Whether it said so lately."""
        return self.age_s < SILENCE_LIMIT_S


class PartFile:
    """The file of one part of this process.

    Parameters
    ----------
    part : str
        One of :data:`PARTS`, :data:`FETCHER` or :data:`PULLER`.
    """

    def __init__(self, data_dir: Path, part: str) -> None:
        self.path = part_file(data_dir, part, os.getpid())
        self._touched = float("-inf")

    def beat(self) -> None:
        """Touch it, at most every two seconds. A disk that cannot be written to is no reason to stop the work."""
        now = time.monotonic()
        if now - self._touched < TOUCH_EVERY_S:
            return
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.touch()
            self._touched = now

    def remove(self) -> None:
        """Say that the part ended as it should."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def part_file(data_dir: Path, part: str, pid: int) -> Path:
    """Where the process of that id on this machine says that it works."""
    return _folder(data_dir) / f"{part}@{socket.gethostname()}-{pid}"


def read_parts(data_dir: Path) -> list[PartLife]:
    """Every part that said that it works within the last ten minutes."""
    now, found = time.time(), []
    for path in sorted(_folder(data_dir).glob("*@*")):
        with suppress(OSError):  # removed at this moment
            part, _, instance = path.name.partition("@")
            age_s = abs(now - path.stat().st_mtime)  # a time to come: the clock was set back since
            found.append(PartLife(part, instance, age_s))
    return [life for life in found if life.age_s < FORGET_AFTER_S]


def forget_parts(data_dir: Path) -> None:
    """Remove the files of processes that ended long ago without saying so."""
    now = time.time()
    for path in _folder(data_dir).glob("*@*"):
        with suppress(OSError):
            if abs(now - path.stat().st_mtime) > FORGET_AFTER_S:
                path.unlink()


def note_not_running(data_dir: Path, reasons: Mapping[str, str]) -> None:
    """Say which parts `cmbnode up` cannot keep running, and why; each stays listed until it works again."""
    path = _folder(data_dir) / _NOT_RUNNING
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(json.dumps(dict(reasons)))


def read_not_running(data_dir: Path) -> dict[str, str]:
    """Parts that `cmbnode up` cannot keep running, and why."""
    try:
        found = json.loads((_folder(data_dir) / _NOT_RUNNING).read_text())
    except (OSError, ValueError):
        return {}
    return {str(part): str(why) for part, why in found.items()}


@dataclass(frozen=True)
class ClockReport:
    """What the sweep says of the clock.

    Parameters
    ----------
    seen : float
        The time when it last looked, seconds since 1970.
    untrusted_s : float
        It deletes nothing for this many seconds, because the clock jumped; 0: it trusts the clock.
    """

    seen: float
    untrusted_s: float


def write_clock(data_dir: Path, report: ClockReport) -> None:
    """Keep the report, for other processes and the next start. It is written completely or not at all."""
    path = _folder(data_dir) / _CLOCK
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(asdict(report)))
        temporary.replace(path)


def read_clock(data_dir: Path) -> ClockReport | None:
    """The last report, if there is one."""
    try:
        found = json.loads((_folder(data_dir) / _CLOCK).read_text())
        return ClockReport(float(found["seen"]), float(found["untrusted_s"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _folder(data_dir: Path) -> Path:
    return data_dir / "run" / "parts"
