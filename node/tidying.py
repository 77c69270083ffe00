"""What may go from the disk, and when is it too full? Retention, files without a row, the warning before the guard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from node.archive import MEGABYTE, Archive
from node.comparison import REFERENCE
from node.config import WorklistSettings
from node.ledger import Ledger
from pipeline.errors import InputError
from pipeline.pictures import CROPS

KEPT = (CROPS, REFERENCE)
"""Small files of a result that stay as long as its findings."""
STRAY_AFTER = timedelta(days=1)
"""A file is stored before its row is committed; one without a row after so long never gets one."""

_log = structlog.get_logger(__name__)


def remove_old(ledger: Ledger, archive: Archive, keep_days: float) -> int:
    """Remove images and results of studies that were dealt with long ago; how many. The ledger keeps what was found.

    The row first: an image that is sent again at this moment must not be taken for one that is there.
    """
    now = datetime.now(UTC)
    removable = ledger.removable_studies(now, keep_days)
    for study in removable:
        uid = study.study_instance_uid
        if not ledger.mark_removed(uid, now):
            continue
        back = _known(ledger, uid)
        for path in study.paths:
            if path not in back:
                archive.remove(path)
        for job_id in study.job_ids:
            archive.remove_outbox(job_id, KEPT)
        if not back:
            archive.remove_study(uid)
        _log.info("images removed", study=uid, files=len(study.paths))
    return len(removable)


def forget_old(ledger: Ledger, settings: WorklistSettings) -> None:
    """Forget what was written down about looking long ago, and what is left of sessions and attempts that are over."""
    now = datetime.now(UTC)
    removed = ledger.forget_audit(now - timedelta(days=settings.audit_days))
    ledger.forget_sessions(now)
    ledger.forget_attempts(before=now - timedelta(seconds=settings.wrong_within_s) - timedelta(days=1))
    if removed:
        _log.info("old rows of the audit removed", rows=removed)


def remove_strays(ledger: Ledger, archive: Archive) -> Iterator[int]:
    """Remove files that no row of the ledger knows, left by a crash between the file and its row.

    Yields
    ------
    int
        Files removed, one study after the other, so that the caller decides when to go on.
    """
    before = (datetime.now(UTC) - STRAY_AFTER).timestamp()
    for folder in sorted((archive.root / "studies").iterdir()):
        old = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mtime < before]
        strays = _unknown(old, _known(ledger, folder.name), archive.root) if old else []
        for path in strays:
            path.unlink(missing_ok=True)
        if strays:
            _log.warning("files without a row removed", study=folder.name, files=len(strays))
        yield len(strays)


def _unknown(paths: list[Path], known: set[str], root: Path) -> list[Path]:
    return [path for path in paths if path.relative_to(root).as_posix() not in known]


def _known(ledger: Ledger, study_uid: str) -> set[str]:
    """Paths of the images of a study that the ledger holds to be there."""
    try:
        ledger.study(study_uid)
    except InputError:
        return set()
    series = [series.series_instance_uid for series in ledger.series(study_uid)]
    return {instance.path for instance in ledger.instances(*series) if instance.removed_at is None}


def look_at_disk(archive: Archive, guard_mb: int) -> str:
    """Say what is wrong with the free space, before the receiver has to refuse images; empty if nothing is."""
    free_mb = shutil.disk_usage(archive.root).free // MEGABYTE
    if free_mb >= 2 * guard_mb:
        return ""
    what = "images are refused" if free_mb < guard_mb else "the disk fills up"
    return f"{what}: {free_mb} MB free, images are refused below {guard_mb} MB"
