"""May a command write to a folder? One at a time: two would write to the same unfinished files, or a study twice."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import InputError


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other commands out of `folder`, which is made if it is not there.

    Raises
    ------
    InputError
        If another command is at work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:  # a file: NFS locks nothing that cannot be written to
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "another `cmbtrain` command writes to this folder"
            raise InputError(what, where=str(folder), do="wait until it ends, or stop it") from None
        yield
