"""How does a result leave? One :class:`Destination` protocol, one module a way."""

from __future__ import annotations

from node.destination_settings import (
    DestinationSettings,
    DicomDestination,
    FhirDestination,
    Hl7Destination,
    StowDestination,
)
from node.destinations.base import Destination, Sent, Unreachable

__all__ = ["Destination", "Sent", "Unreachable", "open_destination"]


def open_destination(settings: DestinationSettings, calling_ae_title: str) -> Destination:
    """Make the destination that the settings describe; connects to nothing yet."""
    match settings:
        case DicomDestination():
            from node.destinations.cstore import CStore

            return CStore(settings, calling_ae_title)
        case StowDestination():
            from node.destinations.stow import Stow

            return Stow(settings)
        case Hl7Destination():
            from node.destinations.mllp import Mllp

            return Mllp(settings)
        case FhirDestination():
            from node.destinations.fhir import Fhir

            return Fhir(settings)
