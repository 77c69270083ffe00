"""`cmbnode backup` and `cmbnode restore`: ledger and files in one file, and back into an empty place."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ConfigOption, DataOption, JsonOption, actor, open_ledger, settings_of
from .output import print_json, say, stages

if TYPE_CHECKING:
    from node.run.backup import BackupSummary


_SHOWN = 5
"""Most missing files that are named on a terminal."""


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The tar file to write.")],
    data: DataOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Write a backup; the node can keep running. It holds ledger, images and results, and so patient data."""
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from node.ledger.access_records import AuditAction
    from node.run.backup import make_backup

    settings = settings_of(data, config)
    with open_ledger(settings) as ledger:
        with suppress(OperationalError, ProgrammingError):  # a schema from before the audit
            ledger.record_access(actor(), AuditAction.BACKUP, detail=str(file.absolute()))
        with stages("backup") as progress:
            made = make_backup(ledger, settings.data_dir, file, progress)
    _report(made, f"{file} is written", json)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup that `cmbnode backup` wrote.")],
    data: DataOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Restore a backup into an empty data folder and database. Upgrades it to this version; stop the node first."""
    from node.ledger import Ledger
    from node.ledger.access_records import AuditAction
    from node.run.backup import restore_backup

    settings = settings_of(data, config)
    ledger = Ledger(settings.ledger_url)
    try:
        with stages("restore") as progress:
            read = restore_backup(ledger, settings.data_dir, file, progress)
        ledger.record_access(actor(), AuditAction.RESTORED, detail=f"{file.absolute()}, made at {read.made_at}")
    finally:
        ledger.close()
    _report(read, f"{file} is restored to {settings.data_dir}", json)


def _report(summary: BackupSummary, done: str, json: bool) -> None:
    if json:
        print_json(vars(summary))
        return
    for name in summary.missing[:_SHOWN]:
        say(f"missing: {name}: the ledger names it, but it was not on the disk")
    if len(summary.missing) > _SHOWN:
        say(f"missing: {len(summary.missing) - _SHOWN} more files; --json lists them all")
    studies = summary.rows.get("studies", 0)
    counted = f"{studies} {'study' if studies == 1 else 'studies'}"
    print(f"{done}: {counted}, {sum(summary.rows.values())} rows, {summary.files} files, schema {summary.schema}")
