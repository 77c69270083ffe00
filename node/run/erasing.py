"""How are all data of a study removed? Files and rows, for a person who asks for it and for old studies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from node.archive import Archive
from node.ledger import Ledger
from node.settings import ArchiveSettings
from pipeline.errors import InputError
from pipeline.read.headers import read_attributes

STUDIES_PER_ROUND = 20
ROWS_PER_ROUND = 5_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ErasedStudy:
    """What was removed of a study.

    Parameters
    ----------
    files : int
        Images, results and quarantined objects that were on the disk; those already gone are not counted.
    rows : dict
        Rows by what they held.
    delivered_to : tuple of str
        Destinations that accepted results, which keep them.
    """

    study_instance_uid: str
    files: int
    rows: dict[str, int]
    delivered_to: tuple[str, ...]


@dataclass(frozen=True)
class QuarantineOfPatient:
    """What quarantine has of a patient.

    Parameters
    ----------
    paths : tuple of str
        Objects that name the patient.
    unreadable : int
        Objects that name no Patient ID that can be read. Nobody knows whose they are; they are deleted after
        ``archive.keep_quarantine_days``.
    """

    paths: tuple[str, ...]
    unreadable: int


def find_quarantined(ledger: Ledger, archive: Archive, patient_id: str) -> QuarantineOfPatient:
    """Find the objects in quarantine that name a patient, whether or not their study is known."""
    named = {path: _patient_id(archive, path) for path in ledger.quarantined_paths()}
    own = tuple(path for path, found in named.items() if found == patient_id)
    return QuarantineOfPatient(own, sum(found == "" for found in named.values()))


def erase_quarantined(ledger: Ledger, archive: Archive, paths: Sequence[str], patient_id: str, actor: str) -> None:
    """Remove objects in quarantine that name a patient."""
    for path in paths:
        _remove_quarantined(archive, path)
    ledger.erase_quarantined(paths, [patient_id], actor)


def _patient_id(archive: Archive, path: str) -> str | None:
    """Patient ID of an object in quarantine; empty if it cannot be read, None if there is no file."""
    file = archive.path(path)
    if not file.exists():
        return None
    with suppress(Exception):  # it is in quarantine because something is wrong with it
        return str(read_attributes(file, ["PatientID"]).get("PatientID") or "").strip()
    return ""


def erase_study(ledger: Ledger, archive: Archive, study_uid: str, actor: str) -> ErasedStudy:
    """Remove all that the node holds of a study; if it is interrupted, it can be done again.

    Raises
    ------
    InputError
        If there is no such study, or something works on it now.
    """
    with archive.study_lock(study_uid, exclusive=True):  # no image of it is received meanwhile
        found = ledger.begin_erasure(study_uid, actor)
        files = sum(_remove(archive, path) for path in found.images)
        files += sum(_remove_quarantined(archive, path) for path in found.quarantined)
        for job_id in found.job_ids:
            files += sum(1 for _ in archive.outbox(job_id).iterdir())
            archive.remove_outbox(job_id)
        archive.remove_study(study_uid)
        rows = ledger.erase_rows(study_uid, actor)
    return ErasedStudy(study_uid, files, rows, found.delivered_to)


def _remove(archive: Archive, path: str) -> bool:
    there = archive.path(path).exists()
    archive.remove(path)
    return there


def _remove_quarantined(archive: Archive, path: str) -> bool:
    """Remove an object and the note beside it."""
    archive.remove(path.removesuffix(".dcm") + ".json")
    return _remove(archive, path)


def remove_old_rows(ledger: Ledger, archive: Archive, settings: ArchiveSettings, now: datetime) -> None:
    """Remove rows and quarantined objects whose time is over, a bounded number at a time."""
    for study_uid in ledger.outdated_studies(now - timedelta(days=settings.keep_rows_days), STUDIES_PER_ROUND):
        with suppress(InputError):  # something works on it; the next round tries again
            erased = erase_study(ledger, archive, study_uid, "sweep")
            _log.info("old rows of a study removed", study=study_uid, rows=sum(erased.rows.values()))
    if rows := ledger.forget_history(now - timedelta(days=settings.keep_history_days), ROWS_PER_ROUND):
        _log.info("old rows of the history removed", rows=rows)
    before = now - timedelta(days=settings.keep_quarantine_days)
    old = ledger.forget_quarantine(before, ROWS_PER_ROUND)
    for path in old:
        _remove_quarantined(archive, path)
    if old:
        _log.info("old objects in quarantine removed", files=len(old))
