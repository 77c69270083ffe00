"""Hosts on one machine: network namespaces with host names of their own, joined by a bridge. Needs root."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

NETWORK = "10.207.86."
GATEWAY = f"{NETWORK}1"
"""Address of this machine itself in the network of the hosts."""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Host:
    """One host.

    Attributes
    ----------
    name, address : str
        What it calls itself, and where it is reached.
    """

    def __init__(self, name: str, address: str, namespace: str, cable: str) -> None:
        self.name, self.address = name, address
        self._namespace, self._cable = namespace, cable
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Start a program on it; its output is added to `log`."""
        shell = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name, *command]
        with log.open("ab") as out:
            self._processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", self._namespace, *shell], env=dict(environment), stdout=out, stderr=out
                )
            )

    def kill(self) -> None:
        """Everything on it ends at once, as in a power cut."""
        family = [
            member
            for process in self._processes
            if process.poll() is None
            for member in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True))
        ]
        for member in family:
            if member.is_running():
                member.kill()
        for process in self._processes:
            process.wait(20)
        self._processes.clear()

    def cut_off(self) -> None:
        """Pull its network cable: what it sends is lost without a word."""
        _ip("link", "set", self._cable, "down")

    def reconnect(self) -> None:
        """Plug it in again."""
        _ip("link", "set", self._cable, "up")


@contextmanager
def hosts(*names: str) -> Iterator[tuple[Host, ...]]:
    """Make hosts until the block ends; what still runs on them is killed."""
    mark = secrets.token_hex(2)
    bridge, made = f"cmb{mark}", []
    _ip("link", "add", bridge, "type", "bridge")
    try:
        _ip("address", "add", f"{GATEWAY}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number, name in enumerate(names, start=2):
            namespace, cable = f"cmb{mark}-{name}", f"cmb{mark}v{number}"
            _ip("netns", "add", namespace)
            made.append(Host(name, f"{NETWORK}{number}", namespace, cable))
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", cable, "master", bridge, "up")
            _ip("-n", namespace, "address", "add", f"{NETWORK}{number}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", namespace, "link", "set", device, "up")
        yield tuple(made)
    finally:
        for host in made:
            host.kill()
            _ip("netns", "delete", host._namespace)
        _ip("link", "delete", bridge)
