"""Step 5: the results are sent. One :class:`Destination` protocol, and one module for each kind of destination."""

from __future__ import annotations

from importlib import import_module

from node.settings.destinations import DestinationSettings

from .base import Destination, SendResult, Unreachable, send_all

__all__ = ["Destination", "SendResult", "Unreachable", "open_destination", "send_all"]


def open_destination(settings: DestinationSettings, calling_ae_title: str) -> Destination:
    """Make the destination that the settings describe; connects to nothing yet."""
    destination: Destination = import_module(settings.MODULE).open_destination(settings, calling_ae_title)
    return destination
