"""Where are files kept, and when are they durable? Durable writes, safe file names, the disk guard.

Layout under the root, all on one file system so that a rename is atomic::

    incoming/    objects being received; what a crash leaves here is removed at the next start
    studies/     <study UID>/<series UID>/<SOP Instance UID>-<digest>.dcm
    outbox/      <job id>/, the results of one job
    quarantine/  <digest>.dcm with <digest>.json beside it: an object that was not stored, and why
    locks/       lock files of studies and of the quarantine, all empty

The digest in the file name gives two different objects two paths, so neither overwrites the other. Which of two objects
with the same SOP Instance UID counts is decided by the ledger, not by the file system.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from pipeline.errors import CmbError

from .disk_space import MEGABYTE
from .incoming import NO_SPACE, IncomingFile, out_of_resources
from .quarantine import MOST_FILES, MOST_MB, bound_quarantine

_STUDY_LOCKS = 64  # lock files that all studies share
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class TooLargeError(CmbError):
    """The object alone is larger than the whole quarantine may be."""


class UnsafeNameError(CmbError):
    """A UID or name that is not safe as part of a path."""


class DamagedFileError(CmbError):
    """A file of the archive is missing, or its content is not what was recorded when it was stored."""


def is_uid(value: str) -> bool:
    """Tell whether `value` is a UID that is safe in a path.

    Characters and length are those of PS3.5 9.1. Leading zeros in a component are accepted although the standard
    forbids them: some devices write them, and they do no harm here.
    """
    return len(value) <= 64 and _UID.fullmatch(value) is not None


@dataclass(frozen=True)
class StoredFile:
    """A file that is durable on disk.

    Parameters
    ----------
    path : str
        Relative to the archive's root, with forward slashes.
    size : int
        Bytes of the whole file.
    sha256 : str
        Digest of the content as received, without the header that the archive's caller put before it.
    """

    path: str
    size: int
    sha256: str


class RecordedFile(Protocol):
    """What the ledger records of a file: an instance, or a result object of a job."""

    @property
    def path(self) -> str:
        """Relative to the archive's root."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""

    @property
    def sha256(self) -> str:
        """Digest of the content; of an instance without its file meta information."""


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
        Folder of the archive; created if missing.
    free_disk_mb : int
        Nothing is stored when less disk space is free.
    quarantine_files, quarantine_mb : int
        Limits of the quarantine; beyond them the oldest objects are removed.
    """

    def __init__(
        self, root: Path, free_disk_mb: int = 0, *, quarantine_files: int = MOST_FILES, quarantine_mb: int = MOST_MB
    ) -> None:
        self.root = root.absolute()
        self._free_disk_bytes = free_disk_mb * MEGABYTE
        self._quarantine_files, self._quarantine_bytes = quarantine_files, quarantine_mb * MEGABYTE
        for name in ("incoming", "studies", "outbox", "quarantine", "locks"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def incoming(self) -> IncomingFile:
        """Open a file for an object that is about to arrive; :meth:`IncomingFile.check` says if that failed."""
        return IncomingFile(self.root / "incoming", self._free_disk_bytes)

    def clean_incoming(self) -> int:
        """Remove files that a crash left half-written, not those being written; return their number."""
        removed = 0
        for path in (self.root / "incoming").iterdir():
            with suppress(OSError), path.open("r+b") as file:  # NFS locks only what may be written
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
        """Store an object durably under its UIDs; when this returns, it survives a power cut.

        Storing the same bytes again gives the same file. Other bytes with the same UID get another path.

        Raises
        ------
        UnsafeNameError
            A UID is malformed.
        OutOfResourcesError
            The object cannot be written now; nothing was stored.
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

    @contextmanager
    def study_lock(self, study_instance_uid: str, *, exclusive: bool = False) -> Iterator[None]:
        """Hold the lock of a study, across threads and processes.

        Whoever stores an instance holds it, shared with others, from before its file is written until its row is in the
        ledger. Whoever removes files of the study holds it alone, so that no file goes that was just acknowledged.
        """
        number = zlib.crc32(study_instance_uid.encode()) % _STUDY_LOCKS
        with self._lock(f"studies-{number:02}", exclusive=exclusive):
            yield

    @contextmanager
    def _lock(self, name: str, *, exclusive: bool) -> Iterator[None]:
        descriptor = os.open(self.root / "locks" / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def _publish(self, incoming: IncomingFile, target: Path) -> None:
        """Sync the content, rename the file, sync the name. An existing file of that name has the same content."""
        incoming.check()
        assert incoming.path is not None  # noqa: S101 - for the type checker: `check` passed
        try:
            os.fsync(incoming.file)
            self._make_folder(target.parent)
            incoming.path.rename(target)
            sync_folder(target.parent)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise out_of_resources(error, self.root) from error
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
        """Turn a path relative to the archive into one that can be opened.

        Raises
        ------
        UnsafeNameError
            It leads out of the archive.
        """
        pure = PurePosixPath(relative)
        if pure.is_absolute() or not pure.parts or ".." in pure.parts or "\0" in relative:
            raise UnsafeNameError("not a path inside the archive", where=repr(relative))
        return self.root / pure

    def verify(self, file: RecordedFile) -> None:
        """Check a stored file against the size and digest in the ledger.

        The file meta information, which the node itself puts before a received data set, has no digest: of it only the
        length is checked.

        Raises
        ------
        DamagedFileError
            It is missing, cannot be read from the disk, or has other content.
        """
        try:
            with self.path(file.path).open("rb") as stored:
                size = os.fstat(stored.fileno()).st_size
                stored.seek(content_start(stored) if file.path.startswith("studies/") else 0)
                digest = hashlib.file_digest(stored, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise _damaged(file, "the file is missing") from error
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise _damaged(file, "the disk cannot read the file") from error
        if size != file.size:
            raise _damaged(file, f"the file has {size} bytes instead of {file.size}")
        if digest != file.sha256:
            raise _damaged(file, "the content of the file has changed since it was stored")

    def remove(self, relative: str) -> None:
        """Remove one file of the archive, if it exists."""
        self.path(relative).unlink(missing_ok=True)

    def remove_study(self, study_instance_uid: str) -> None:
        """Remove the empty folders of a study, under its exclusive lock."""
        _require_uid(study_instance_uid)
        study = self.root / "studies" / study_instance_uid
        with suppress(OSError):  # not empty, or missing
            for series in study.iterdir():
                with suppress(OSError):
                    series.rmdir()
            study.rmdir()

    def outbox(self, job_id: int | str) -> Path:
        """Folder for the results of a job; created if missing."""
        name = str(job_id)
        if _NAME.fullmatch(name) is None:
            raise UnsafeNameError("not a job id", where=repr(name))
        folder = self.root / "outbox" / name
        self._make_folder(folder)
        return folder

    def put(self, job_id: int | str, name: str, content: bytes) -> Path:
        """Write a file into the outbox of a job, atomically and durably."""
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
        """Remove the results of a job (retention), except the files named in `keep`."""
        folder = self.outbox(job_id)
        for path in folder.iterdir():
            if path.name not in keep:
                path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            folder.rmdir()

    def quarantine(self, data: IncomingFile, why: str, facts: Mapping[str, str]) -> StoredFile:
        """Keep an object that cannot be stored, with the reason and what is known of it in a JSON file beside it.

        Raises
        ------
        OutOfResourcesError
            The object cannot be written now; nothing was kept.
        TooLargeError
            It alone is larger than the whole quarantine may be.
        """
        data.check()
        if data.size > self._quarantine_bytes:
            raise TooLargeError(f"an object of {data.size} bytes is too large for quarantine", where=str(self.root))
        path = PurePosixPath("quarantine", f"{data.sha256[:32]}.dcm")
        note = {"why": why, "size": data.size, "sha256": data.sha256, **facts}
        with self.incoming() as beside, self._lock("quarantine", exclusive=True):
            beside.write(json.dumps(note, indent=1).encode())
            beside.check()
            self._publish(data, self.root / path)
            self._publish(beside, (self.root / path).with_suffix(".json"))
            bound_quarantine(self.root / "quarantine", self._quarantine_files, self._quarantine_bytes)
        return StoredFile(str(path), data.size, data.sha256)


def content_start(file: IO[bytes]) -> int:
    """Return where the data set of a file starts: after the file meta information (PS3.10 7.1), if there is any."""
    head = file.read(144)
    if head[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00":
        return 0
    return 144 + int.from_bytes(head[140:], "little")


def _damaged(file: RecordedFile, what: str) -> DamagedFileError:
    return DamagedFileError(what, where=file.path)


def _require_uid(value: str) -> None:
    if not is_uid(value):
        raise UnsafeNameError("malformed UID", where=repr(value[:80]))
