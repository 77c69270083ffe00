"""Can the wall clock be trusted? It is compared with the monotonic clock, which never jumps.

Deleting by age needs a clock that is right. After a jump, and after a start whose time does not follow on the last one,
nothing is deleted until the clock has run steadily for a while (``archive.steady_clock_s``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from node.processes.parts import ClockReport, read_clock, write_clock

JUMP_S = 5.0
"""A smaller difference is a correction that does no harm."""
LONGEST_OFF_S = 86_400.0
"""A node that was off for longer than this cannot tell whether the clock jumped meanwhile."""

_log = structlog.get_logger(__name__)


@dataclass
class SteadyClock:
    """The wall clock, and whether it ran steadily.

    Parameters
    ----------
    data_dir : Path
        Where the last time that was seen is kept over a restart.
    steady_s : float
        How long the clock must have run without a jump before it is trusted.
    wall, monotonic : callable
        The two clocks, in seconds.
    """

    data_dir: Path
    steady_s: float
    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _seen: tuple[float, float] = field(init=False)
    _trusted_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._seen = self.wall(), self.monotonic()
        last, wait_s = read_clock(self.data_dir), 0.0
        if last is not None:
            gap_s = self._seen[0] - last.seen
            wait_s = last.untrusted_s
            if not -JUMP_S <= gap_s <= LONGEST_OFF_S:
                wait_s = self.steady_s
                _log.warning("the clock does not follow on the last run", days=round(gap_s / 86_400, 2), **self._told)
        self._trusted_at = self._seen[1] + wait_s

    @property
    def _told(self) -> dict[str, str]:
        return {"deleting": f"stopped until the clock has run steadily for {self.steady_s / 3600:g} h"}

    def check(self) -> float:
        """Compare the clocks; the seconds by which the wall clock jumped since the last time, or 0."""
        wall, monotonic = self.wall(), self.monotonic()
        jump = (wall - self._seen[0]) - (monotonic - self._seen[1])
        self._seen = wall, monotonic
        jumped = abs(jump) >= JUMP_S
        if jumped:
            self._trusted_at = monotonic + self.steady_s
            _log.warning("the clock jumped", seconds=round(jump), **self._told)
        write_clock(self.data_dir, ClockReport(wall, self.untrusted_s))
        return jump if jumped else 0.0

    @property
    def now(self) -> datetime:
        """The time of the last check, moved on by the monotonic clock: a jump since then does not show in it."""
        wall, monotonic = self._seen
        return datetime.fromtimestamp(wall + self.monotonic() - monotonic, UTC)

    @property
    def untrusted_s(self) -> float:
        """Seconds until the clock is trusted again; 0 if it is."""
        return max(0.0, self._trusted_at - self.monotonic())
