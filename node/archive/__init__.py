"""Where are files kept, and when are they durable? The only place that makes paths from UIDs."""

from .archive import Archive, DamagedFileError, StoredFile, TooLargeError, UnsafeNameError, content_start, is_uid
from .disk_space import MEGABYTE, DiskSpace
from .incoming import IncomingFile, OutOfResourcesError

__all__ = [
    "MEGABYTE",
    "Archive",
    "DamagedFileError",
    "DiskSpace",
    "IncomingFile",
    "OutOfResourcesError",
    "StoredFile",
    "TooLargeError",
    "UnsafeNameError",
    "content_start",
    "is_uid",
]
