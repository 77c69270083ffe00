"""What can be set? One :class:`Settings` object, and one module for each thing that it is made of."""

from .destinations import DicomDestination
from .dicomweb import DicomWebClientSettings, DicomWebSettings
from .receiver import WHO_MAY_SEND, ReceiverSettings, is_loopback
from .setting_errors import ConfigError
from .settings import (
    ArchiveSettings,
    QueueSettings,
    ResultSettings,
    Settings,
    SettlingSettings,
    WorklistSettings,
    load_settings,
)

__all__ = [
    "WHO_MAY_SEND",
    "ArchiveSettings",
    "ConfigError",
    "DicomDestination",
    "DicomWebClientSettings",
    "DicomWebSettings",
    "QueueSettings",
    "ReceiverSettings",
    "ResultSettings",
    "Settings",
    "SettlingSettings",
    "WorklistSettings",
    "is_loopback",
    "load_settings",
]
