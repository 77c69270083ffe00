"""How is a backup made while the node runs, and read back into an empty place?

A backup is a tar file: the files of the archive, the rows of the ledger as lines of JSON, and at its end a list of all
of it with digests. The rows are copied after the files, and then the files that came meanwhile: so every file that a
row names is there. A file without a row does no harm; the node removes it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Any

from node.ledger import Ledger
from node.ledger.copying import LedgerCopy
from node.ledger.schema import SchemaVersion, known_schemas
from node.processes.file_modes import secure_data_folder
from node.processes.parts import read_parts
from pipeline.errors import CmbError

SCHEMA = "cmb-backup/1"
FOLDERS = ("studies", "outbox", "quarantine", "qa")
"""Folders of the data folder that are kept; the others hold nothing for longer than a moment."""
ROWS, CONTENTS = "ledger.jsonl", "contents.json"
_ROUNDS = 3


class BackupError(CmbError):
    """A backup cannot be made, or this file cannot be restored here."""


@dataclass(frozen=True)
class BackupSummary:
    """What is in a backup.

    Parameters
    ----------
    missing : tuple of str
        Files that the ledger names and that are not on the disk.
    """

    schema: str
    software: str
    made_at: str
    rows: dict[str, int]
    files: int
    missing: tuple[str, ...]


def make_backup(ledger: Ledger, data_dir: Path, target: Path, progress: Callable[[str], None]) -> BackupSummary:
    """Write a backup; it has its name only when it is complete and on the disk.

    Raises
    ------
    BackupError
        If the file exists, or cannot be written.
    """
    if target.exists():
        raise BackupError("this file exists; nothing was written", where=str(target), do="name another file")
    partial = target.with_name(f".{target.name}.part")
    software, made_at = version("cmb-node"), datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with partial.open("wb") as raw:
            os.fchmod(raw.fileno(), 0o600)
            with tarfile.open(fileobj=raw, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                progress("files")
                digests = dict(_add_files(tar, data_dir, {}))
                copy = _add_ledger(tar, ledger, data_dir, digests, progress)
                missing = tuple(sorted(copy.files - digests.keys()))
                contents = {
                    "schema": SCHEMA,
                    "software": software,
                    "made_at": made_at,
                    "ledger_schema": copy.schema,
                    "rows": copy.rows,
                    "missing": missing,
                    "sha256": digests,
                }
                _add(tar, CONTENTS, io.BytesIO(json.dumps(contents).encode()))
            raw.flush()
            os.fsync(raw.fileno())
        os.link(partial, target)  # unlike a rename, it overwrites nothing
    except OSError as error:
        raise BackupError(f"it cannot be written ({error.strerror})", where=str(target)) from error
    finally:
        partial.unlink(missing_ok=True)
    return BackupSummary(copy.schema, software, made_at, copy.rows, len(digests) - 1, missing)


def _add_ledger(
    tar: tarfile.TarFile, ledger: Ledger, data_dir: Path, digests: dict[str, str], progress: Callable[[str], None]
) -> LedgerCopy:
    """Add the rows, then the files that came since; once more if a file that they name went away meanwhile."""
    for left in reversed(range(_ROUNDS)):
        progress("ledger")
        with tempfile.TemporaryFile() as rows:
            text = io.TextIOWrapper(rows, encoding="utf-8", write_through=True)
            copy = ledger.write_copy(text)
            text.detach()
            progress("files that came meanwhile")
            digests |= _add_files(tar, data_dir, digests)
            if not left or copy.files <= digests.keys():
                digests[ROWS] = _add(tar, ROWS, rows)
                return copy
    raise AssertionError("unreachable")  # the last round always returns


def _add_files(tar: tarfile.TarFile, data_dir: Path, known: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Add every file of the archive that is not known yet; gives names and digests."""
    for folder in FOLDERS:
        for parent, folders, names in os.walk(data_dir / folder):
            folders.sort()
            for name in sorted(names):
                path = Path(parent, name)
                member = path.relative_to(data_dir).as_posix()
                if name.startswith(".") or member in known:  # a dot: not yet complete
                    continue
                with suppress(FileNotFoundError), path.open("rb") as file:  # removed at this moment
                    yield member, _add(tar, member, file)


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes]) -> str:
    """Add the content of an open file; returns its digest."""
    file.seek(0, os.SEEK_END)
    member = tarfile.TarInfo(name)
    member.size, member.mode = file.tell(), 0o600
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    file.seek(0)
    tar.addfile(member, file)
    return digest.hexdigest()


