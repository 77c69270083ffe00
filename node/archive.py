"""Where do bytes lie, and when are they safe? Durable writes, names that cannot escape, the disk guard.

Layout under the root, all on one file system so that a rename is one step::

    incoming/    objects on their way in; whatever a crash left here is removed at the next start
    studies/     <study UID>/<series UID>/<SOP Instance UID>-<digest>.dcm
    outbox/      <job id>/, the results of one job
    quarantine/  <digest>.dcm with <digest>.json beside it: what was kept aside, and why

The digest in a file's name means that two different objects never meet under one path, so none is lost to another;
which of two objects under one SOP Instance UID counts is the ledger's decision, not the file system's.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Self

from pipeline.errors import CmbError

MEGABYTE = 1_000_000
_GUARD_EVERY = 8 * MEGABYTE  # bytes written between two looks at the free space
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class DiskFullError(CmbError):
    """Less disk is free than the guard allows; nothing half-written was left."""


class TooLargeError(CmbError):
    """The object alone is larger than all that may be kept aside."""


class UnsafeNameError(CmbError):
    """A UID or name that would not be safe as part of a path."""


def is_uid(value: str) -> bool:
    """Tell whether `value` is a UID that is safe in a path.

    The characters and length of PS3.5 9.1. Leading zeros in a component, which the standard forbids, are let through:
    devices in the field write them, and they do no harm here.
    """
    return len(value) <= 64 and _UID.fullmatch(value) is not None


@dataclass(frozen=True)
class StoredFile:
    """A file that is safe on disk.

    Parameters
    ----------
    path : str
        Relative to the archive's root, with forward slashes.
    size : int
        Bytes of the whole file.
    sha256 : str
        Of the content as it arrived, without the header that the archive's caller put before it.
    """

    path: str
    size: int
    sha256: str


class IncomingFile:
    """One object on its way in: written piece by piece, then stored, quarantined or discarded.

    Running out of disk does not raise in :meth:`write`: what was written goes at once, the rest of the object is taken
    and dropped, and :meth:`check` says so. So a sender can be answered instead of cut off.
    """

    def __init__(self, folder: Path, free_disk_bytes: int) -> None:
        self._folder, self._free_disk_bytes = folder, free_disk_bytes
        self._digest = hashlib.sha256()
        self._next_guard = 0
        self._failure: DiskFullError | None = None
        self.header_size = 0
        self.size = 0
        descriptor, name = tempfile.mkstemp(dir=folder)
        self.path = Path(name)
        # The lock says "somebody is writing this" to a receiver that cleans up beside us; a crash lets go of it.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.file: IO[bytes] = os.fdopen(descriptor, "w+b", buffering=0)

    def write_header(self, header: bytes) -> None:
        """Put `header` first; it does not count for the digest."""
        self.header_size += len(header)
        self._write(header)

    def write(self, piece: bytes | memoryview) -> None:
        """Add one piece of the content."""
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
        except DiskFullError as error:
            self._fail(error)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            self._fail(DiskFullError("the disk is full", where=str(self._folder)))

    def _fail(self, error: DiskFullError) -> None:
        self._failure = error.with_traceback(None)  # which would hold on to the sender's buffer
        self.file.truncate(0)
        self.path.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """Digest (hex) of the content so far."""
        return self._digest.hexdigest()

    def check(self) -> None:
        """Raise what went wrong while writing.

        Raises
        ------
        DiskFullError
            The object is not on disk and cannot be stored.
        """
        if self._failure is not None:
            raise self._failure

    def discard(self) -> None:
        """Close and remove it, if it is still there."""
        self.file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.discard()


def guard_disk(folder: Path, free_disk_bytes: int) -> None:
    """Raise :class:`DiskFullError` when less than `free_disk_bytes` are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if free < free_disk_bytes:
        raise DiskFullError(
            f"only {free // MEGABYTE} MB free, {free_disk_bytes // MEGABYTE} MB are to stay free",
            where=str(folder),
            do="free some space or lower archive.free_disk_mb",
        )


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Archive:
    """The node's files.

    Parameters
    ----------
    root : Path
        Folder of the archive; made if it is not there.
    free_disk_mb : int
        Nothing is taken in when less is free.
    quarantine_files, quarantine_mb : int
        Most that is kept aside; the oldest goes first.
    """

    def __init__(
        self, root: Path, free_disk_mb: int = 0, *, quarantine_files: int = 1000, quarantine_mb: int = 4096
    ) -> None:
        self.root = root.absolute()
        self._free_disk_bytes = free_disk_mb * MEGABYTE
        self._quarantine_files, self._quarantine_bytes = quarantine_files, quarantine_mb * MEGABYTE
        for name in ("incoming", "studies", "outbox", "quarantine"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def incoming(self) -> IncomingFile:
        """Open a file for an object that is about to arrive.

        Being under the disk guard shows in :meth:`IncomingFile.check`, not here.
        """
        return IncomingFile(self.root / "incoming", self._free_disk_bytes)

    def clean_incoming(self) -> int:
        """Remove what a crash left half-written; returns how many files. Files being written are left alone."""
        removed = 0
        for path in (self.root / "incoming").iterdir():
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed += 1
        return removed

    def store(
        self,
        sop_instance_uid: str,
        series_instance_uid: str,
        study_instance_uid: str,
        data: IncomingFile | bytes | Iterable[bytes],
    ) -> StoredFile:
        """Make an object durable under its UIDs; when this returns, it survives a power cut.

        Storing the same bytes again gives the same file. Other bytes under the same UID get a path of their own.

        Raises
        ------
        UnsafeNameError
            A UID that is none.
        DiskFullError
            Under the disk guard; nothing was kept.
        """
        for uid in (study_instance_uid, series_instance_uid, sop_instance_uid):
            _require_uid(uid)
        if not isinstance(data, IncomingFile):
            with self.incoming() as incoming:
                for piece in (data,) if isinstance(data, bytes) else data:
                    incoming.write(piece)
                return self.store(sop_instance_uid, series_instance_uid, study_instance_uid, incoming)
        data.check()
        folder = PurePosixPath("studies", study_instance_uid, series_instance_uid)
        path = folder / f"{sop_instance_uid}-{data.sha256[:32]}.dcm"
        self._publish(data, self.root / path)
        return StoredFile(str(path), data.size, data.sha256)

    def _publish(self, incoming: IncomingFile, target: Path) -> None:
        """Sync the bytes, give them their name, sync the name. A file of that name has the same content."""
        try:
            os.fsync(incoming.file)
            for _ in range(3):  # the folder may be removed by retention at this very moment
                self._make_folder(target.parent)
                with suppress(FileNotFoundError):
                    incoming.path.rename(target)
                    sync_folder(target.parent)
                    return
            raise FileNotFoundError(errno.ENOENT, "removed while it was being stored", str(target))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError("the disk is full", where=str(self.root)) from error
            raise

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            sync_folder(new.parent)

    def path(self, relative: str) -> Path:
        """Resolve a path that the archive gave out.

        Raises
        ------
        UnsafeNameError
            It would lead out of the archive.
        """
        pure = PurePosixPath(relative)
        if pure.is_absolute() or not pure.parts or ".." in pure.parts or "\0" in relative:
            raise UnsafeNameError("not a path inside the archive", where=repr(relative))
        return self.root / pure

    def remove(self, relative: str) -> None:
        """Remove one file that the archive gave out, if it is there."""
        self.path(relative).unlink(missing_ok=True)

    def remove_study(self, study_instance_uid: str) -> None:
        """Remove what is left of a study whose images were removed: its folders, if they are empty.

        An image that is being sent again at this moment lies there before the ledger knows it, and stays.
        """
        _require_uid(study_instance_uid)
        study = self.root / "studies" / study_instance_uid
        with suppress(OSError):  # not empty, or not there
            for series in study.iterdir():
                with suppress(OSError):
                    series.rmdir()
            study.rmdir()

    def outbox(self, job_id: int | str) -> Path:
        """Folder for the results of a job, made if it is not there."""
        name = str(job_id)
        if _NAME.fullmatch(name) is None:
            raise UnsafeNameError("not a job id", where=repr(name))
        folder = self.root / "outbox" / name
        self._make_folder(folder)
        return folder

    def put(self, job_id: int | str, name: str, content: bytes) -> Path:
        """Put a file into the outbox of a job, whole or not at all, and durably."""
        if _FILE.fullmatch(name) is None:
            raise UnsafeNameError("not a file name", where=repr(name))
        path = self.outbox(job_id) / name
        temporary = path.with_name(f".{name}-{os.getpid()}.part")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
        return path

    def remove_outbox(self, job_id: int | str, keep: Collection[str] = ()) -> None:
        """Remove the results of a job (retention), but for the files named in `keep`."""
        folder = self.outbox(job_id)
        for path in folder.iterdir():
            if path.name not in keep:
                path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            folder.rmdir()

    def quarantine(self, data: IncomingFile, why: str, facts: Mapping[str, str]) -> StoredFile:
        """Keep an object aside, with the reason and what is known of it in a JSON file beside it.

        Raises
        ------
        DiskFullError
            Under the disk guard; nothing was kept.
        TooLargeError
            It alone is larger than all that may be kept.
        """
        data.check()
        if data.size > self._quarantine_bytes:
            raise TooLargeError(f"an object of {data.size} bytes is too large to be kept aside", where=str(self.root))
        path = PurePosixPath("quarantine", f"{data.sha256[:32]}.dcm")
        note = {"why": why, "size": data.size, "sha256": data.sha256, **facts}
        with self.incoming() as beside:
            beside.write(json.dumps(note, indent=1).encode())
            beside.check()
            self._publish(beside, (self.root / path).with_suffix(".json"))
        self._publish(data, self.root / path)
        (self.root / path).touch()
        self._bound_quarantine()
        return StoredFile(str(path), data.size, data.sha256)

    def _bound_quarantine(self) -> None:
        newest_first = sorted(
            ((path.stat(), path) for path in (self.root / "quarantine").glob("*.dcm")),
            key=lambda entry: entry[0].st_mtime_ns,
            reverse=True,
        )
        kept = 0
        for count, (facts, path) in enumerate(newest_first, 1):
            kept += facts.st_size
            if count > self._quarantine_files or kept > self._quarantine_bytes:
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)


def _require_uid(value: str) -> None:
    if not is_uid(value):
        raise UnsafeNameError("not a UID", where=repr(value[:80]))
