"""How does a result leave? One :class:`Destination` protocol, one module a way."""

from __future__ import annotations

from node.config import DestinationSettings
from node.destinations.base import Destination, Sent, Unreachable

__all__ = ["Destination", "Sent", "Unreachable", "open_destination"]


def open_destination(settings: DestinationSettings, calling_ae_title: str) -> Destination:
    """Make the destination that the settings describe; connects to nothing yet."""
    from node.destinations.cstore import CStore

    return CStore(settings, calling_ae_title)
