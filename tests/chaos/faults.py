"""The faults. Each strikes the site once, undoes itself, and says whether there was anything to strike."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import redis

from node.ledger import DeliveryState
from node.run.redis_server import EmbeddedRedis

from .site import Site

Fault = Callable[[Site, random.Random], bool]
PARTS = (
    ("receiver",),
    ("worker", "analyse"),
    ("worker", "deliver"),
    ("sweep",),
    ("worklist",),
    ("redis-server",),
)


def kill_part(site: Site, generator: random.Random) -> bool:
    """SIGKILL one part."""
    part = site.part(*generator.choice(PARTS))
    if part is None:
        return False
    with suppress(psutil.NoSuchProcess):
        part.kill()
    return True


def pause_part(site: Site, generator: random.Random) -> bool:
    """SIGSTOP one part for some seconds, longer than a lease at times."""
    part = site.part(*generator.choice(PARTS))
    if part is None:
        return False
    with suppress(psutil.NoSuchProcess):
        part.suspend()
        time.sleep(generator.uniform(1, 9))
        part.resume()
    return True


def hang_part(site: Site, generator: random.Random) -> bool:
    """SIGSTOP one part and never wake it: the supervisor has to notice."""
    part = site.part(*generator.choice(PARTS[:5]))
    if part is None:
        return False
    with suppress(psutil.NoSuchProcess):
        part.suspend()
    return True


def kill_supervisor(site: Site, _: random.Random) -> bool:
    """SIGKILL the supervisor; the init system starts it again."""
    return site.node.signal(signal.SIGKILL)


def kill_everything(site: Site, _: random.Random) -> bool:
    """SIGKILL every process of the node at once, as a power cut would."""
    family = site.family()
    for member in reversed(family):
        with suppress(psutil.NoSuchProcess):
            member.kill()
    return bool(family)


def flush_redis(site: Site, _: random.Random) -> bool:
    """FLUSHALL."""
    socket = EmbeddedRedis(site.data / "redis").socket
    try:
        with redis.Redis(unix_socket_path=str(socket), socket_timeout=5) as client:
            client.flushall()
    except redis.RedisError:
        return False
    return True


def database_outage(site: Site, generator: random.Random) -> bool:
    """The ledger cannot be written for some seconds."""
    try:
        with site.database_away():
            time.sleep(generator.uniform(1, 8))
    except Exception:  # SQLite: somebody else held it all the time, or the disk is full just now
        return False
    return True


def archive_down(site: Site, generator: random.Random) -> bool:
    """The first destination (storescp) dies and comes back later."""
    site.archive.down = True
    struck = site.archive.signal(signal.SIGKILL)
    time.sleep(generator.uniform(1, 8))
    site.archive.down = False
    return struck


def archive_silent(site: Site, generator: random.Random) -> bool:
    """The first destination takes connections and says nothing."""
    struck = site.archive.signal(signal.SIGSTOP)
    time.sleep(generator.uniform(1, 12))
    return struck and site.archive.signal(signal.SIGCONT)


def pacs_down(site: Site, generator: random.Random) -> bool:
    """The second destination (Orthanc) is stopped and started."""
    site.stop_pacs()
    time.sleep(generator.uniform(0, 5))
    site.start_pacs()
    return True


def connection_reset(site: Site, generator: random.Random) -> bool:
    """A connection is reset inside a C-STORE."""
    site.proxy.cut(generator)
    return True


def clock_jump(site: Site, generator: random.Random) -> bool:
    """The clock jumps, forward or back, and is set right again."""
    site.turn_clock(generator.choice((1, -1)) * generator.choice((40 * 86_400, 3 * 3600, 90)))
    time.sleep(generator.uniform(2, 10))
    site.turn_clock(0)
    return True


def disk_full(site: Site, generator: random.Random) -> bool:
    """The node's disk is filled to the last byte, or to below the guard, for some seconds."""
    if not site.data.parent.is_mount():
        return False
    ballast = site.data.parent / "ballast"
    spare = generator.choice((0, 4_000_000))
    usage = os.statvfs(site.data)
    try:
        with ballast.open("wb") as file:
            left = usage.f_bavail * usage.f_frsize - spare
            while left > 0:
                left -= file.write(bytes(min(left, 1_000_000)))
    except OSError:
        pass
    time.sleep(generator.uniform(1, 6))
    ballast.unlink(missing_ok=True)
    return True


def damage_result(site: Site, generator: random.Random) -> bool:
    """A result that waits for delivery is cut short, altered or deleted on disk."""
    waiting = (DeliveryState.WAITING, DeliveryState.SENDING)
    try:
        with site.ledger() as ledger:
            paths = [
                site.data / delivery.result.path
                for summary in ledger.jobs(limit=20)
                for delivery in ledger.deliveries(summary.job.id)
                if delivery.state in waiting
            ]
    except Exception:  # the database is away just now
        return False
    paths = [path for path in paths if path.exists()]
    if not paths:
        return False
    path = generator.choice(paths)
    with suppress(OSError):
        match generator.randrange(3):
            case 0:
                os.truncate(path, generator.randrange(path.stat().st_size))
            case 1:
                with path.open("r+b") as file:
                    file.seek(generator.randrange(path.stat().st_size))
                    file.write(generator.randbytes(64))
            case _:
                path.unlink()
        return True
    return False


WEIGHTS: dict[Fault, int] = {
    kill_part: 20,
    pause_part: 10,
    kill_supervisor: 4,
    kill_everything: 4,
    flush_redis: 8,
    database_outage: 8,
    archive_down: 8,
    archive_silent: 4,
    pacs_down: 4,
    connection_reset: 14,
    clock_jump: 6,
    disk_full: 6,
    damage_result: 10,
}
SLOW: dict[Fault, int] = {hang_part: 3}
"""Only in the long campaign: it takes the supervisor a minute to be sure."""
