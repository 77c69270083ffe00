"""Which connections and associations are there, and is there room for one more? Counted over every port."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Protocol

from node.settings import ReceiverSettings

_HALF_OPEN, _HALF_OPEN_PER_PEER = 128, 32  # connections without an association yet


class Admissible(Protocol):
    """A connection, which may become an association."""

    @property
    def peer(self) -> str:
        """Address of the other side."""


class Admission:
    """The connections of the receiver, within its limits."""

    def __init__(self, settings: ReceiverSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._connections: set[Admissible] = set()
        self._admitted: set[Admissible] = set()

    def __len__(self) -> int:
        with self._lock:
            return len(self._connections)

    def has_room(self, peer: str) -> bool:
        """Whether another connection of this peer can wait for its association."""
        with self._lock:
            half_open = Counter(each.peer for each in self._connections - self._admitted)
        return half_open.total() < _HALF_OPEN and half_open[peer] < _HALF_OPEN_PER_PEER

    def enter(self, connection: Admissible) -> None:
        """Count a connection."""
        with self._lock:
            self._connections.add(connection)

    def admit(self, association: Admissible) -> bool:
        """Count an association, unless the limit of all or of its peer is reached."""
        settings = self._settings
        with self._lock:
            of_peer = sum(each.peer == association.peer for each in self._admitted)
            if of_peer >= settings.associations_per_peer or len(self._admitted) >= settings.max_associations:
                return False
            self._admitted.add(association)
            return True

    def dismiss(self, association: Admissible) -> None:
        """Uncount an association that was rejected."""
        with self._lock:
            self._admitted.discard(association)

    def forget(self, connection: Admissible) -> None:
        """Uncount a connection that has ended."""
        with self._lock:
            self._connections.discard(connection)
            self._admitted.discard(connection)
