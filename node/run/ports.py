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

    def obstacle(self) -> tuple[str, str]:
        """Why it cannot listen now, and what to do; both empty if it can."""
        why = why_not_free(self.host, self.port)
        stop = "stop that program, or " if "in use" in why else ""
        return why, f"{stop}set {self.part}.host and {self.table}.port" if why else ""


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
        why, do = one.obstacle()
        if why:
            raise StartError(why, where=f"{one.table}: {one.host}", do=do)


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


def why_not_free(host: str, port: int) -> str:
    """Say why a server could not listen on an address; empty if it could. Nothing is sent, and nobody connects.

    >>> why_not_free("127.0.0.1", 0)
    ''
    """
    plain = host.strip("[]")
    try:
        with socket.socket(socket.AF_INET6 if ":" in plain else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do, for a quick restart
            probe.bind((plain, port))
            probe.listen()
    except socket.gaierror as error:
        return f"the host name {plain} cannot be resolved ({error.strerror})"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} is in use{_user_of(port)}"
        if error.errno == errno.EACCES:
            return f"port {port} needs a privilege that the node does not have"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"{plain} is no address of this machine"
        return f"port {port} cannot be used ({error.strerror})"
    return ""


def _user_of(port: int) -> str:
    """The program that listens on a port, where this user may know it."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
