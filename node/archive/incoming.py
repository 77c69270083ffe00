"""How is an object written while it arrives? Piece by piece, under the disk guard, and without dropping its sender."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pipeline.errors import CmbError

from .disk_space import MEGABYTE

_GUARD_EVERY = 8 * MEGABYTE  # bytes written between two checks of the free space
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OutOfResourcesError(CmbError):
    """An object cannot be written now: too little space, no inode, no file descriptor, a disk error.

    Nothing half-written is left.
    """


class IncomingFile:
    """An object being received: written piece by piece, then stored, quarantined or discarded.

    If it cannot be opened or written, neither the constructor nor :meth:`write` raises: what was written is removed,
    the rest of the object is discarded as it arrives, and :meth:`check` raises. So a sender gets an answer instead of
    a dropped association.
    """

    def __init__(self, folder: Path, free_disk_bytes: int) -> None:
        self._folder, self._free_disk_bytes = folder, free_disk_bytes
        self._digest = hashlib.sha256()
        self._next_guard = 0
        self._failure: OutOfResourcesError | None = None
        self.header_size = 0
        self.size = 0
        self.file: IO[bytes] = io.BytesIO()
        self.path: Path | None = None
        try:
            descriptor, name = tempfile.mkstemp(dir=folder)
        except OSError as error:
            self._fail(out_of_resources(error, folder))
            return
        self.path = Path(name)
        # The lock tells a receiver that cleans up beside this one that the file is in use; a crash releases it.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.file = os.fdopen(descriptor, "w+b", buffering=0)

    def write_header(self, header: bytes) -> None:
        """Write the file's header, which the digest does not cover."""
        self.header_size += len(header)
        self._write(header)

    def write(self, piece: bytes | memoryview) -> None:
        """Append one piece of the content."""
        self._digest.update(piece)
        self._write(piece)

    def _write(self, piece: bytes | memoryview) -> None:
        try:
            if self._failure is None and self.size >= self._next_guard:
                guard_disk(self._folder, self._free_disk_bytes)
                self._next_guard = self.size + _GUARD_EVERY
            self.size += len(piece)
            left = memoryview(piece)
            while self._failure is None and left:
                left = left[self.file.write(left) :]
        except OutOfResourcesError as error:
            self._fail(error)
        except OSError as error:
            self._fail(out_of_resources(error, self._folder))

    def _fail(self, error: OutOfResourcesError) -> None:
        self._failure = error.with_traceback(None)  # a traceback would keep the sender's buffer in memory
        with suppress(OSError):
            self.file.truncate(0)
        self._remove()

    def _remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """SHA-256 (hexadecimal) of the content so far."""
        return self._digest.hexdigest()

    def check(self) -> None:
        """Raise the error that stopped the writing, if there was one.

        Raises
        ------
        OutOfResourcesError
            The object is not on disk and cannot be stored.
        """
        if self._failure is not None:
            raise self._failure

    def discard(self) -> None:
        """Close and remove the file, unless it was stored."""
        self.file.close()
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.discard()


def guard_disk(folder: Path, free_disk_bytes: int) -> None:
    """Raise :class:`OutOfResourcesError` when less than `free_disk_bytes` are free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if free < free_disk_bytes:
        raise OutOfResourcesError(
            f"only {free // MEGABYTE} MB free, {free_disk_bytes // MEGABYTE} MB must stay free",
            where=str(folder),
            do="free disk space or lower archive.free_disk_mb",
        )


def out_of_resources(error: OSError, place: Path) -> OutOfResourcesError:
    """Say why an object cannot be written; the text names no value of the object."""
    if error.errno in NO_SPACE:
        return OutOfResourcesError("the disk is full", where=str(place))
    return OutOfResourcesError(f"the object cannot be written ({error.strerror})", where=str(place))
