"""How much of what could not be stored is kept? The newest objects, within two limits."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

MOST_FILES = 1000
MOST_MB = 4096


def bound_quarantine(folder: Path, most_files: int, most_bytes: int) -> None:
    """Remove the oldest objects beyond the limits, and the notes beside them; under the quarantine's lock."""
    found = []
    for path in folder.glob("*.dcm"):
        with suppress(FileNotFoundError):  # an administrator may remove files at any time
            found.append((path.stat(), path))
    newest_first = sorted(found, key=lambda entry: entry[0].st_mtime_ns, reverse=True)
    total = 0
    for count, (facts, path) in enumerate(newest_first, 1):
        total += facts.st_size
        if count > most_files or total > most_bytes:
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