def read_contents(source: Path) -> dict[str, Any]:
    """Read what a backup says of itself.

    Raises
    ------
    BackupError
        If it is no backup, not complete, or of a newer version.
    """
    try:
        with tarfile.open(source) as tar:
            member = tar.extractfile(CONTENTS)
            contents: dict[str, Any] = json.load(member) if member else {}
    except FileNotFoundError as error:
        raise BackupError("no such file", where=str(source)) from error
    except (KeyError, EOFError, ValueError, tarfile.TarError) as error:
        raise BackupError("it is not a cmb-node backup, or is incomplete", where=str(source)) from error
    except OSError as error:
        raise BackupError(f"it cannot be read ({error.strerror})", where=str(source)) from error
    if contents.get("schema") != SCHEMA:
        raise BackupError(f"it has format {contents.get('schema')}, not {SCHEMA}", where=str(source))
    return contents


def restore_backup(ledger: Ledger, data_dir: Path, source: Path, progress: Callable[[str], None]) -> BackupSummary:
    """Read a backup into an empty data folder and an empty database; if it fails, both are empty again.

    Raises
    ------
    BackupError
        If the file is not complete, a node runs on the folder, or it is not empty.
    SchemaError
        If a newer version wrote it, or the database is not empty.
    """
    contents = read_contents(source)
    SchemaVersion(contents["ledger_schema"], known_schemas()).require_known()
    secure_data_folder(data_dir)
    if any(life.works for life in read_parts(data_dir)):
        raise BackupError("a running node uses it", where=str(data_dir), do="stop the node, or name another folder")
    for name in FOLDERS:
        if any((data_dir / name).rglob("*")):
            raise BackupError(
                f"it is not empty: there are files in {name}/",
                where=str(data_dir),
                do="name an empty folder with --data; `cmbnode restore` does not add to existing data",
            )
    ledger.require_empty()
    with _emptied_on_failure(data_dir), tempfile.TemporaryDirectory(dir=data_dir) as scratch:
        progress("files")
        with tarfile.open(source) as tar:
            _extract(tar, data_dir, Path(scratch), contents["sha256"], source)
        progress("ledger")
        with (Path(scratch) / ROWS).open(encoding="utf-8") as rows:
            number = ledger.read_copy(contents["ledger_schema"], rows)
    secure_data_folder(data_dir, deep=True)
    return BackupSummary(
        contents["ledger_schema"],
        contents["software"],
        contents["made_at"],
        number,
        len(contents["sha256"]) - 1,
        tuple(contents["missing"]),
    )


def _extract(tar: tarfile.TarFile, data_dir: Path, scratch: Path, digests: dict[str, str], source: Path) -> None:
    """Write every file, durably, and compare it with its digest."""
    found: set[str] = set()
    folders: set[Path] = set()
    for member in tar:
        if member.name == CONTENTS:
            continue
        parts = PurePosixPath(member.name).parts
        is_rows = member.name == ROWS
        if not member.isreg() or ".." in parts or not (is_rows or (len(parts) > 1 and parts[0] in FOLDERS)):
            raise BackupError(f"it contains {member.name!r}, which no backup does", where=str(source))
        path = (scratch if is_rows else data_dir) / member.name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        content = tar.extractfile(member)
        with path.open("wb") as out:
            if content is not None:
                shutil.copyfileobj(content, out)
            out.flush()
            os.fsync(out.fileno())
        with path.open("rb") as written:
            if hashlib.file_digest(written, "sha256").hexdigest() != digests.get(member.name):
                raise BackupError(f"{member.name} is damaged", where=str(source), do="use another backup")
        found.add(member.name)
        folders |= {path.parent, *(one for one in path.parent.parents if one.is_relative_to(data_dir))}
    if missing := digests.keys() - found:
        raise BackupError(f"{sorted(missing)[0]} is not in it", where=str(source), do="use another backup")
    for folder in folders:
        _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _emptied_on_failure(data_dir: Path) -> Iterator[None]:
    """Remove what was written to the folders of the archive, which were empty, if something fails."""
    try:
        yield
    except BaseException:
        for name in FOLDERS:
            shutil.rmtree(data_dir / name, ignore_errors=True)
        raise
