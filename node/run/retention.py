"""What is removed from the disk, and when is it too full?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from node.analyse.comparison import REFERENCE
from node.archive import Archive
from node.ledger import Ledger
from node.settings import WorklistSettings
from pipeline.errors import InputError
from pipeline.pictures import CROPS

KEPT = (CROPS, REFERENCE)
"""Small files of a result that are kept as long as its findings."""
ORPHAN_AFTER = timedelta(days=1)
"""A file is stored shortly before its row is committed; an older one without a row never gets one."""
PULLS_FOR = timedelta(days=30)
"""For this long the node remembers a study that queries no longer return."""

_log = structlog.get_logger(__name__)


def remove_old(ledger: Ledger, archive: Archive, keep_days: float) -> int:
    """Remove images and results of studies that were finished `keep_days` ago; return the number of studies.

    The ledger keeps the findings. No image of a study is received while its files are removed.
    """
    now = datetime.now(UTC)
    number = 0
    for uid in ledger.removable_studies(now, keep_days):
        with archive.study_lock(uid, exclusive=True):
            study = ledger.mark_removed(uid, now, keep_days)
            if study is None:
                continue
            for path in study.paths:
                archive.remove(path)
            archive.remove_study(uid)
        for job_id in study.job_ids:
            archive.remove_outbox(job_id, KEPT)
        number += 1
        _log.info("images removed", study=uid, files=len(study.paths))
    return number


def forget_old(ledger: Ledger, settings: WorklistSettings) -> None:
    """Remove audit rows, ended sessions and old sign-in attempts whose time is over."""
    now = datetime.now(UTC)
    removed = ledger.forget_audit(now - timedelta(days=settings.audit_days))
    ledger.forget_sessions(now)
    ledger.forget_attempts(before=now - timedelta(seconds=settings.wrong_within_s) - timedelta(days=1))
    if removed:
        _log.info("old audit rows removed", rows=removed)


def forget_pulls(ledger: Ledger, now: datetime) -> None:
    """Remove rows of studies that no query has returned for long."""
    ledger.forget_pulls(now - PULLS_FOR)


def remove_orphans(ledger: Ledger, archive: Archive) -> Iterator[int]:
    """Remove files that no row of the ledger knows, left by a crash between the file and its row.

    Yields
    ------
    int
        Files removed, one study after the other, so that the caller decides when to go on.
    """
    before = (datetime.now(UTC) - ORPHAN_AFTER).timestamp()
    for folder in sorted((archive.root / "studies").iterdir()):
        with archive.study_lock(folder.name, exclusive=True):
            old = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mtime < before]
            orphans = _unknown(old, _known(ledger, folder.name), archive.root) if old else []
            for path in orphans:
                path.unlink(missing_ok=True)
        if orphans:
            _log.warning("files without a row removed", study=folder.name, files=len(orphans))
        yield len(orphans)


def _unknown(paths: list[Path], known: set[str], root: Path) -> list[Path]:
    return [path for path in paths if path.relative_to(root).as_posix() not in known]


def _known(ledger: Ledger, study_uid: str) -> set[str]:
    """Paths of the images that the ledger has of a study."""
    try:
        ledger.study(study_uid)
    except InputError:
        return set()
    series = [series.series_instance_uid for series in ledger.series(study_uid)]
    return {instance.path for instance in ledger.instances(*series) if instance.removed_at is None}
