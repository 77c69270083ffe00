"""Where are files kept, and when are they durable? The only place that makes paths from UIDs."""

from .archive import Archive, DamagedFileError, StoredFile, TooLargeError, UnsafeNameError, content_start, is_uid
from .incoming import MEGABYTE, IncomingFile, OutOfResourcesError

__all__ = [
    "MEGABYTE",
    "Archive",
    "DamagedFileError",
    "IncomingFile",
    "OutOfResourcesError",
    "StoredFile",
    "TooLargeError",
    "UnsafeNameError",
    "content_start",
    "is_uid",
]
