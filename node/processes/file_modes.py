"""Who can read what the node writes? Only the user that it runs as: images and results hold patients' data."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import CmbError

UMASK = 0o077
"""Every process of the node starts with it (umask(2))."""
FOLDERS = ("incoming", "studies", "outbox", "quarantine", "locks", "redis", "run")
"""The node's own folders in the data folder; anything else there is left alone."""
FILES = ("ledger.sqlite3*", "node.lock")


class PermissionsError(CmbError):
    """The node cannot use its data folder, or other users can, and the node cannot change that."""


def secure_data_folder(data_dir: Path, *, deep: bool = False) -> int:
    """Make the data folder if it is missing, and take everyone else's permissions away from what lies in it.

    Folders become 0700 and files 0600. The content of the node's own folders is checked where `deep` is asked for,
    and wherever something further up had to be repaired: nobody else gets through a closed data folder.

    Returns
    -------
    int
        How many files and folders others had permissions for.

    Raises
    ------
    PermissionsError
        If the folder cannot be made or written, something in it belongs to another user, or its permissions cannot be
        changed.
    """
    do = f"create it for the user that the node runs as (uid {os.geteuid()}), or name another folder with --data"
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise PermissionsError(
            f"this folder cannot be created ({error.strerror})", where=str(data_dir), do=do
        ) from error
    folders = [data_dir / name for name in FOLDERS]
    top = [data_dir, *folders, *(path for pattern in FILES for path in data_dir.glob(pattern))]
    repaired = sum(_repair(path) for path in top)
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise PermissionsError("the node cannot write to this folder", where=str(data_dir), do=do)
    if deep or repaired:
        repaired += sum(_repair(path) for folder in folders for path in _content(folder))
    return repaired


def _content(folder: Path) -> Iterator[Path]:
    """Everything below a folder; links are not followed."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(parent, name)


def _repair(path: Path) -> bool:
    """Take everyone else's permissions away; whether there were any."""
    try:
        facts = path.stat()
        if facts.st_uid != os.geteuid():
            raise PermissionsError(
                f"it belongs to another user (uid {facts.st_uid}; the node runs as {os.geteuid()})",
                where=str(path),
                do="run the node as the owner of its data, or name another folder with --data",
            )
        mode = stat.S_IMODE(facts.st_mode)
        if not mode & UMASK:
            return False
        path.chmod(mode & ~UMASK)
    except FileNotFoundError:  # removed at this moment, or a link to nothing
        return False
    except PermissionError as error:
        raise PermissionsError(
            f"other users can read it, and that cannot be changed ({error.strerror})",
            where=str(path),
            do="chmod -R go-rwx it, or name another folder with --data",
        ) from error
    return True
