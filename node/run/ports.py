"""On which ports does the node listen, and can it?"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from node.settings import Settings
from pipeline.errors import CmbError


class StartError(CmbError):
    """The node, or one part of it, does not start."""


@dataclass(frozen=True)
class Obstacle:
    """Why a server cannot listen on an address; `in_use` where another program does."""

    why: str
    in_use: bool = False


@dataclass(frozen=True)
class Listener:
    """An address that the node listens on.

    Parameters
    ----------
    part : str
        ``receiver`` or ``worklist``.
    table : str
        The table of the settings that has the port.
    """

    part: str
    table: str
    host: str
    port: int

    def obstacle(self) -> Obstacle | None:
        """Why it cannot listen now."""
        return find_obstacle(self.host, self.port)

    def advice(self, obstacle: Obstacle) -> str:
        """What to do about it."""
        stop = "stop that program, or " if obstacle.in_use else ""
        return f"{stop}set {self.part}.host and {self.table}.port"


def listeners(settings: Settings) -> Iterator[Listener]:
    """Every address that the node listens on."""
    receiver, worklist = settings.receiver, settings.worklist
    if receiver.tls is None or not receiver.tls.only:
        yield Listener("receiver", "receiver", receiver.listen_host, receiver.port)
    if receiver.tls is not None:
        yield Listener("receiver", "receiver.tls", receiver.listen_host, receiver.tls.port)
    yield Listener("worklist", "worklist", worklist.host, worklist.port)


def check_ports(settings: Settings) -> None:
    """Refuse to start while another program listens where the node is to listen."""
    for one in listeners(settings):
        if obstacle := one.obstacle():
            raise StartError(obstacle.why, where=f"{one.table}: {one.host}", do=one.advice(obstacle))


def choose_ports(settings: Settings) -> Settings:
    """Choose a free port wherever the settings say 0."""
    changes: dict[str, Any] = {}
    for name, host in (("receiver", settings.receiver.listen_host), ("worklist", settings.worklist.host)):
        part = getattr(settings, name)
        if part.port == 0:
            changes[name] = part.model_copy(update={"port": _free_port(host)})
    receiver = changes.get("receiver", settings.receiver)
    if receiver.tls is not None and receiver.tls.port == 0:
        tls = receiver.tls.model_copy(update={"port": _free_port(receiver.listen_host)})
        changes["receiver"] = receiver.model_copy(update={"tls": tls})
    return settings.model_copy(update=changes)


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def find_obstacle(host: str, port: int) -> Obstacle | None:
    """Say why a server could not listen on an address. Nothing is sent, and nobody connects."""
    plain = host.strip("[]")
    try:
        with socket.socket(socket.AF_INET6 if ":" in plain else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do, for a quick restart
            probe.bind((plain, port))
            probe.listen()
    except socket.gaierror as error:
        return Obstacle(f"the host name {plain} cannot be resolved ({error.strerror})")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Obstacle(f"port {port} is in use{_user_of(port)}", in_use=True)
        if error.errno == errno.EACCES:
            return Obstacle(f"port {port} needs a privilege that the node does not have")
        if error.errno == errno.EADDRNOTAVAIL:
            return Obstacle(f"{plain} is no address of this machine")
        return Obstacle(f"port {port} cannot be used ({error.strerror})")
    return None


def _user_of(port: int) -> str:
    """The program that listens on a port, where this user may know it."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
